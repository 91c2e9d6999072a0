"""run.logs and run.telemetry: exact at any cursor, complete for a follower, safe with untrusted files."""

import base64
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.rpc.segments import AttemptLog, Piece
from mosaicd.rpc.verbs.logs import CHUNK_BYTES, as_text
from tests.harness.waiting import wait_in_loop
from tests.rpc.serving import AT, Peer, Serving


def bytes_of(chunk: dict[str, Any]) -> bytes:
    data = chunk["data"]
    return base64.b64decode(data) if chunk["encoding"] == "base64" else data.encode()


async def read_all(peer: Peer, run: Run, **params: Any) -> bytes:
    data, cursor = b"", 0
    while True:
        chunk = await peer.call("run.logs", {"run_id": run.run_id, "cursor": cursor, **params})
        assert chunk["offset"] == cursor and chunk["cursor"] - cursor == len(bytes_of(chunk))
        data, cursor = data + bytes_of(chunk), chunk["cursor"]
        if chunk["eof"]:
            return data


MIXED = ("plain é漢😀 " * 9000).encode() + bytes(range(256)) * 700 + b"\x00" * 70_000 + "ü".encode() * 30_001


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode), st.integers(1, 300))
def test_chunks_together_have_exactly_the_bytes(data: bytes, size: int) -> None:
    """Output that is cut at any offset becomes text or base64, and the chunks together are the bytes."""
    position, joined = 0, b""
    while position < len(data):
        text, encoding, taken = as_text(data[position : position + size])
        assert taken > 0
        joined += base64.b64decode(text) if encoding == "base64" else text.encode()
        position += taken
    assert joined == data


@pytest.mark.parametrize("limit", [None, 1, 7, 4096, 65536])
async def test_logs_are_exact_at_any_chunk_size(limit: int | None, serving: Serving, peer: Peer) -> None:
    """Text, multi-byte characters at boundaries, NULs and binary data are returned byte for byte."""
    run = await serving.execute(await serving.add())
    data = MIXED if limit is None or limit > 4000 else MIXED[120_000:120_900] + MIXED[260_000:260_100]
    serving.file(run, "stdout.log").write_bytes(data)
    assert await read_all(peer, run, **({"limit_bytes": limit} if limit else {})) == data


async def test_a_message_with_output_stays_below_64_kib(serving: Serving, peer: Peer) -> None:
    """For any bytes of output, no line on the wire exceeds 64 KiB."""
    run = await serving.execute(await serving.add())
    for data in (
        b"x" * 200_000,
        b"\x01" * 200_000,
        os.urandom(200_000),
        "漢".encode() * 60_000,
        b'"\\' * 90_000,
    ):
        serving.file(run, "stdout.log").write_bytes(data)
        cursor = 0
        while cursor < len(data):
            number = peer.send_request("run.logs", {"run_id": run.run_id, "cursor": cursor})
            line = await peer.reader.readline()
            assert len(line) <= 65536
            reply = json.loads(line)
            assert reply["id"] == number
            cursor = reply["result"]["cursor"]


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 3, b""), (b"a\nb\nc\n", 2, b"b\nc\n"), (b"a\nb\nc", 2, b"b\nc"), (b"a\nb\n", 9, b"a\nb\n"),
        (b"a\nb\n", 0, b""), (b"\n\n\n", 2, b"\n\n"), (b"x" * 70_000 + b"\nlast\n", 1, b"last\n"),
        (b"0123456789\n" * 20_000, 12_000, b"0123456789\n" * 12_000),
    ],
)  # fmt: skip
async def test_tail_lines_returns_the_last_lines(
    content: bytes, lines: int, expected: bytes, serving: Serving, peer: Peer
) -> None:
    """tail_lines counts lines from the end, with or without a last newline."""
    run = await serving.execute(await serving.add())
    serving.file(run, "stdout.log").write_bytes(content)
    chunk = await peer.call("run.logs", {"run_id": run.run_id, "tail_lines": lines})
    assert chunk["offset"] == len(content) - len(expected)
    assert (bytes_of(chunk) + await _rest(peer, run, chunk)) == expected


async def _rest(peer: Peer, run: Run, chunk: dict[str, Any]) -> bytes:
    rest = b""
    while not chunk["eof"]:
        chunk = await peer.call("run.logs", {"run_id": run.run_id, "cursor": chunk["cursor"]})
        rest += bytes_of(chunk)
    return rest


@pytest.mark.parametrize("seed", range(3))
async def test_a_follower_gets_every_byte_and_then_the_end(seed: int, serving: Serving, peer: Peer) -> None:
    """A follower gets all bytes, also those written just before the end, then run.end with `terminated`."""
    rng = random.Random(seed)
    run = await serving.add()
    reply = await peer.call("run.logs", {"run_id": run.run_id, "follow": True})
    assert (reply["attempt"], reply["data"]) == (0, "")
    await serving.execute(run)
    data = MIXED[: rng.randrange(300_000)] + os.urandom(1000)
    with serving.file(run, "stdout.log").open("ab", buffering=0) as file:
        position = 0
        while position < len(data):
            step = rng.choice((1, 3, 500, 40_000, 90_000))
            file.write(data[position : position + step])
            position += step
            serving.advance(run, stdout_bytes=position)
            if rng.random() < 0.5:
                await peer.call("daemon.hello")
        file.write(b"last bytes")
    await serving.end(run)
    notes = await peer.receive_until(lambda note: note["method"] == "run.end")
    received = b"".join(bytes_of(note["params"]) for note in notes[:-1])
    assert received == data + b"last bytes"
    end = notes[-1]["params"]
    assert (end["reason"], end["cursor"]) == ("terminated", len(received))
    cursors = [note["params"]["cursor"] for note in notes[:-1]]
    assert cursors == sorted(cursors) and all(note["params"]["attempt"] == 1 for note in notes[:-1])


async def test_a_follower_continues_with_the_next_attempt(serving: Serving, peer: Peer) -> None:
    """Without `attempt` a retry is followed too; with `attempt` the stream ends with that attempt."""
    run = await serving.execute(await serving.add())
    serving.file(run, "stdout.log", 1).write_bytes(b"first")
    every = (await peer.call("run.logs", {"run_id": run.run_id, "follow": True}))["subscription"]
    first = (await peer.call("run.logs", {"run_id": run.run_id, "follow": True, "attempt": 1}))[
        "subscription"
    ]
    await serving.registry.record(
        run.run_id,
        Event(Kind.LOST, AT, data={"kind": "shim_lost"}),
        Event(Kind.REQUEUED, AT, data={"not_before": AT, "cause": {}}),
    )
    serving.file(run, "stdout.log", 2).write_bytes(b"second")
    await serving.execute(run, attempt=2)
    assert (await peer.receive_notification("run.end"))["subscription"] == first
    await serving.end(run)
    notes = await peer.receive_until(lambda note: note["method"] == "run.end")
    assert [note["params"]["subscription"] for note in notes] == [every] * len(notes)
    assert [(n["params"]["attempt"], n["params"]["offset"], n["params"]["data"]) for n in notes[:-1]] == [
        (2, 0, "second")
    ]


async def test_unknown_attempts_and_invalid_cursors_are_refused(serving: Serving, peer: Peer) -> None:
    """An unknown attempt is not_found; negative cursors are faults; a cursor past the end gives no data."""
    run = await serving.execute(await serving.add())
    assert (await peer.call_refused("run.logs", {"run_id": run.run_id, "attempt": 2}))["data"][
        "name"
    ] == "not_found"
    error = await peer.call_refused("run.logs", {"run_id": run.run_id, "cursor": -1, "tail_lines": -2})
    assert [fault["path"] for fault in error["data"]["errors"]] == ["cursor", "tail_lines"]
    chunk = await peer.call("run.logs", {"run_id": run.run_id, "cursor": 1 << 40})
    assert (chunk["data"], chunk["eof"]) == ("", True)


@pytest.mark.parametrize("trap", ["link", "fifo", "directory", "attempt link", "stranger"])
async def test_only_regular_files_of_the_owner_are_read(
    trap: str, serving: Serving, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, pipes, directories and files of other users are refused without blocking."""
    run = await serving.execute(await serving.add())
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = serving.file(run, "stdout.log")
    if trap == "link":
        path.symlink_to(secret)
    elif trap == "fifo":
        os.mkfifo(path)
    elif trap == "directory":
        path.mkdir()
    elif trap == "attempt link":
        path.parent.rmdir()
        (tmp_path / "stdout.log").write_text("secret")
        path.parent.symlink_to(tmp_path)
    else:
        path.write_text("secret")
        facts = os.fstat
        monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result((*facts(fd)[:4], 4242, *facts(fd)[5:])))
    reply = await peer.reply(peer.send_request("run.logs", {"run_id": run.run_id}))
    assert "secret" not in str(reply)
    if trap != "attempt link":
        assert reply["error"]["data"]["name"] == "unavailable"


# --- telemetry ---------------------------------------------------------------------------------------------


def record(seq: int, kind: str = "step", **data: Any) -> bytes:
    return (
        json.dumps({"seq": seq, "at": AT + seq, "kind": kind, "data": data}, separators=(",", ":")).encode()
        + b"\n"
    )


async def pages(peer: Peer, run: Run, **params: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    cursor = params.pop("cursor", 0)
    while True:
        page = await peer.call("run.telemetry", {"run_id": run.run_id, "cursor": cursor, **params})
        records += page["records"]
        if page["eof"]:
            return records
        assert page["cursor"] > cursor
        cursor = page["cursor"]


async def test_telemetry_is_read_in_pages(serving: Serving, peer: Peer) -> None:
    """Pages of any size have every record once and in order."""
    run = await serving.execute(await serving.add())
    rng = random.Random(1)
    written = [
        record(seq, rng.choice(("step", "episode")), text="é" * rng.randrange(400)) for seq in range(1, 3001)
    ]
    serving.file(run, "telemetry.jsonl").write_bytes(b"".join(written))
    expected = [json.loads(line) for line in written]
    assert await pages(peer, run) == expected
    assert await pages(peer, run, limit=77) == expected
    assert await pages(peer, run, cursor=1234) == expected[1234:]
    episodes = [line for line in expected if line["kind"] == "episode"]
    assert await pages(peer, run, kinds=["episode", "checkpoint_saved"]) == episodes
    assert await pages(peer, run, kinds=[]) == []


async def test_a_long_file_is_not_read_again_for_each_page(
    serving: Serving, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To page through 100,000 records on one connection, the daemon reads less than three times the file."""
    run = await serving.execute(await serving.add())
    lines = [record(seq, "episode", reward=1.5) for seq in range(1, 100_001)]
    serving.file(run, "telemetry.jsonl").write_bytes(b"".join(lines))
    read_bytes = 0
    read_output = AttemptLog.read

    async def read(file: AttemptLog, offset: int, size: int) -> Piece:
        nonlocal read_bytes
        piece = await read_output(file, offset, size)
        read_bytes += len(piece.data)
        return piece

    monkeypatch.setattr(AttemptLog, "read", read)
    seen = 0
    cursor = 0
    while True:
        page = await peer.call("run.telemetry", {"run_id": run.run_id, "cursor": cursor})
        seen += len(page["records"])
        cursor = page["cursor"]
        if page["eof"]:
            break
    assert (seen, cursor) == (100_000, 100_000)
    assert read_bytes < 3 * sum(map(len, lines))
    (connection,) = serving.server.connections
    place = connection.seq_index.before((run.run_id, 1, None), 60_000)
    assert 58_000 < place.seq <= 60_000
    assert place.offset == sum(map(len, lines[: place.seq]))


async def test_invalid_telemetry_lines_do_not_stop_the_reader(serving: Serving, peer: Peer) -> None:
    """Invalid lines are counted and skipped, a giant record loses its data, an incomplete line waits."""
    run = await serving.execute(await serving.add())
    big, giant = record(3, text="x" * 300_000), record(4, text="y" * (3 << 20))
    path = serving.file(run, "telemetry.jsonl")
    parts = [
        record(1),
        b"garbage\n",
        b'{"seq":2,"at":NaN}\n',
        big,
        giant,
        b"\xff\n",
        record(5),
        record(6)[:-4],
    ]
    path.write_bytes(b"".join(parts))
    first = await peer.call("run.telemetry", {"run_id": run.run_id})
    assert [item["seq"] for item in first["records"]] == [1]
    assert first["unreadable"] == 2
    records = await pages(peer, run)
    assert [item["seq"] for item in records] == [1, 3, 4, 5]
    assert len(records[1]["data"]["text"]) == 300_000
    assert (records[2]["data"], records[2]["bytes"]) == (None, len(giant) - 1)
    path.write_bytes(b"".join([*parts[:-1], record(6)]))
    assert [item["seq"] for item in await pages(peer, run, cursor=5)] == [6]


async def test_a_follower_skips_a_line_longer_than_any_record(
    serving: Serving, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower skips a line that is longer than any record, and gets the records behind it."""
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.SCAN_BYTES", 2 << 20)
    run = await serving.execute(await serving.add())
    serving.file(run, "telemetry.jsonl").write_bytes(record(1) + b"x" * (5 << 20) + b"\n" + record(2))
    await peer.call("run.telemetry", {"run_id": run.run_id, "follow": True})
    await serving.end(run)
    notes = await peer.receive_until(lambda note: note["method"] == "run.end")
    assert [item["seq"] for note in notes[:-1] for item in note["params"]["records"]] == [2]


async def test_a_cursor_far_into_the_file_returns_records(
    serving: Serving, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are returned although the part before the cursor exceeds the limit of one scan."""
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.SCAN_BYTES", 10_000)
    run = await serving.execute(await serving.add())
    lines = [record(seq, "episode" if seq == 2000 else "step") for seq in range(1, 2001)]
    serving.file(run, "telemetry.jsonl").write_bytes(b"".join(lines))
    page = await peer.call("run.telemetry", {"run_id": run.run_id, "cursor": 1990})
    assert [item["seq"] for item in page["records"]] == list(range(1991, 2001))
    assert [item["seq"] for item in await pages(peer, run, kinds=["episode"])] == [2000]


async def test_a_rewritten_telemetry_file_is_read_from_its_start(serving: Serving, peer: Peer) -> None:
    """A cached offset that is no longer the start of its record is not used."""
    run = await serving.execute(await serving.add())
    path = serving.file(run, "telemetry.jsonl")
    path.write_bytes(b"".join(record(seq, text="long" * 9) for seq in range(1, 50)))
    await pages(peer, run)
    path.write_bytes(b"".join(record(seq, text="other") for seq in range(1, 60)))
    assert [item["seq"] for item in await pages(peer, run, cursor=49)] == list(range(50, 60))


async def test_a_follower_gets_all_telemetry_and_then_the_end(serving: Serving, peer: Peer) -> None:
    """A follower gets the records of its kinds as they are written, then run.end with the last seq."""
    run = await serving.execute(await serving.add())
    path = serving.file(run, "telemetry.jsonl")
    path.write_bytes(record(1) + record(2, "episode"))
    reply = await peer.call("run.telemetry", {"run_id": run.run_id, "follow": True, "kinds": ["episode"]})
    assert ([item["seq"] for item in reply["records"]], reply["cursor"]) == ([2], 2)
    with path.open("ab", buffering=0) as file:
        for seq in range(3, 500):
            line = record(seq, "episode" if seq % 2 else "step")
            file.write(line[:20])
            serving.advance(run, telemetry_seq=seq - 1)
            file.write(line[20:])
            serving.advance(run, telemetry_seq=seq)
            if seq % 50 == 0:
                await peer.call("daemon.hello")
    await serving.end(run)
    notes = await peer.receive_until(lambda note: note["method"] == "run.end")
    seqs = [item["seq"] for note in notes[:-1] for item in note["params"]["records"]]
    assert seqs == list(range(3, 500, 2))
    assert (notes[-1]["params"]["reason"], notes[-1]["params"]["cursor"]) == ("terminated", 499)


async def test_the_files_of_disconnected_followers_are_closed(serving: Serving) -> None:
    """A hundred followers that disconnect leak no descriptor."""
    run = await serving.execute(await serving.add())
    serving.file(run, "stdout.log").write_bytes(b"x")
    descriptors = Path("/proc/self/fd")
    await (await serving.peer()).call("run.logs", {"run_id": run.run_id})
    before = len(list(descriptors.iterdir()))
    peers = [await serving.peer() for _ in range(20)]
    for peer in peers:
        for _ in range(5):
            await peer.call("run.logs", {"run_id": run.run_id, "follow": True})
    for peer in peers:
        peer.disconnect()
    await wait_in_loop(lambda: len(list(descriptors.iterdir())) <= before, "the descriptors are closed")


def test_a_chunk_in_base64_fits_its_message() -> None:
    """A chunk in base64 with its envelope fits into 64 KiB."""
    assert CHUNK_BYTES * 4 / 3 + 512 < 65536
