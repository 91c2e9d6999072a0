"""From the worker's pipes to its files: raw logs with a cap, and telemetry.

Nothing here waits: pipes are read until they are empty (a bounded amount a round, so that neither
starves the other), and what a cap or a full disk does not let into a log is counted and named in a gap
record.  `size_bytes` is what a reader finds in the file; `lost_bytes` is what the worker wrote besides.
"""

import fcntl
import os
from collections.abc import Callable, Iterable

from mosaicd.protocol import telemetry
from mosaicd.protocol.telemetry import NotARecord, Recognised
from mosaicd.shim.journal import Journal
from mosaicd.shim.scanner import Scanner

PIPE_BYTES = 1 << 20
_READ_BYTES = 128 << 10
_READS_A_ROUND = 16
_LIMIT = "limit"
_DISK_FULL = "disk_full"


class Log:
    """One raw log file: appended up to its cap, then counted."""

    def __init__(self, stream: str, fd: int, limit_bytes: int, journal: Journal) -> None:
        self.stream = stream
        self.size_bytes = 0
        self.lost_bytes = 0
        self._fd = fd
        self._limit_bytes = limit_bytes
        self._journal = journal
        self._gap_reason: str | None = None
        self._gap_lost_before = 0

    def append(self, data: memoryview) -> None:
        """Write what fits; count the rest and never raise."""
        room = self._limit_bytes - self.size_bytes
        part = data if len(data) <= room else data[: max(room, 0)]
        if len(part):
            written = self._write(part)
            self.size_bytes += written
            if written < len(part):
                self._open_gap(_DISK_FULL)
            elif self._gap_reason == _DISK_FULL:
                self._close_gap()
            self.lost_bytes += len(part) - written
        if len(part) < len(data):
            self._open_gap(_LIMIT)
            self.lost_bytes += len(data) - len(part)

    def settle(self) -> None:
        """Record what the gap that is open has swallowed so far."""
        if self._gap_reason:
            self._close_gap()

    def close(self) -> None:
        """Close the file."""
        self.settle()
        os.close(self._fd)

    def _write(self, part: memoryview) -> int:
        written = 0
        try:
            while written < len(part):
                written += os.write(self._fd, part[written:])
        except OSError:
            pass  # no room, no quota: shed, the worker must go on
        return written

    def _open_gap(self, reason: str) -> None:
        if self._gap_reason == reason:
            return
        if self._gap_reason:
            self._close_gap()
        self._gap_reason = reason
        self._gap_lost_before = self.lost_bytes
        if reason == _LIMIT:  # it stays to the end, which may be far: say so at once
            self._record_gap(None)

    def _close_gap(self) -> None:
        self._record_gap(self.lost_bytes - self._gap_lost_before)
        self._gap_reason = None

    def _record_gap(self, lost_bytes: int | None) -> None:
        self._journal.add_gap({
            "stream": self.stream, "reason": self._gap_reason, "offset": self.size_bytes,
            "lost_bytes": lost_bytes,
        })  # fmt: skip


class Spool:
    """Both pipes of a worker and where they lead."""

    def __init__(
        self, stdout: Log, stderr: Log, journal: Journal, on_record: Callable[[Recognised], None]
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.journal = journal
        self.unparsed_lines = 0
        self.read_bytes = 0
        self._on_record = on_record
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._scanner = Scanner()
        self._pipes: dict[int, Log] = {}

    def attach(self, stdout_fd: int, stderr_fd: int) -> None:
        """Take the read ends over."""
        for fd, log in ((stdout_fd, self.stdout), (stderr_fd, self.stderr)):
            _widen(fd)
            self._pipes[fd] = log

    @property
    def open_fds(self) -> list[int]:
        return list(self._pipes)

    def read(self, fd: int) -> bool:
        """Read a bounded amount from one pipe; False once it has reached its end and was closed."""
        log = self._pipes.get(fd)
        if log is None:
            return False
        self.journal.stamp()
        for _ in range(_READS_A_ROUND):
            try:
                size = os.readv(fd, [self._buffer])
            except BlockingIOError:
                return True
            if size == 0:
                self._end(fd)
                return False
            self.read_bytes += size
            log.append(self._view[:size])
            if log is self.stdout:
                self._take(self._scanner.feed(self._buffer, size))
            if size < _READ_BYTES // 4:  # nearly empty: the poll tells when there is more
                return True
        return True

    def read_all(self) -> None:
        """Read what the pipes hold at this moment (bounded: somebody may be filling them), for the record."""
        rounds = PIPE_BYTES // _READ_BYTES
        for fd in self.open_fds:
            for _ in range(rounds):
                if not self._has_data(fd) or not self.read(fd):
                    break
        self.take_tail()
        self.stdout.settle()
        self.stderr.settle()
        self.journal.flush()

    def take_tail(self) -> None:
        """Take a last line without its newline, if it stands complete."""
        tail = self._scanner.tail()
        if tail and self._classify(tail, count=False):
            self._scanner.drop_tail()

    def close(self) -> None:
        """Stop reading, whoever may still hold the other ends, and finish the files."""
        for fd in self.open_fds:
            self._end(fd)
        self.stdout.close()
        self.stderr.close()
        self.journal.close()

    def _has_data(self, fd: int) -> bool:
        waiting = bytearray(4)
        fcntl.ioctl(fd, _FIONREAD, waiting)
        return any(waiting)

    def _end(self, fd: int) -> None:
        log = self._pipes.pop(fd)
        os.close(fd)
        if log is self.stdout:
            tail = self._scanner.tail()
            if tail:
                self._take([tail])
            self._scanner.drop_tail()

    def _take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._classify(line)

    def _classify(self, line: bytes, count: bool = True) -> bool:
        try:
            record = telemetry.classify(line)
        except NotARecord:
            self.unparsed_lines += count
            return False
        if record is not None:
            self.journal.add(record)
            self._on_record(record)
        return True


_FIONREAD = 0x541B


def _widen(fd: int) -> None:
    """Give the pipe as much room as this user may have: a pause of ours must not become the worker's."""
    for size in (PIPE_BYTES, PIPE_BYTES >> 2):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            continue  # the user's total for pipes is used up: a smaller one, or the kernel's own size
        return
