"""daemon.hello: versions, and what a cursor means here.

Input: the client's protocol version and name.  Output: ours, the ledger's epoch, who the caller is.
Caveats: answered while the daemon is still starting; a version we do not speak is refused.
"""

from mosaicd import __version__
from mosaicd.protocol import PROTOCOL_VERSION, Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import Hello
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: Hello) -> Json:
    """Return who we are."""
    if params.proto_version != PROTOCOL_VERSION:
        raise Conflict(
            f"this daemon speaks protocol {PROTOCOL_VERSION}, not {params.proto_version}",
            protocol=PROTOCOL_VERSION,
        )
    return {
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "epoch": services.registry.epoch,
        "last_seq": services.broadcaster.last_seq,
        "ready": services.ready.is_set(),
        "user": caller.name,
        "uid": caller.uid,
        "is_admin": caller.is_admin,
        "at": services.clock.wall(),
    }
