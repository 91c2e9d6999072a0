"""run.logs and run.telemetry: exact at any cursor, nothing lost in following, no trust in the files."""

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
from mosaicd.rpc.segments import Output, Piece
from mosaicd.rpc.verbs.logs import CHUNK_BYTES, as_text
from tests.harness.waiting import wait_in_loop
from tests.rpc.serving import AT, Peer, Serving


def raw(chunk: dict[str, Any]) -> bytes:
    data = chunk["data"]
    return base64.b64decode(data) if chunk["encoding"] == "base64" else data.encode()


async def read_all(peer: Peer, run: Run, **params: Any) -> bytes:
    whole, cursor = b"", 0
    while True:
        chunk = await peer.call("run.logs", {"run_id": run.run_id, "cursor": cursor, **params})
        assert chunk["offset"] == cursor and chunk["cursor"] - cursor == len(raw(chunk))
        whole, cursor = whole + raw(chunk), chunk["cursor"]
        if chunk["eof"]:
            return whole


MIXED = ("plain é漢😀 " * 9000).encode() + bytes(range(256)) * 700 + b"\x00" * 70_000 + "ü".encode() * 30_001


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode), st.integers(1, 300))
def test_text_is_never_split_and_never_changed(data: bytes, size: int) -> None:
    """Cut anywhere into chunks, each is text or base64, and together they are the bytes."""
    position, whole = 0, b""
    while position < len(data):
        text, encoding, taken = as_text(data[position : position + size])
        assert taken > 0
        whole += base64.b64decode(text) if encoding == "base64" else text.encode()
        position += taken
    assert whole == data


@pytest.mark.parametrize("limit", [None, 1, 7, 4096, 65536])
async def test_logs_are_exact_at_any_chunk_size(limit: int | None, serving: Serving, peer: Peer) -> None:
    """Text, multi-byte characters at boundaries, NULs and binary come back byte for byte."""
    run = await serving.execute(await serving.add())
    data = MIXED if limit is None or limit > 4000 else MIXED[120_000:120_900] + MIXED[260_000:260_100]
    serving.file(run, "stdout.log").write_bytes(data)
    assert await read_all(peer, run, **({"limit_bytes": limit} if limit else {})) == data


async def test_a_message_with_output_stays_below_64_kib(serving: Serving, peer: Peer) -> None:
    """Whatever the bytes are, no line on the wire passes 64 KiB."""
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
            number = peer.ask("run.logs", {"run_id": run.run_id, "cursor": cursor})
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
async def test_the_last_lines(
    content: bytes, lines: int, expected: bytes, serving: Serving, peer: Peer
) -> None:
    """tail_lines begins that many lines before the end, with or without a last newline."""
    run = await serving.execute(await serving.add())
    serving.file(run, "stdout.log").write_bytes(content)
    chunk = await peer.call("run.logs", {"run_id": run.run_id, "tail_lines": lines})
    assert chunk["offset"] == len(content) - len(expected)
    assert (raw(chunk) + await _rest(peer, run, chunk)) == expected


async def _rest(peer: Peer, run: Run, chunk: dict[str, Any]) -> bytes:
    rest = b""
    while not chunk["eof"]:
        chunk = await peer.call("run.logs", {"run_id": run.run_id, "cursor": chunk["cursor"]})
        rest += raw(chunk)
    return rest


@pytest.mark.parametrize("seed", range(3))
async def test_a_follower_gets_every_byte_and_then_the_end(seed: int, serving: Serving, peer: Peer) -> None:
    """Bytes written in odd pieces, also just before the end, all come, and then run.end says `terminated`."""
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
        file.write(b"last words")
    await serving.end(run)
    notes = await peer.notes_until(lambda note: note["method"] == "run.end")
    whole = b"".join(raw(note["params"]) for note in notes[:-1])
    assert whole == data + b"last words"
    end = notes[-1]["params"]
    assert (end["reason"], end["cursor"]) == ("terminated", len(whole))
    cursors = [note["params"]["cursor"] for note in notes[:-1]]
    assert cursors == sorted(cursors) and all(note["params"]["attempt"] == 1 for note in notes[:-1])


async def test_a_follower_goes_on_to_the_next_attempt(serving: Serving, peer: Peer) -> None:
    """Without an attempt named, a retry is followed too; with one, the stream ends with that attempt."""
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
    assert (await peer.note("run.end"))["subscription"] == first
    await serving.end(run)
    notes = await peer.notes_until(lambda note: note["method"] == "run.end")
    assert [note["params"]["subscription"] for note in notes] == [every] * len(notes)
    assert [(n["params"]["attempt"], n["params"]["offset"], n["params"]["data"]) for n in notes[:-1]] == [
        (2, 0, "second")
    ]


async def test_attempts_that_are_not_there(serving: Serving, peer: Peer) -> None:
    """An attempt that never was is not found; cursors and limits have ranges."""
    run = await serving.execute(await serving.add())
    assert (await peer.refused("run.logs", {"run_id": run.run_id, "attempt": 2}))["data"][
        "name"
    ] == "not_found"
    error = await peer.refused("run.logs", {"run_id": run.run_id, "cursor": -1, "tail_lines": -2})
    assert [fault["path"] for fault in error["data"]["errors"]] == ["cursor", "tail_lines"]
    chunk = await peer.call("run.logs", {"run_id": run.run_id, "cursor": 1 << 40})
    assert (chunk["data"], chunk["eof"]) == ("", True)


@pytest.mark.parametrize("trap", ["link", "fifo", "directory", "attempt link", "stranger"])
async def test_what_is_no_plain_file_of_the_owner_is_not_read(
    trap: str, serving: Serving, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, pipes and other people's files are refused; nothing blocks and nothing leaks."""
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
    reply = await peer.reply(peer.ask("run.logs", {"run_id": run.run_id}))
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
    """Every record once, in order, whatever the page; a page has at most 64 KiB."""
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
    """100,000 records in pages on one connection cost about one reading of the file."""
    run = await serving.execute(await serving.add())
    lines = [record(seq, "episode", reward=1.5) for seq in range(1, 100_001)]
    serving.file(run, "telemetry.jsonl").write_bytes(b"".join(lines))
    read_bytes = 0
    really = Output.read

    async def read(file: Output, offset: int, size: int) -> Piece:
        nonlocal read_bytes
        piece = await really(file, offset, size)
        read_bytes += len(piece.data)
        return piece

    monkeypatch.setattr(Output, "read", read)
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
    place = connection.seq_index.before((run.run_id, 1), 60_000)
    assert 58_000 < place.seq <= 60_000
    assert place.offset == sum(map(len, lines[: place.seq]))


async def test_odd_telemetry_is_survived(serving: Serving, peer: Peer) -> None:
    """Broken lines are counted and passed over, a giant comes without its data, an unfinished line waits."""
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


async def test_a_line_without_end_is_given_up(
    serving: Serving, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is longer than any record is passed over by a follower, and what comes behind it arrives."""
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.SCAN_BYTES", 2 << 20)
    run = await serving.execute(await serving.add())
    serving.file(run, "telemetry.jsonl").write_bytes(record(1) + b"x" * (5 << 20) + b"\n" + record(2))
    await peer.call("run.telemetry", {"run_id": run.run_id, "follow": True})
    await serving.end(run)
    notes = await peer.notes_until(lambda note: note["method"] == "run.end")
    assert [item["seq"] for note in notes[:-1] for item in note["params"]["records"]] == [2]


async def test_a_search_far_behind_the_cursor_gets_there(
    serving: Serving, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies before the cursor is no reason to answer with nothing."""
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.SCAN_BYTES", 10_000)
    run = await serving.execute(await serving.add())
    lines = [record(seq, "episode" if seq == 2000 else "step") for seq in range(1, 2001)]
    serving.file(run, "telemetry.jsonl").write_bytes(b"".join(lines))
    page = await peer.call("run.telemetry", {"run_id": run.run_id, "cursor": 1990})
    assert [item["seq"] for item in page["records"]] == list(range(1991, 2001))
    assert [item["seq"] for item in await pages(peer, run, kinds=["episode"])] == [2000]


async def test_a_file_that_was_cut_is_read_from_its_start(serving: Serving, peer: Peer) -> None:
    """A remembered place that no longer is one is not believed."""
    run = await serving.execute(await serving.add())
    path = serving.file(run, "telemetry.jsonl")
    path.write_bytes(b"".join(record(seq, text="long" * 9) for seq in range(1, 50)))
    await pages(peer, run)
    path.write_bytes(b"".join(record(seq, text="other") for seq in range(1, 60)))
    assert [item["seq"] for item in await pages(peer, run, cursor=49)] == list(range(50, 60))


async def test_telemetry_is_followed_to_the_end(serving: Serving, peer: Peer) -> None:
    """Records come as they are written, of the kinds asked for, then run.end with the last seq."""
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
    notes = await peer.notes_until(lambda note: note["method"] == "run.end")
    seqs = [item["seq"] for note in notes[:-1] for item in note["params"]["records"]]
    assert seqs == list(range(3, 500, 2))
    assert (notes[-1]["params"]["reason"], notes[-1]["params"]["cursor"]) == ("terminated", 499)


async def test_followers_that_leave_close_their_files(serving: Serving) -> None:
    """A hundred followers that hang up leave no descriptor open."""
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
        peer.hang_up()
    await wait_in_loop(lambda: len(list(descriptors.iterdir())) <= before, "the descriptors are closed")


def test_a_chunk_in_base64_fits_its_message() -> None:
    """The chunk's size leaves room for base64 and the envelope."""
    assert CHUNK_BYTES * 4 / 3 + 512 < 65536
