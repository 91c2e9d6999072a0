"""The worker's output: from its pipes to the raw logs and to telemetry.jsonl.

No call waits.  Each round reads a bounded amount, so that one pipe does not starve the other.  Bytes that are
not in a log because of its limit or a disk error are counted, and a gap record in the telemetry names them.
`end_bytes` is the number of bytes that the worker wrote; `lost_bytes` of them are not in the files.
"""

import fcntl
import os
from collections.abc import Callable, Iterable

from mosaicd.protocol import telemetry
from mosaicd.protocol.telemetry import NotARecord, Recognised
from mosaicd.shim.index import Index, StreamIndex
from mosaicd.shim.scanner import Scanner
from mosaicd.shim.segments import Segments
from mosaicd.shim.telemetry_file import DISK_ERROR, DISK_FULL, LIMIT, TelemetryFile

PIPE_BYTES = 1 << 20
_READ_BYTES = 128 << 10
#: The first buffer.  A program that prints little never needs the large one, which is 0.12 MB of memory.
_FIRST_READ_BYTES = 4 << 10
_READS_A_ROUND = 16


class RawLog:
    """One raw log: the beginning and the end of a stream, up to a size limit; lost bytes are counted."""

    def __init__(self, stream: str, files: Segments, telemetry_file: TelemetryFile, index: Index) -> None:
        self.stream = stream
        self.lost_bytes = 0
        self._files = files
        self._telemetry_file = telemetry_file
        self._stream_index = StreamIndex(stream, index)
        self._gap_reason: str | None = None
        self._gap_offset = 0
        self._dropped_from: int | None = None

    @property
    def end_bytes(self) -> int:
        """Return the offset after the last byte."""
        return self._files.offset

    def append(self, data: memoryview) -> None:
        """Append to the log; bytes that the disk refuses are counted as lost.  Never raises."""
        self._stream_index.note(self._files.offset, self._telemetry_file.at)
        files = self._files
        while len(data):
            if not files.room and not self._roll():
                break
            part = data[: files.room]
            written = files.write(part)
            if written and self._gap_reason:
                self._close_gap(files.offset - written)
            data = data[written:]
            if written < len(part):
                break
        if len(data):
            self._open_gap(DISK_FULL if files.is_disk_full else DISK_ERROR)
            self.lost_bytes += len(data)
            files.skip(len(data))

    def record_gap_so_far(self) -> None:
        """Add a gap record for bytes that are lost so far, and begin a segment where the gap ends."""
        if self._gap_reason:
            self._close_gap(self._files.offset)
            self._roll()

    def close(self) -> None:
        """Close the files."""
        self.record_gap_so_far()
        self._stream_index.finish(self._files.offset)
        self._files.close()

    def _roll(self) -> bool:
        """Begin a segment, and record all bytes removed so far; return False if it cannot be begun."""
        files = self._files
        dropped = files.roll()
        if dropped:
            self.lost_bytes += sum(segment.size for segment in dropped)
            if self._dropped_from is None:
                self._dropped_from = dropped[0].start
            kept = files.ring[0].start if files.ring else files.offset
            self._record_gap(LIMIT, self._dropped_from, kept - self._dropped_from)
        return files.room > 0

    def _open_gap(self, reason: str) -> None:
        if self._gap_reason is None:
            self._gap_reason, self._gap_offset = reason, self._files.offset

    def _close_gap(self, end: int) -> None:
        assert self._gap_reason is not None
        self._record_gap(self._gap_reason, self._gap_offset, end - self._gap_offset)
        self._gap_reason = None

    def _record_gap(self, reason: str, offset: int, lost_bytes: int) -> None:
        self._telemetry_file.add_gap(
            {"stream": self.stream, "reason": reason, "offset": offset, "lost_bytes": lost_bytes}
        )


class Spool:
    """Both pipes of a worker, and the files for their bytes."""

    def __init__(
        self, stdout: RawLog, stderr: RawLog, telemetry_file: TelemetryFile, index: Index,
        on_record: Callable[[Recognised], None],
    ) -> None:  # fmt: skip
        self.stdout = stdout
        self.stderr = stderr
        self.telemetry_file = telemetry_file
        self.unparsed_lines = 0
        self.read_bytes = 0
        self._index = index
        self._on_record = on_record
        self._set_buffer(_FIRST_READ_BYTES)
        self._scanner = Scanner()
        self._pipes: dict[int, RawLog] = {}

    def _set_buffer(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)

    def attach(self, stdout_fd: int, stderr_fd: int) -> None:
        """Take over the read ends of the worker's pipes."""
        for fd, log in ((stdout_fd, self.stdout), (stderr_fd, self.stderr)):
            _enlarge(fd)
            self._pipes[fd] = log

    @property
    def open_fds(self) -> list[int]:
        """Return the read ends that are still open."""
        return list(self._pipes)

    def read(self, fd: int) -> bool:
        """Read a bounded amount from a pipe; at its end, close it and return False."""
        log = self._pipes.get(fd)
        if log is None:
            return False
        self.telemetry_file.read_clock()
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
                self._classify_all(self._scanner.feed(self._buffer, size))
            if size < len(self._buffer) // 4:  # nearly empty: the next poll reports more bytes
                return True
            if size == len(self._buffer) < _READ_BYTES:
                self._set_buffer(_READ_BYTES)
        return True

    def read_pending(self) -> None:
        """Read the bytes that the pipes hold now, up to their size: a process may still write to them."""
        rounds = PIPE_BYTES // _READ_BYTES
        for fd in self.open_fds:
            for _ in range(rounds):
                if not self._has_data(fd) or not self.read(fd):
                    break
        self._use_last_line()
        self.stdout.record_gap_so_far()
        self.stderr.record_gap_so_far()
        self.telemetry_file.flush()

    def _use_last_line(self) -> None:
        """Classify the last line, which has no newline yet, if it is a complete record."""
        tail = self._scanner.tail()
        if tail and self._classify(tail, count=False):
            self._scanner.drop_tail()

    def close(self) -> None:
        """Close the pipes, even if a process still has their write ends, and close the files."""
        for fd in self.open_fds:
            self._end(fd)
        self.stdout.close()
        self.stderr.close()
        self.telemetry_file.close()
        self._index.close()

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
                self._classify_all([tail])
            self._scanner.drop_tail()

    def _classify_all(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._classify(line)

    def _classify(self, line: bytes, count: bool = True) -> bool:
        try:
            record = telemetry.classify(line)
        except NotARecord:
            self.unparsed_lines += count
            return False
        if record is not None:
            self.telemetry_file.add(record)
            self._on_record(record)
        return True


_FIONREAD = 0x541B


def _enlarge(fd: int) -> None:
    """Enlarge the buffer of a pipe, so that a delay of the shim does not block the worker."""
    for size in (PIPE_BYTES, PIPE_BYTES >> 2):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            continue  # above the user's total for pipes: try a smaller size, or keep the default
        return
