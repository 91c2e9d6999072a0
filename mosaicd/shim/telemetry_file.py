"""telemetry.jsonl and its segments: records get numbers and are appended in batches, without waiting.

A number is used once, even if its record is lost.  On a full disk, a bounded amount of records waits in
memory, later records are shed, and a gap record names the missing numbers.  At the size limit the oldest
segment is removed; a segment begins with a complete record.
Note: only `written_seq`, the last number in the file, may be sent to the daemon.
"""

import json
import time

from mosaicd.protocol import Json, telemetry
from mosaicd.protocol.telemetry import Recognised
from mosaicd.shim.segments import Segments

#: The most bytes of records that wait in memory while the disk is full.
_WAITING_LIMIT_BYTES = 1 << 20
#: Reasons of a gap.
LIMIT = "limit"
DISK_FULL = "disk_full"
DISK_ERROR = "disk_error"
_BEGIN = b'{"seq":'
_NEWLINE = ord("\n")


class TelemetryFile:
    """The numbered records of one attempt."""

    def __init__(self, files: Segments) -> None:
        self._files = files
        self._is_cut = False  # the file ends inside a record; its rest is the first that waits
        self._batch: list[bytes] = []
        self._pending_gaps: dict[tuple[str, str], Json] = {}
        self._waiting = b""  # complete records, after the rest of a cut one, that a full disk refused
        self._shed_from = 0
        self.seq = 0
        self.written_seq = 0
        self.shed_records = 0
        self.dropped_records = 0
        self._dropped_from = 0
        self.at = 0.0

    def read_clock(self) -> None:
        """Set the time for the next records: the clock is read once a round."""
        self.at = time.time()

    def add(self, record: Recognised) -> None:
        """Number a record; the next flush writes it."""
        self.seq += 1
        tail = b',"replaced":true}\n' if record.replaced else b"}\n"
        self._batch.append(
            b'{"seq":%d,"at":%.6f,"kind":"%b","data":%b%b'
            % (self.seq, self.at, record.kind.encode(), record.text, tail)
        )

    def add_gap(self, evidence: Json) -> None:
        """Add a gap record, which names missing bytes or records; it is never shed and waits for the disk.

        A new gap of a size limit includes the waiting one and replaces it.  Waiting gaps of a full disk are
        merged.
        """
        key = (evidence["stream"], evidence["reason"])
        earlier = self._pending_gaps.get(key)
        if earlier is None or evidence["reason"] == LIMIT:
            self._pending_gaps[key] = evidence
        elif "to" in evidence:
            earlier["to"] = evidence["to"]
            earlier["records"] += evidence["records"]
        else:
            earlier["lost_bytes"] += evidence["lost_bytes"]

    @property
    def is_waiting(self) -> bool:
        """Return whether records wait for space on the disk."""
        return bool(self._waiting or self._shed_from)

    def flush(self) -> None:
        """Write all records; those that a full disk refuses wait for the next flush, up to a limit."""
        if self._waiting or self._shed_from:
            self._retry()
        if self._batch:
            self._write_batch()
        if self._pending_gaps and not self._waiting and not self._shed_from:
            self.read_clock()
            gaps, self._pending_gaps = self._pending_gaps, {}
            for evidence in gaps.values():
                self._add_evidence(evidence)
            self._write_gaps()

    def _write_batch(self) -> None:
        data = b"".join(self._batch)
        count = len(self._batch)
        self._batch.clear()
        if self._shed_from:
            self.shed_records += count
            return
        is_cut = False
        if not self._waiting:
            rest = self._write(data)
            if not rest:
                self.written_seq = self.seq
                return
            is_cut, data = len(rest) < len(data), rest
        self._keep_waiting(data, is_cut)

    def _write_gaps(self) -> None:
        """Write a batch of gap records, which may wait and are never shed."""
        self._waiting = self._write(b"".join(self._batch))
        self._batch.clear()
        if not self._waiting:
            self.written_seq = self.seq

    def _add_evidence(self, evidence: Json) -> None:
        text = json.dumps(evidence, separators=(",", ":")).encode()
        self.add(Recognised(telemetry.GAP, evidence, text, False))

    def _keep_waiting(self, data: bytes, is_cut: bool) -> None:
        """Keep complete records in memory up to the limit, and always the rest of a cut one; shed the
        others."""
        end = len(data)
        room = _WAITING_LIMIT_BYTES - len(self._waiting)
        if end > room:
            end = data.rfind(b"\n", 0, max(room, 0)) + 1
            if is_cut:
                end = max(end, data.find(b"\n") + 1)
        self._waiting += data[:end]
        lost = data.count(b"\n", end)
        if lost:
            self.shed_records += lost
            self._shed_from = self.seq - lost + 1

    def _retry(self) -> None:
        """Write the waiting records; then add a gap record with the numbers that were shed meanwhile."""
        self._waiting = self._write(self._waiting)
        if self._waiting:
            return
        if not self._shed_from:
            self.written_seq = self.seq - len(self._batch)
            return
        self.shed_records += len(self._batch)  # they got numbers while records were shed
        self._batch.clear()
        first, last, self._shed_from = self._shed_from, self.seq, 0
        self.read_clock()
        self._add_evidence({
            "stream": "telemetry", "reason": DISK_FULL, "from": first, "to": last,
            "records": last - first + 1,
        })  # fmt: skip
        self._write_gaps()

    def _write(self, data: bytes) -> bytes:
        """Write, and return the bytes that were not written because of a disk error."""
        while data:
            size = self._next_size(data)
            written = self._files.write(data[:size])
            if written:
                self._is_cut = data[written - 1] != _NEWLINE
            data = data[written:]
            if written < size:
                break
        return data

    def _next_size(self, data: bytes) -> int:
        """Return how many bytes to write to the current file; begin a segment if nothing fits into it."""
        room = self._files.room
        if len(data) <= room:
            return len(data)
        first = data.find(b"\n") + 1
        if self._is_cut:
            return first
        fitting = data.rfind(b"\n", 0, room) + 1
        if fitting:
            return fitting
        if self._files.size or not room:
            self._roll(int(data[len(_BEGIN) : data.index(b",")]))
        return max(first, data.rfind(b"\n", 0, self._files.room) + 1)

    def _roll(self, seq: int) -> None:
        """Begin a segment with the record `seq`; add a gap for all records that were removed so far."""
        dropped = self._files.roll(seq)
        if not dropped:
            return
        self._dropped_from = self._dropped_from or dropped[0].first_seq
        kept = self._files.ring[0].first_seq if self._files.ring else seq
        self.dropped_records = kept - self._dropped_from
        self.add_gap({
            "stream": "telemetry", "reason": LIMIT, "from": self._dropped_from, "to": kept - 1,
            "records": self.dropped_records,
        })  # fmt: skip

    def close(self) -> None:
        """Write as much as the disk accepts, and close the file."""
        self.flush()
        self._files.close()
