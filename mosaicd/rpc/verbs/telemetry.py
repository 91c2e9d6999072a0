"""run.telemetry: numbered records of one attempt, after `cursor` (a seq); with `follow`, until its end.

Input: attempt (default: the newest), cursor, since (the records' own `at`), kinds, limit, follow.
Output: {run_id, attempt, cursor, records, eof, unreadable} and, when followed, `subscription`; then
`run.telemetry` notifications.  `eof`: nothing more was there; else ask again from `cursor`.
Caveats: a page may hold no record of the kinds asked for and still not be the last.  A message has at
most 64 KiB of records, or one record that is larger; one that no message can hold comes without its data.
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
from mosaicd.rpc.follow import chosen_attempt, follow
from mosaicd.rpc.segments import READ_BYTES, Output
from mosaicd.rpc.seq_index import Place
from mosaicd.rpc.streams import Stream

PAGE_BYTES = 60 << 10
PAGE_RECORDS = 1000
#: A record above this comes without its data.
RECORD_BYTES = 960 << 10
#: What one request looks through behind its cursor at most.
SCAN_BYTES = 64 << 20
_SEQ = re.compile(rb'\{"seq":(\d{1,18}),')
_TIME = re.compile(rb'\{"seq":\d{1,18},"at":(\d{1,12}(?:\.\d{1,9})?),')


@dataclass(frozen=True)
class Chosen:
    """Which records are wanted."""

    kinds: list[str] | None = None
    since: float | None = None

    def has(self, record: Json) -> bool:
        """Whether the record is one of them; one without a time is."""
        if self.kinds is not None and record.get("kind") not in self.kinds:
            return False
        at = record.get("at")
        return self.since is None or not isinstance(at, int | float) or at >= self.since


@dataclass
class Page:
    """What one reading gave."""

    records: list[Json] = field(default_factory=list)
    size_bytes: int = 0
    seen_bytes: int = 0
    eof: bool = False
    unreadable: int = 0


async def handle(services: Services, caller: Caller, params: ReadTelemetry) -> Json:
    """Return the first page; the rest follows where it was asked for."""
    validate.at_least(params, 0, "cursor", "since")
    validate.at_least(params, 1, "attempt", "limit")
    run, _ = await services.runs.newest(params.run_id)
    attempt = chosen_attempt(run, params.attempt)
    chosen = Chosen(params.kinds, params.since)
    key, seq_index = (run.run_id, attempt), caller.seq_index
    place, page = Place(params.cursor), Page(eof=True)
    async with services.files.attempt_log(run, attempt, TELEMETRY) as file:
        if file is not None:
            known = seq_index.before(key, params.cursor)
            place.offset = known.offset if await _is_a_start(file, known.offset) else 0
            if params.since is not None:
                place.offset = max(place.offset, await _offset_at(file, params.since))
            page = await read_page(file, place, chosen, params.limit or PAGE_RECORDS)
            seq_index.add(key, place)
    reply = {
        "run_id": run.run_id, "attempt": attempt, "cursor": place.seq, "records": page.records,
        "eof": page.eof, "unreadable": page.unreadable,
    }  # fmt: skip
    if params.follow:
        reply["subscription"] = _open(services, caller, params, attempt, place).subscription
    return reply


def _open(services: Services, caller: Caller, params: ReadTelemetry, attempt: int, place: Place) -> Stream:
    chosen = Chosen(params.kinds, params.since)

    async def feed(stream: Stream) -> None:
        async def step(file: Output, now: int) -> bool:
            page = await read_page(file, place, chosen, PAGE_RECORDS)
            if page.records:
                sent = {"run_id": params.run_id, "attempt": now, "cursor": place.seq, "records": page.records}
                await stream.send("run.telemetry", sent)
            stream.cursor = place.seq
            return not page.eof

        def restart(now: int) -> None:
            place.seq = place.offset = stream.cursor = 0

        await follow(services, params.run_id, attempt, params.attempt, TELEMETRY, step, restart)

    return caller.open_stream("run.telemetry", place.seq, feed)


async def _is_a_start(file: Output, offset: int) -> bool:
    """Whether a record can begin there: the file is its owner's, who may have cut it."""
    if offset == 0:
        return True
    piece = await file.read(offset - 1, 1)
    return piece.offset >= offset or piece.data == b"\n"


async def _offset_at(file: Output, since: float) -> int:
    """Return a place before the first record that came at `since` or later, by halving."""
    low, high = 0, (await file.end())[0]
    while high - low > READ_BYTES:
        middle = (low + high) // 2
        at = await _time_behind(file, middle, high)
        if at is None or at >= since:
            high = middle
        else:
            low = middle
    return await _next_start(file, low)


async def _time_behind(file: Output, offset: int, end: int) -> float | None:
    """Return the time of the first record that begins behind `offset`; None where there is none."""
    start = await _next_start(file, offset)
    found = _TIME.match((await file.read(start, 64)).data) if start < end else None
    return float(found[1]) if found else None


async def _next_start(file: Output, offset: int) -> int:
    """Return where the first record begins at or behind `offset`."""
    position = max(0, offset - 1)
    while offset:
        piece = await file.read(position, READ_BYTES)
        if piece.offset > position or not piece.data:
            return piece.offset
        at = piece.data.find(b"\n")
        position = piece.offset + (at + 1 if at >= 0 else len(piece.data))
        if at >= 0:
            break
    return position


async def read_page(file: Output, place: Place, chosen: "Chosen", limit: int) -> Page:
    """Return the next page and move `place` behind it; an unfinished line at the end waits for its rest."""
    page = Page()
    buffer = b""
    skipped = 0
    position = place.offset
    while True:
        offset, data = await file.read(position, READ_BYTES)
        if not data:
            page.eof = True
            return page
        if offset > position:  # segments were dropped; the next begins with a whole record
            page.unreadable += 1 if buffer else 0
            buffer, skipped, place.offset = b"", 0, offset
        position = offset + len(data)
        buffer += data
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            line = buffer[start:end]
            if not _take(page, place, line, skipped + len(line), chosen):
                return page
            place.offset += skipped + end + 1 - start
            start, skipped = end + 1, 0
            if len(page.records) >= limit or page.seen_bytes >= SCAN_BYTES:
                return page
        buffer = buffer[start:]
        if len(buffer) > RECORD_BYTES + READ_BYTES:  # keep what tells its number, not what it says
            skipped += len(buffer) - RECORD_BYTES
            buffer = buffer[:RECORD_BYTES]
        if skipped + len(buffer) >= SCAN_BYTES:  # no record is as long: its rest will be unreadable
            place.offset += skipped + len(buffer)
            page.unreadable += 1
            return page


def _take(page: Page, place: Place, line: bytes, size_bytes: int, chosen: "Chosen") -> bool:
    """Take one line into the page and count it as seen; False when it belongs to the next page."""
    found = _SEQ.match(line)
    if found is None:
        page.unreadable += 1 if line else 0
        return True
    seq = int(found[1])
    if seq <= place.seq:
        return True
    page.seen_bytes += size_bytes
    record = _decoded(line, size_bytes, seq)
    if record is None:
        page.unreadable += 1
    elif chosen.has(record):
        size = min(size_bytes, RECORD_BYTES)
        if page.records and page.size_bytes + size > PAGE_BYTES:
            return False
        page.records.append(record)
        page.size_bytes += size
    place.seq = seq
    return True


def _decoded(line: bytes, size_bytes: int, seq: int) -> Json | None:
    if size_bytes > RECORD_BYTES:
        return {"seq": seq, "at": None, "kind": "event", "data": None, "reduced": True, "bytes": size_bytes}
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
