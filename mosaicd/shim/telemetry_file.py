"""telemetry.jsonl*: numbering and appending records, in batches, never blocking and never half-numbered.

A number is used once, whether its record reached the disk or not: with a full disk a bounded amount
waits in memory, what comes after that is shed, and a gap record says which numbers are missing.  Beyond
the cap the oldest segment goes, as a log's does; a segment begins with a whole record.
`written_seq` is the last number in the file and the only one that may be told to anybody.
"""

import json
import time

from mosaicd.protocol import Json, telemetry
from mosaicd.protocol.telemetry import Recognised
from mosaicd.shim.segments import Segments

#: What may wait in memory for a disk that is full.
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
        self._is_cut = False  # the file ends within a record, whose rest is the first that waits
        self._batch: list[bytes] = []
        self._owed: dict[tuple[str, str], Json] = {}
        self._waiting = b""  # whole records (after the rest of one) that a full disk refused
        self._shed_from = 0
        self.seq = 0
        self.written_seq = 0
        self.shed_records = 0
        self.dropped_records = 0
        self._dropped_from = 0
        self.at = 0.0

    def stamp(self) -> None:
        """Take the time for the records to come: one clock reading a round."""
        self.at = time.time()

    def add(self, record: Recognised) -> None:
        """Number a record; it is written with the next flush."""
        self.seq += 1
        tail = b',"replaced":true}\n' if record.replaced else b"}\n"
        self._batch.append(
            b'{"seq":%d,"at":%.6f,"kind":"%b","data":%b%b'
            % (self.seq, self.at, record.kind.encode(), record.text, tail)
        )

    def add_gap(self, evidence: Json) -> None:
        """Owe a record of what is missing: it is never shed itself, and waits until it can be written.

        Of a cap, the newest says all; gaps of a full disk that wait together become one.
        """
        key = (evidence["stream"], evidence["reason"])
        earlier = self._owed.get(key)
        if earlier is None or evidence["reason"] == LIMIT:
            self._owed[key] = evidence
        elif "to" in evidence:
            earlier["to"] = evidence["to"]
            earlier["records"] += evidence["records"]
        else:
            earlier["lost_bytes"] += evidence["lost_bytes"]

    @property
    def is_waiting(self) -> bool:
        """Whether records wait for room on the disk."""
        return bool(self._waiting or self._shed_from)

    def flush(self) -> None:
        """Write what there is; what a full disk refuses waits, up to a limit, for the next flush."""
        if self._waiting or self._shed_from:
            self._retry()
        if self._batch:
            self._write_batch()
        if self._owed and not self._waiting and not self._shed_from:
            self.stamp()
            owed, self._owed = self._owed, {}
            for evidence in owed.values():
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
        self._keep(data, is_cut)

    def _write_gaps(self) -> None:
        """Write a batch that may wait but not be shed."""
        self._waiting = self._write(b"".join(self._batch))
        self._batch.clear()
        if not self._waiting:
            self.written_seq = self.seq

    def _add_evidence(self, evidence: Json) -> None:
        text = json.dumps(evidence, separators=(",", ":")).encode()
        self.add(Recognised(telemetry.GAP, evidence, text, False))

    def _keep(self, data: bytes, is_cut: bool) -> None:
        """Let whole records wait, as many as there is room for; the rest of a cut one always waits."""
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
        """Write what waited; once that is in, say which numbers were shed meanwhile."""
        self._waiting = self._write(self._waiting)
        if self._waiting:
            return
        if not self._shed_from:
            self.written_seq = self.seq - len(self._batch)
            return
        self.shed_records += len(self._batch)  # numbered while we still shed
        self._batch.clear()
        first, last, self._shed_from = self._shed_from, self.seq, 0
        self.stamp()
        self._add_evidence({
            "stream": "telemetry", "reason": DISK_FULL, "from": first, "to": last,
            "records": last - first + 1,
        })  # fmt: skip
        self._write_gaps()

    def _write(self, data: bytes) -> bytes:
        """Write, and return what did not go in: no room, no quota, a disk in trouble."""
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
        """Return how many bytes go into the file that is being written, or into the next one, begun here."""
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
        """Begin a segment with the record `seq`; owe what to say of all that ever had to go for one."""
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
        """Write what can be written and close the file."""
        self.flush()
        self._files.close()
