"""journald's native protocol: one datagram for each record, a sealed memory file for a large record.

Sending never waits.  If the journal does not read, records are dropped and counted.
"""

import errno
import fcntl
import os
import re
import socket
import struct
from array import array
from collections.abc import Mapping

SOCKET_PATH = "/run/systemd/journal/socket"

_NAME = re.compile(r"[A-Z0-9][A-Z0-9_]{0,63}")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_journal_stream(journal_stream: str | None, fd: int = 2) -> bool:
    """Return whether descriptor `fd` is the stream that systemd named in JOURNAL_STREAM (`device:inode`)."""
    if not journal_stream:
        return False
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def encode(fields: Mapping[str, str]) -> bytes:
    """Return a record; raise ValueError for an invalid name of a field."""
    record = bytearray()
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a journal field")
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            record += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            record += name.encode() + b"=" + data + b"\n"
    return bytes(record)


class Journal:
    """A socket to the journal; `dropped` counts the records that the journal did not accept."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self.path = path
        self.dropped = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one record; return False if it was dropped; raise OSError if there is no journal."""
        record = encode(fields)
        try:
            self._socket.sendto(record, self.path)
        except BlockingIOError:
            self.dropped += 1
            return False
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            return self._send_file(record)
        return True

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()

    def _send_file(self, record: bytes) -> bool:
        fd = os.memfd_create("mosaicd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(record)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))]
            self._socket.sendmsg([b""], rights, 0, self.path)
        except BlockingIOError:
            self.dropped += 1
            return False
        finally:
            os.close(fd)
        return True
