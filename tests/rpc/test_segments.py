"""Logs in segments and logs by time: exact bytes, and a gap where bytes were dropped."""

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from mosaicd.core.run import Run
from mosaicd.protocol import rundir
from mosaicd.protocol.telemetry import classify
from mosaicd.shim.index import Index
from mosaicd.shim.segments import Segments
from mosaicd.shim.spool import RawLog
from mosaicd.shim.telemetry_file import TelemetryFile
from tests.rpc.serving import AT, Peer, Serving
from tests.rpc.test_files import bytes_of


class Writer:
    """Writes the files of an attempt with the code of the shim."""

    def __init__(self, directory: Path, stdout_bytes: int, telemetry_bytes: int = 1 << 20) -> None:
        def opened(name: str) -> int:
            return os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def removed(name: str) -> None:
            os.unlink(directory / name)

        self.telemetry_file = TelemetryFile(Segments(opened, removed, rundir.TELEMETRY, telemetry_bytes))
        self.index = Index(opened(rundir.LOG_INDEX))
        files = Segments(opened, removed, rundir.STDOUT, stdout_bytes)
        self.log = RawLog("stdout", files, self.telemetry_file, self.index)
        self.written = bytearray()

    def write(self, data: bytes, at: float = AT) -> None:
        self.telemetry_file.at = at
        self.log.append(memoryview(data))
        self.written += data

    def close(self) -> None:
        self.log.close()
        self.telemetry_file.close()
        self.index.close()


def segments_of(directory: Path, name: str = rundir.STDOUT) -> dict[int, bytes]:
    found = [(rundir.segment_offset(name, path.name), path) for path in directory.iterdir()]
    return dict(sorted((start, path.read_bytes()) for start, path in found if start is not None))


def records_of(directory: Path) -> list[dict[str, Any]]:
    lines = b"".join(segments_of(directory, rundir.TELEMETRY).values()).splitlines()
    return [json.loads(line) for line in lines]


def check(chunks: list[dict[str, Any]], written: bytes) -> list[tuple[int, int]]:
    """Check the bytes of every chunk, and that gaps fill the rest; return the gaps."""
    cursor, gaps = 0, []
    for chunk in chunks:
        if chunk["gap"]:
            assert (chunk["gap"]["from"], chunk["gap"]["to"]) == (cursor, chunk["offset"])
            gaps.append((cursor, chunk["offset"]))
        else:
            assert chunk["offset"] == cursor
        assert written[chunk["offset"] : chunk["cursor"]] == bytes_of(chunk)
        cursor = chunk["cursor"]
    return gaps


async def read_chunks(peer: Peer, run: Run, **params: Any) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []
    cursor = 0
    while not chunks or not chunks[-1]["eof"]:
        chunks.append(await peer.call("run.logs", {"run_id": run.run_id, "cursor": cursor, **params}))
        cursor = chunks[-1]["cursor"]
    return chunks


@pytest.mark.parametrize("seed", range(6))
async def test_a_reader_of_segments_sees_gaps_and_never_wrong_bytes(
    seed: int, serving: Serving, peer: Peer
) -> None:
    """Every returned byte is the byte at its offset, and gaps are exactly the dropped bytes."""
    rng = random.Random(seed)
    run = await serving.execute(await serving.add())
    directory = serving.file(run, "x").parent
    writer = Writer(directory, rng.choice((4096, 10_007, 60_000)))
    for number in range(rng.randrange(1, 400)):
        text = f"{number:06d} é漢😀 ".encode() * rng.randrange(1, 40)
        writer.write(text + b"\n")
    writer.close()
    written = bytes(writer.written)
    chunks = await read_chunks(peer, run, limit_bytes=rng.choice((1000, 8000, 48_000)))
    gaps = check(chunks, written)
    pieces = segments_of(directory)
    assert b"".join(bytes_of(chunk) for chunk in chunks) == b"".join(pieces.values())
    assert chunks[-1]["cursor"] == chunks[-1]["size"] == len(written)
    lost = len(written) - sum(map(len, pieces.values()))
    assert sum(end - start for start, end in gaps) == lost == writer.log.lost_bytes
    if lost:
        assert records_of(directory)[-1]["data"]["lost_bytes"] == lost
    tail = await peer.call("run.logs", {"run_id": run.run_id, "tail_lines": 2})
    begin = len(written) - sum(map(len, written.splitlines(keepends=True)[-2:]))
    unbroken = max((end for _, end in gaps), default=0)
    assert tail["offset"] == max(begin, unbroken)


@pytest.mark.parametrize("seed", range(3))
async def test_a_follower_of_a_rotating_log_gets_a_gap_for_each_loss(
    seed: int, serving: Serving, peer: Peer
) -> None:
    """A follower of a log whose segments are dropped gets exact bytes, gaps, and run.end."""
    rng = random.Random(seed)
    run = await serving.execute(await serving.add())
    writer = Writer(serving.file(run, "x").parent, 20_000)
    writer.write(b"begin\n")
    first = await peer.call("run.logs", {"run_id": run.run_id, "follow": True})
    for number in range(300):
        writer.write(b"%08d\n" % number * rng.randrange(1, 60))
        serving.advance(run, stdout_bytes=len(writer.written))
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    writer.close()
    await serving.end(run)
    notes = await peer.receive_until(lambda note: note["method"] == "run.end")
    chunks = [first, *(note["params"] for note in notes if note["method"] == "run.log")]
    check(chunks, bytes(writer.written))
    assert chunks[-1]["cursor"] == len(writer.written)
    assert notes[-1]["params"]["reason"] == "terminated"


async def test_lost_bytes_of_a_full_disk_are_a_gap(serving: Serving, peer: Peer) -> None:
    """Bytes that a full disk refused are a gap, and later bytes have their own offset."""
    run = await serving.execute(await serving.add())
    directory = serving.file(run, "x").parent
    writer = Writer(directory, 1 << 20)
    written, room = [], [0]
    real_write = os.write

    def write(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        count = min(room[0], len(data))
        room[0] -= count
        return real_write(fd, data[:count])

    patch = pytest.MonkeyPatch()
    patch.setattr("mosaicd.shim.segments.os.write", write)
    try:
        rng = random.Random(1)
        for number in range(200):
            room[0] = rng.choice((0, 5, 30, 100))
            writer.write(b"%020d\n" % number)
            written.append(room[0])
        room[0] = 1 << 20
        writer.write(b"the end\n")
        writer.close()
    finally:
        patch.undo()
    gaps = check(await read_chunks(peer, run), bytes(writer.written))
    assert sum(end - start for start, end in gaps) == writer.log.lost_bytes > 0
    assert len(list(directory.iterdir())) < 80, "a disk that fills up repeatedly must not cause many segments"


async def test_logs_since_a_time(serving: Serving, peer: Peer) -> None:
    """The output begins with a complete line, at most about two seconds before `since`."""
    run = await serving.execute(await serving.add())
    directory = serving.file(run, "x").parent
    writer = Writer(directory, 1 << 20)
    times = [tick / 10 + (3600 if tick >= 1000 else 0) for tick in range(2000)]  # with an hour of silence
    for elapsed_s in times:
        writer.write(b"%.1f line\n" % elapsed_s, AT + elapsed_s)
    writer.close()
    os.utime(directory / rundir.STDOUT, (AT + 3800, AT + 3800))
    for since in (-5.0, 0.0, 33.3, 99.9, 100.5, 2000.0, 3699.9, 3750.0, 3799.0):
        chunk = await peer.call("run.logs", {"run_id": run.run_id, "since": AT + since})
        lines = [float(line.split()[0]) for line in bytes_of(chunk).splitlines() if line.endswith(b"line")]
        wanted = min(elapsed_s for elapsed_s in times if elapsed_s >= since)
        assert wanted - 2.1 <= lines[0] <= wanted or (wanted > 3600 and lines[0] >= 98), (since, lines[0])
        assert bytes_of(chunk)[:1].isdigit()
    nothing = await peer.call("run.logs", {"run_id": run.run_id, "since": AT + 3900})
    assert (nothing["data"], nothing["eof"]) == ("", True)


async def test_an_invalid_index_only_reduces_precision(serving: Serving, peer: Peer) -> None:
    """The index belongs to the run's owner; invalid contents never fail the request."""
    run = await serving.execute(await serving.add())
    serving.file(run, rundir.STDOUT).write_bytes(b"a\nb\nc\n")
    for content in (b"", b"\xff\xfe" * 50_000, b"stdout 99999999999999999 5.000000\n", b"stdout 1 x\nstdout"):
        serving.file(run, rundir.LOG_INDEX).write_bytes(content)
        chunk = await peer.call("run.logs", {"run_id": run.run_id, "since": 10.0})
        assert chunk["data"] in ("a\nb\nc\n", "")
    for index in range(4200):
        (serving.file(run, "x").parent / f"junk{index}").touch()
    assert "4096" in (await peer.call_refused("run.logs", {"run_id": run.run_id, "cursor": 6}))["message"]


async def test_telemetry_in_segments_and_since_a_time(serving: Serving, peer: Peer) -> None:
    """Records are in order over segments, from any cursor or time; a gap has the dropped records."""
    run = await serving.execute(await serving.add())
    directory = serving.file(run, "x").parent
    writer = Writer(directory, 1 << 20, 200_000)
    for number in range(5000):
        writer.telemetry_file.at = AT + number
        record = classify(b'{"type":"step","step_index":%d,"note":"%s"}' % (number, b"x" * 60))
        assert record is not None
        writer.telemetry_file.add(record)
        if number % 7 == 0:
            writer.telemetry_file.flush()
    writer.close()
    seen: list[dict[str, Any]] = []
    cursor, eof = 0, False
    while not eof:
        page = await peer.call("run.telemetry", {"run_id": run.run_id, "cursor": cursor})
        seen, cursor, eof = seen + page["records"], page["cursor"], page["eof"]
        assert page["unreadable"] == 0
    numbers = [record["seq"] for record in seen]
    gap = [record["data"] for record in seen if record["kind"] == "gap"][-1]
    all_numbers = list(range(1, writer.telemetry_file.seq + 1))
    assert sorted([*numbers, *range(gap["from"], gap["to"] + 1)]) == all_numbers
    assert numbers == sorted(numbers)
    for since in (AT - 1, AT + 100.5, AT + 2500, AT + 4990, AT + 4998.5):
        page = await peer.call("run.telemetry", {"run_id": run.run_id, "since": since, "kinds": ["step"]})
        wanted = [r["seq"] for r in seen if r["kind"] == "step" and r["at"] >= since]
        assert [r["seq"] for r in page["records"]] == wanted[: len(page["records"])]
        assert page["records"]


async def test_events_since_a_time(serving: Serving, peer: Peer) -> None:
    """A watch with since_at gets every later event and no earlier one."""
    runs = [await serving.add() for _ in range(5)]
    reply = await peer.call("run.watch", {"since_at": runs[2].created_at})
    assert reply["runs"] == []
    watched = [(await peer.receive_notification("run.event"))["run_id"] for _ in range(3)]
    assert watched == [run.run_id for run in runs[2:]]
    later = await peer.call("run.watch", {"since_at": AT * 2})
    assert later["cursor"] == later["last_seq"] == 5
