"""A FUSE server that never answers: a process that opens one of its files is in state D.

The server implements what a mount needs, answers other requests with ENOSYS, and never answers a lookup of
`HELD`. A request that the server has read cannot be interrupted, not even by SIGKILL; when the server is
closed, the kernel fails the waiting calls.
"""

import ctypes
import errno
import os
import struct
import threading
from pathlib import Path

HELD = "held"

_IN = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # length, -errno, unique
_INIT_OUT = struct.Struct("<IIIIHHIIHHI7I")
_LOOKUP, _FORGET, _INIT, _BATCH_FORGET = 1, 2, 26, 42
_REQUEST_BYTES = 1 << 17
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class HoldingServer:
    """A file system that is mounted on an empty directory until `close`; raise OSError if it cannot be
    mounted."""

    def __init__(self, mountpoint: Path) -> None:
        self.path = mountpoint / HELD
        self.is_held = threading.Event()
        self._mountpoint = str(mountpoint).encode()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if _libc.mount(b"holding", self._mountpoint, b"fuse", ctypes.c_ulong(0), options.encode()) != 0:
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), "mount")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, _REQUEST_BYTES)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue  # the request was cancelled before it was read
                return  # unmounted
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode == _LOOKUP and request[_IN.size :].rstrip(b"\0") == HELD.encode():
                self.is_held.set()
            elif opcode == _INIT:
                self._answer(unique, _INIT_OUT.pack(7, 31, 1 << 16, 0, 12, 9, 1 << 16, 1, 1, 0, 0, *[0] * 7))
            elif opcode not in (_FORGET, _BATCH_FORGET):
                self._answer(unique, b"", errno.ENOSYS)

    def _answer(self, unique: int, body: bytes, error: int = 0) -> None:
        try:
            os.write(self._fd, _OUT.pack(_OUT.size + len(body), -error, unique) + body)
        except OSError:
            pass  # the requesting process has ended

    def close(self) -> None:
        """Unmount; calls that wait fail."""
        if self._fd < 0:
            return
        _libc.umount2(self._mountpoint, 1)  # MNT_FORCE aborts the connection, so the thread ends
        _libc.umount2(self._mountpoint, _MNT_DETACH)
        self._thread.join(10)
        os.close(self._fd)
        self._fd = -1
