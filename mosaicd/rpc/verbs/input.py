"""input.open and input.write: upload the input of a run, before the run.submit that names the upload.

Caveats: an upload belongs to the connection.  It ends with the connection, with an error of its file, and
with the submit that uses it; then its file is removed, unless it is the input of a run.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.messages import InputChunk, NoParams
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle_open(services: Services, caller: Caller, params: NoParams) -> Json:
    """Begin an upload and return its name and its limits."""
    uploads = services.uploads
    upload = await uploads.open(caller)
    return {"upload": upload.id, "chunk_bytes": uploads.chunk_bytes, "limit_bytes": uploads.limit_bytes}


async def handle_write(services: Services, caller: Caller, params: InputChunk) -> Json:
    """Append a chunk and return the number of bytes received so far."""
    return {"size": await services.uploads.append(caller, params.upload, params.offset, params.data)}
