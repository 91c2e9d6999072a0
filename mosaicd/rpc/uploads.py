"""The open uploads: each belongs to one connection, and ends with it, or with the submit that uses it.

An upload that ends without a run leaves no file.
"""

import asyncio
import base64
import binascii
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from mosaicd.config.settings import Limits
from mosaicd.core.spec import Stdin
from mosaicd.protocol.errors import NotFound, TooLarge, Unavailable
from mosaicd.protocol.faults import invalid
from mosaicd.rpc.caller import Caller
from mosaicd.rundirs.uploads import UploadDir, UploadFile
from mosaicd.shims.shims import Connection

#: The most bytes of content in one input.write.
CHUNK_BYTES = 256 << 10
#: The part of a request line that is not content.
_LINE_REST_BYTES = 512

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Upload:
    """One upload; `lock` is held for each change, in the order of the requests."""

    id: str
    uid: int
    connection: Connection
    file: UploadFile
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class FinishedUpload:
    """An upload whose content is on the disk; `move_to` makes it the input of a run."""

    stdin: Stdin
    move_to: Callable[[Path], None]


class Uploads:
    """The open uploads of all connections."""

    def __init__(self, directory: UploadDir, limits: Limits) -> None:
        self._directory = directory
        self._open: dict[str, Upload] = {}
        self._limit = limits.uploads_per_user
        self.limit_bytes = limits.stdin_bytes
        #: As base64, a chunk fits into a request line.
        self.chunk_bytes = min(CHUNK_BYTES, (limits.request_bytes - _LINE_REST_BYTES) // 4 * 3)

    async def open(self, caller: Caller) -> Upload:
        """Begin an upload; raise Unavailable if the caller has too many, or if no file can be created."""
        if sum(upload.uid == caller.uid for upload in self._open.values()) >= self._limit:
            rule = f"you have {self._limit} open uploads; more are not allowed"
            raise Unavailable(rule, limit=self._limit)
        name = os.urandom(12).hex()
        upload = Upload(name, caller.uid, caller.connection, self._directory.file(name))
        self._open[upload.id] = upload
        await self._try(upload, upload.file.create)
        caller.connection.on_close(lambda: self._drop(upload))
        return upload

    async def append(self, caller: Caller, upload_id: str, offset: int, data: str) -> int:
        """Append a chunk and return the size; raise InvalidParams for a wrong offset or encoding.

        The upload ends with TooLarge if it exceeds the limit, and with Unavailable on a full disk.
        """
        upload = self._find(caller, upload_id)
        async with upload.lock:
            self._find(caller, upload_id)  # it may have ended meanwhile
            file = upload.file
            if offset != file.size:
                raise invalid("offset", f"must be {file.size}, the bytes received so far, not {offset}")
            try:
                chunk = base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError):
                raise invalid("data", "must be base64") from None
            if file.size + len(chunk) > self.limit_bytes:
                self._drop(upload)
                raise TooLarge(
                    f"the input is larger than {self.limit_bytes} bytes, the setting [limits] stdin_bytes; "
                    "let the program read it from a file",
                    limit_bytes=self.limit_bytes,
                )
            await self._try(upload, partial(file.append, chunk))
            return file.size

    @asynccontextmanager
    async def used(self, caller: Caller, upload_id: str | None) -> AsyncIterator[FinishedUpload | None]:
        """End an upload and give its content; afterwards remove it, unless it was moved to a run."""
        if upload_id is None:
            yield None
            return
        upload = self._find(caller, upload_id)
        async with upload.lock:
            self._find(caller, upload_id)
            del self._open[upload_id]
            try:
                stdin = await self._try(upload, upload.file.finish)
                yield FinishedUpload(stdin, upload.file.move_to)
            finally:
                await asyncio.to_thread(upload.file.remove)

    def _find(self, caller: Caller, upload_id: str) -> Upload:
        """Return an upload of this connection; raise NotFound if there is none."""
        upload = self._open.get(upload_id)
        if upload is None or upload.connection is not caller.connection:
            raise NotFound(f"this connection has no upload {upload_id[:64]!r}")
        return upload

    async def _try(self, upload: Upload, change: Callable[[], T]) -> T:
        """Return the result of a change of the file; if it fails, the upload ends with Unavailable."""
        try:
            return await asyncio.to_thread(change)
        except OSError as error:
            self._drop(upload)
            path = str(self._directory.path)
            raise Unavailable(
                f"cannot write {path}: {error.strerror}; the upload is removed", path=path
            ) from error

    def _drop(self, upload: Upload) -> None:
        """End an upload and remove its file; do nothing for an upload that has ended."""
        if self._open.pop(upload.id, None) is not None:
            asyncio.get_running_loop().run_in_executor(None, upload.file.remove)
