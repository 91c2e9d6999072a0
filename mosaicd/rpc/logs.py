"""run.logs: a run's output, byte for byte, from an offset; with `follow`, until the run has ended.

Input: stream, attempt (default: the newest), cursor (offset), tail_lines, limit_bytes, follow.
Output: {run_id, attempt, stream, offset, cursor, data, encoding, size, eof} and, when followed,
`subscription`; then `run.log` notifications.  `data` lies at offset..cursor; the next cursor is `cursor`.
Caveats: text is sent as it is where it is UTF-8 and base64 otherwise; a character is never split.
"""

import base64
import json
from typing import Any

from mosaicd.core.run import Run
from mosaicd.protocol.framing import CHUNK_LIMIT_BYTES
from mosaicd.protocol.messages import ReadLogs
from mosaicd.protocol.rundir import STREAMS
from mosaicd.rpc import validate
from mosaicd.rpc.context import Caller, Services
from mosaicd.rpc.files import Tail, attempt_file
from mosaicd.rpc.follow import chosen_attempt, follow
from mosaicd.rpc.get import newest
from mosaicd.rpc.streams import Stream

#: Bytes of a chunk: in base64 and with its envelope it stays below the limit of a message.
CHUNK_BYTES = 47 << 10
#: How far back `tail_lines` looks.
TAIL_BYTES = 16 << 20


async def handle(services: Services, caller: Caller, params: ReadLogs) -> dict[str, Any]:
    """Return the first chunk; the rest follows where it was asked for."""
    validate.at_least(params, 0, "cursor", "tail_lines")
    validate.at_least(params, 1, "attempt", "limit_bytes")
    run, _ = await newest(services, params.run_id)
    attempt = chosen_attempt(run, params.attempt)
    reply = await _first(services, run, attempt, params)
    if params.follow:
        stream = _open(services, caller, params, attempt, reply["cursor"])
        reply["subscription"] = stream.subscription
    return reply


async def _first(services: Services, run: Run, attempt: int, params: ReadLogs) -> dict[str, Any]:
    limit = min(params.limit_bytes or CHUNK_BYTES, CHUNK_BYTES)
    async with attempt_file(services, run, attempt, STREAMS[params.stream]) as file:
        offset, size, data = params.cursor, 0, b""
        if file is not None:
            if params.tail_lines is not None:
                offset = await _tail(file, params.tail_lines)
            data = await file.read(offset, limit)
            size = file.size()
    text, encoding, taken = as_text(data)
    cursor = offset + taken
    return {
        "run_id": run.run_id, "attempt": attempt, "stream": params.stream, "offset": offset, "cursor": cursor,
        "data": text, "encoding": encoding, "size": size, "eof": cursor >= size,
    }  # fmt: skip


async def _tail(file: Tail, lines: int) -> int:
    return await file.start_of_last_lines(lines, TAIL_BYTES) if lines else file.size()


def _open(services: Services, caller: Caller, params: ReadLogs, attempt: int, cursor: int) -> Stream:
    async def feed(stream: Stream) -> None:
        async def step(file: Tail, now: int) -> bool:
            data = await file.read(stream.cursor, CHUNK_BYTES)
            if not data:
                return False
            text, encoding, taken = as_text(data)
            offset, cursor = stream.cursor, stream.cursor + taken
            chunk = {
                "run_id": params.run_id, "attempt": now, "stream": params.stream, "offset": offset,
                "cursor": cursor, "data": text, "encoding": encoding,
            }  # fmt: skip
            await stream.send("run.log", chunk)
            stream.cursor = cursor
            return True

        def restart(now: int) -> None:
            stream.cursor = 0

        name = STREAMS[params.stream]
        await follow(services, params.run_id, attempt, params.attempt, name, step, restart)

    return caller.connection.streams.open(caller, "run.logs", cursor, feed)


def as_text(data: bytes) -> tuple[str, str, int]:
    """Return (data, encoding, bytes taken): text up to its last whole character, or base64."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if not (error.reason == "unexpected end of data" and 0 < error.start >= len(data) - 3):
            return base64.b64encode(data).decode(), "base64", len(data)
        text = data[: error.start].decode()
        data = data[: error.start]
    # Control characters swell sixfold in JSON; then base64 is the shorter one.
    may_swell = len(data) * 6 > CHUNK_LIMIT_BYTES
    if may_swell and len(json.dumps(text, ensure_ascii=False).encode()) > CHUNK_BYTES * 4 // 3:
        return base64.b64encode(data).decode(), "base64", len(data)
    return text, "utf-8", len(data)
