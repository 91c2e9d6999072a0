"""run.telemetry: numbered records of one attempt, after `cursor` (a seq); with `follow`, until its end.

Input: attempt (default: the newest), cursor, since (the records' own `at`), kinds, limit, follow.
Output: {run_id, attempt, cursor, records, eof, unreadable} and, when followed, `subscription`; then
`run.telemetry` notifications.  If `eof` is false, more records follow `cursor`.
Caveats: a page without records may not be the last, and its cursor may be unchanged (the file has much that
is no record): the same request on the same connection then continues.  A message has at most 64 KiB of
records, or one larger record.  Instead of a record that is too large for a message, a substitute of kind
`event` is sent, with its seq and size, and without its time and data.
"""

import re
from dataclasses import dataclass, field

import msgspec

from mosaicd.protocol import Json
from mosaicd.protocol.messages import ReadTelemetry
from mosaicd.protocol.rundir import TELEMETRY
from mosaicd.rpc import validate
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.follow import attempt_to_read, follow
from mosaicd.rpc.segments import READ_BYTES, AttemptLog
from mosaicd.rpc.seq_index import Place
from mosaicd.rpc.streams import Stream

PAGE_BYTES = 60 << 10
PAGE_RECORDS = 1000
#: Instead of a larger record, a substitute without its kind, time and data is sent.
RECORD_BYTES = 960 << 10
#: The most bytes that one request scans, without the records up to its cursor: after that, its page ends.
SCAN_BYTES = 64 << 20
_SEQ = re.compile(rb'\{"seq":(\d{1,18}),')
_TIME = re.compile(rb'\{"seq":\d{1,18},"at":(\d{1,12}(?:\.\d{1,9})?),')


@dataclass(frozen=True)
class Filter:
    """The records that a client requested."""

    kinds: list[str] | None = None
    since: float | None = None

    def matches(self, record: Json) -> bool:
        """Return whether the record matches; a record without a time matches every `since`."""
        if self.kinds is not None and record.get("kind") not in self.kinds:
            return False
        at = record.get("at")
        return self.since is None or not isinstance(at, int | float) or at >= self.since


@dataclass
class Page:
    """The records of one page, and counts.

    `seen_bytes` includes records that do not match, and lines that are no record.  `newest_seq`: the greatest
    seq in the scan, also before the cursor; a line with a smaller seq is no record, because seqs increase.
    """

    records: list[Json] = field(default_factory=list)
    size_bytes: int = 0
    seen_bytes: int = 0
    newest_seq: int = 0
    eof: bool = False
    unreadable: int = 0


async def handle(services: Services, caller: Caller, params: ReadTelemetry) -> Json:
    """Return the first page; with `follow`, start a stream of the rest."""
    validate.at_least(params, 0, "cursor", "since")
    validate.at_least(params, 1, "attempt", "limit")
    run, _ = await services.runs.newest(params.run_id)
    attempt = attempt_to_read(run, params.attempt)
    wanted = Filter(params.kinds, params.since)
    # Places of a request with `since` may be after records that other requests want.
    key, seq_index = (run.run_id, attempt, params.since), caller.seq_index
    place, page = Place(params.cursor), Page(eof=True)
    async with services.files.attempt_log(run, attempt, TELEMETRY) as file:
        if file is not None:
            known = seq_index.before(key, params.cursor)
            if known.is_in_line or await _is_record_start(file, known.offset):
                place.offset = known.offset
            if params.since is not None and not place.offset:
                place.offset = await _offset_at(file, params.since)
            page = await read_page(file, place, wanted, params.limit or PAGE_RECORDS)
            seq_index.add(key, place)
    reply = {
        "run_id": run.run_id, "attempt": attempt, "cursor": place.seq, "records": page.records,
        "eof": page.eof, "unreadable": page.unreadable,
    }  # fmt: skip
    if params.follow:
        reply["subscription"] = _open_stream(services, caller, params, attempt, place).subscription
    return reply


def _open_stream(
    services: Services, caller: Caller, params: ReadTelemetry, attempt: int, place: Place
) -> Stream:
    wanted = Filter(params.kinds, params.since)

    async def feed(stream: Stream) -> None:
        async def step(file: AttemptLog, current: int) -> bool:
            page = await read_page(file, place, wanted, PAGE_RECORDS)
            if page.records:
                named = {"run_id": params.run_id, "attempt": current, "cursor": place.seq}
                await stream.send("run.telemetry", {**named, "records": page.records})
            stream.cursor = place.seq
            return not page.eof

        def restart(next_attempt: int) -> None:
            place.seq = place.offset = stream.cursor = 0

        await follow(services, params.run_id, attempt, params.attempt, TELEMETRY, step, restart)

    return caller.open_stream("run.telemetry", place.seq, feed)


async def _is_record_start(file: AttemptLog, offset: int) -> bool:
    """Return whether a record can begin at `offset`; the run's owner may have changed the file."""
    if offset == 0:
        return True
    piece = await file.read(offset - 1, 1)
    return piece.offset >= offset or piece.data == b"\n"


async def _offset_at(file: AttemptLog, since: float) -> int:
    """Return the start of a record that is not after the first record of `since` or later (binary search)."""
    low, high, start = 0, (await file.end())[0], 0
    while high - low > READ_BYTES:
        middle = (low + high) // 2
        following = await _next_start(file, middle)
        at = await _time_at(file, following) if following is not None and following < high else None
        if following is None or at is None or at >= since:
            high = middle
        else:
            low, start = middle, following
    return start


async def _time_at(file: AttemptLog, offset: int) -> float | None:
    """Return the time of the record that begins at `offset`; None if none begins there."""
    match = _TIME.match((await file.read(offset, 64)).data)
    return float(match[1]) if match else None


async def _next_start(file: AttemptLog, offset: int) -> int | None:
    """Return the offset of the first line at or after `offset`; None if there is none within RECORD_BYTES."""
    position = max(0, offset - 1)
    while position < offset + RECORD_BYTES:
        piece = await file.read(position, READ_BYTES)
        if piece.offset > position or not piece.data:
            return piece.offset
        newline = piece.data.find(b"\n")
        if newline >= 0:
            return piece.offset + newline + 1
        position = piece.offset + len(piece.data)
    return None


async def read_page(file: AttemptLog, place: Place, wanted: Filter, limit: int) -> Page:
    """Return the next page and move `place` after it; an incomplete last line is read by a later call."""
    page = Page()
    buffer = b""
    skipped = 0
    position = place.offset
    while True:
        offset, data = await file.read(position, READ_BYTES)
        if not data:
            page.eof = True
            return page
        if offset > position:  # segments were removed; the next begins with a complete record
            page.unreadable += 1 if buffer else 0
            buffer, skipped, place.offset, place.is_in_line = b"", 0, offset, False
        position = offset + len(data)
        buffer += data
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            line = buffer[start:end]
            if not _try_add(page, place, line, skipped + len(line), wanted):
                return page
            place.offset += skipped + end + 1 - start
            place.is_in_line = False
            start, skipped = end + 1, 0
            if len(page.records) >= limit or page.seen_bytes >= SCAN_BYTES:
                return page
        buffer = buffer[start:]
        if len(buffer) > RECORD_BYTES + READ_BYTES:  # keep the beginning, which has the seq
            skipped += len(buffer) - RECORD_BYTES
            buffer = buffer[:RECORD_BYTES]
        if page.seen_bytes + skipped + len(buffer) >= SCAN_BYTES:
            if not page.seen_bytes:  # no record is so long: the next page begins in this line
                place.offset += skipped + len(buffer)
                place.is_in_line = True
                page.unreadable += 1
            return page


def _try_add(page: Page, place: Place, line: bytes, size_bytes: int, wanted: Filter) -> bool:
    """Add the record of a line to the page if it matches `wanted`, and move `place.seq` to it.

    A line up to `place.seq` is skipped; an unreadable line is counted.  Return False, with `place` unchanged,
    if the page is full.
    """
    match = _SEQ.match(line)
    seq = int(match[1]) if match else 0
    if seq > place.seq or seq <= page.newest_seq:
        page.seen_bytes += size_bytes + 1
    page.newest_seq = max(page.newest_seq, seq)
    if seq <= place.seq:
        page.unreadable += 1 if line and match is None else 0
        return True
    record = _decode(line, size_bytes, seq)
    if record is None:
        page.unreadable += 1
    elif wanted.matches(record):
        size = min(size_bytes, RECORD_BYTES)
        if page.records and page.size_bytes + size > PAGE_BYTES:
            return False
        page.records.append(record)
        page.size_bytes += size
    place.seq = seq
    return True


def _decode(line: bytes, size_bytes: int, seq: int) -> Json | None:
    """Return the record in a line; None if the line is not a JSON object.

    For a line above RECORD_BYTES, return a substitute with its seq and size; `line` may be its beginning.
    """
    if size_bytes > RECORD_BYTES:
        return {"seq": seq, "at": None, "kind": "event", "data": None, "reduced": True, "bytes": size_bytes}
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
