"""run.logs: a run's output, byte for byte, from an offset or a time; with `follow`, until the run has ended.

Input: stream, attempt (default: the newest), cursor (offset), tail_lines, since, limit_bytes, follow.
Output: {run_id, attempt, stream, offset, cursor, data, encoding, size, eof, gap} and, when followed,
`subscription`; then `run.log` notifications.  `data` has the bytes from `offset` to `cursor`, which is the
cursor of the next request.  Caveats: output is sent as text if it is UTF-8, otherwise as base64; a character
is never split.  If bytes were not kept, `gap` {from, to} names them, and `data` begins at `to`.
"""

import base64
import json

from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.framing import CHUNK_LIMIT_BYTES
from mosaicd.protocol.messages import ReadLogs
from mosaicd.protocol.rundir import LOG_INDEX, STREAMS
from mosaicd.rpc import validate
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.follow import attempt_to_read, follow
from mosaicd.rpc.segments import AttemptLog, Piece, offset_at
from mosaicd.rpc.streams import Stream

#: Bytes of a chunk; as base64 and with its envelope it stays below CHUNK_LIMIT_BYTES.
CHUNK_BYTES = 47 << 10
#: The most bytes that are read for `tail_lines`.
TAIL_BYTES = 16 << 20


async def handle(services: Services, caller: Caller, params: ReadLogs) -> Json:
    """Return the first chunk; with `follow`, start a stream of the rest."""
    validate.at_least(params, 0, "cursor", "tail_lines", "since")
    validate.at_least(params, 1, "attempt", "limit_bytes")
    run, _ = await services.runs.newest(params.run_id)
    attempt = attempt_to_read(run, params.attempt)
    reply = await _first_chunk(services, run, attempt, params)
    if params.follow:
        stream = _open_stream(services, caller, params, attempt, reply["cursor"])
        reply["subscription"] = stream.subscription
    return reply


async def _first_chunk(services: Services, run: Run, attempt: int, params: ReadLogs) -> Json:
    limit = min(params.limit_bytes or CHUNK_BYTES, CHUNK_BYTES)
    cursor, size, piece = params.cursor, 0, Piece(params.cursor, b"")
    async with services.files.attempt_log(run, attempt, STREAMS[params.stream]) as log:
        if log is not None:
            if params.since is not None:
                async with services.files.attempt_log(run, attempt, LOG_INDEX) as index:
                    cursor = await offset_at(log, index, params.stream, params.since)
            if params.tail_lines is not None:
                cursor = max(cursor, await _tail_start(log, params.tail_lines))
            piece = await log.read(cursor, limit)
            size, _ = await log.end()
    chunk = _chunk(cursor, piece)
    eof = chunk["cursor"] >= size
    return {
        "run_id": run.run_id, "attempt": attempt, "stream": params.stream, **chunk, "size": size, "eof": eof,
    }  # fmt: skip


async def _tail_start(log: AttemptLog, lines: int) -> int:
    return await log.start_of_last_lines(lines, TAIL_BYTES) if lines else (await log.end())[0]


def _chunk(cursor: int, piece: Piece) -> Json:
    """Return the fields of a chunk that was read at `cursor`."""
    text, encoding, taken = as_text(piece.data)
    return {
        "offset": piece.offset, "cursor": piece.offset + taken, "data": text, "encoding": encoding,
        "gap": {"from": cursor, "to": piece.offset} if piece.offset > cursor else None,
    }  # fmt: skip


def _open_stream(services: Services, caller: Caller, params: ReadLogs, attempt: int, cursor: int) -> Stream:
    async def feed(stream: Stream) -> None:
        async def step(log: AttemptLog, current: int) -> bool:
            piece = await log.read(stream.cursor, CHUNK_BYTES)
            chunk = _chunk(stream.cursor, piece)
            if chunk["cursor"] == stream.cursor:
                return False
            named = {"run_id": params.run_id, "attempt": current, "stream": params.stream}
            await stream.send("run.log", {**named, **chunk})
            stream.cursor = chunk["cursor"]
            return True

        def restart(next_attempt: int) -> None:
            stream.cursor = 0

        name = STREAMS[params.stream]
        await follow(services, params.run_id, attempt, params.attempt, name, step, restart)

    return caller.open_stream("run.logs", cursor, feed)


def as_text(data: bytes) -> tuple[str, str, int]:
    """Return (data, encoding, bytes used): text up to its last complete character, or base64."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if not (error.reason == "unexpected end of data" and 0 < error.start >= len(data) - 3):
            return base64.b64encode(data).decode(), "base64", len(data)
        text = data[: error.start].decode()
        data = data[: error.start]
    # A control character takes six bytes in JSON; with many of them base64 is shorter.
    may_swell = len(data) * 6 > CHUNK_LIMIT_BYTES
    if may_swell and len(json.dumps(text, ensure_ascii=False).encode()) > CHUNK_BYTES * 4 // 3:
        return base64.b64encode(data).decode(), "base64", len(data)
    return text, "utf-8", len(data)
