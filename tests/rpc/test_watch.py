"""Watching: a watcher gets the ledger in order, with a notification for every gap."""

import asyncio
import json
import logging
import random
from typing import Any

import pytest

from mosaicd.core.fsm import Event, Kind
from mosaicd.log import Catalogue
from tests.harness.trouble import entries
from tests.harness.waiting import wait_in_loop
from tests.rpc.conftest import Start
from tests.rpc.serving import AT, Peer, Serving


async def ledger(serving: Serving) -> list[tuple[int, str, str, str]]:
    events = await serving.history.events(0, 1_000_000)
    return [(event.seq, event.run_id, event.kind, event.state) for event in events]


def as_row(event: dict[str, Any]) -> tuple[int, str, str, str]:
    return (event["seq"], event["run_id"], event["kind"], event["state"])


async def rows_until(peer: Peer, last: int) -> list[tuple[int, str, str, str]]:
    notes = await peer.receive_until(lambda note: note["params"].get("seq") == last)
    assert all(note["method"] == "run.event" for note in notes)
    return [as_row(note["params"]) for note in notes]


async def test_a_watch_since_0_replays_the_complete_ledger(serving: Serving, peer: Peer) -> None:
    """since=0 gives every event of the ledger and then the live events, without a gap."""
    runs = [await serving.add() for _ in range(40)]
    for run in runs:
        await serving.end(await serving.execute(run))
    start = await peer.call("run.watch", {"since": 0})
    assert (start["epoch"], start["cursor"], start["runs"]) == (serving.registry.epoch, 0, [])
    for _ in range(10):
        await serving.execute(await serving.add())
    assert await rows_until(peer, serving.registry.last_seq) == await ledger(serving)


async def test_a_watch_without_a_cursor_begins_with_a_snapshot(serving: Serving, peer: Peer) -> None:
    """The reply has the live runs as of its cursor; only later events follow."""
    done, live = await serving.add(), await serving.add()
    await serving.end(await serving.execute(done))
    start = await peer.call("run.watch")
    assert [run["run_id"] for run in start["runs"]] == [live.run_id]
    assert start["cursor"] == serving.registry.last_seq and start["complete"]
    await serving.execute(live)
    event = await peer.receive_notification("run.event")
    assert (event["seq"], event["kind"], event["rev"], event["attempt"]) == (
        start["cursor"] + 1,
        "dispatched",
        2,
        1,
    )


async def test_an_event_has_the_state_of_the_run_after_it(serving: Serving, peer: Peer) -> None:
    """Live and replayed events have the same state, want, outcome and data."""
    run = await serving.add(name="mine")
    await peer.call("run.watch", {"since": 0})
    await serving.execute(run)
    await serving.registry.record(run.run_id, Event(Kind.STOP_REQUESTED, AT, "ada", {"reason": "enough"}))
    await serving.end(run)
    notes = await peer.receive_until(lambda note: note["params"]["kind"] == "finished")
    live = [note["params"] for note in notes]
    stop_event = next(event for event in live if event["kind"] == "stop_requested")
    assert [stop_event[key] for key in ("state", "want", "reason", "who")] == [
        "EXEC",
        "stop",
        "enough",
        "ada",
    ]
    assert (live[-1]["state"], live[-1]["outcome"], live[0]["name"]) == ("TERM", "succeeded", "mine")
    again = await serving.peer()
    await again.call("run.watch", {"since": 0})
    replayed = await again.receive_until(lambda note: note["params"]["kind"] == "finished")
    for live_event, replayed_event in zip(live, (note["params"] for note in replayed), strict=True):
        assert {**live_event, "subscription": 0} == {**replayed_event, "subscription": 0}


async def test_a_watch_of_one_run(serving: Serving, peer: Peer) -> None:
    """With run_id, only events of that run follow, replayed and live."""
    mine, other = await serving.add(name="mine"), await serving.add()
    await serving.execute(other)
    await serving.execute(mine)
    await peer.call("run.watch", {"since": 0, "run_id": "mine"})
    await serving.end(other)
    await serving.end(mine)
    expected = [row for row in await ledger(serving) if row[1] == mine.run_id]
    assert await rows_until(peer, serving.registry.last_seq) == expected


@pytest.mark.parametrize("seed", range(4))
async def test_slow_and_disconnecting_watchers_get_the_ledger(seed: int, start: Start) -> None:
    """Watchers that read slowly, disconnect and come back get every event exactly once."""
    rng = random.Random(seed)
    serving = await start(watch={"lag_events": 100_000})
    is_over = asyncio.Event()

    async def work() -> None:
        for _ in range(60):
            run = await serving.add()
            await serving.execute(run)
            if rng.random() < 0.5:
                await serving.end(run)
        is_over.set()

    async def watch() -> list[tuple[int, str, str, str]]:
        cursor, rows = 0, []
        while not (is_over.is_set() and cursor == serving.registry.last_seq):
            peer = await serving.peer()
            await peer.call("run.watch", {"since": cursor, "epoch": serving.registry.epoch})
            for _ in range(rng.randrange(1, 120)):
                if is_over.is_set() and cursor == serving.registry.last_seq:
                    break
                event = await peer.receive_notification("run.event")
                rows.append(as_row(event))
                cursor = event["seq"]
            peer.disconnect()
        return rows

    seen = await asyncio.gather(*(watch() for _ in range(4)), work())
    expected = await ledger(serving)
    for rows in seen[:-1]:
        assert rows == expected


async def test_a_lagging_watcher_gets_the_gap(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A live watcher that lags too far gets run.gap with exactly the missed events, and continues."""
    serving = await start(watch={"lag_events": 50})
    run = await serving.add()
    peer, other = await serving.peer(), await serving.peer()
    reply = await peer.call("run.watch")
    await other.call("run.watch")
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    stalled = next(c for c in serving.server.connections if reply["subscription"] in c.streams._open)
    with caplog.at_level(logging.WARNING):
        while stalled._can_write.is_set():
            await serving.add_events(run, 200)
        await serving.add_events(run, 300)
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        last = serving.registry.last_seq
        notes = await peer.receive_until(lambda note: note["params"].get("seq") == last)
    position = reply["cursor"]
    gaps = 0
    for note in notes:
        params = note["params"]
        if note["method"] == "run.gap":
            assert params["from"] == position + 1 and params["to"] > position
            position, gaps = params["to"], gaps + 1
        else:
            assert params["seq"] == position + 1
            position += 1
    assert gaps >= 1
    assert entries(caplog.records) == [Catalogue.WATCHER_LAGS]  # one record, however many gaps
    notes_of_other = await other.receive_until(lambda note: note["params"].get("seq") == last)
    assert [note["params"]["seq"] for note in notes_of_other] == list(range(reply["cursor"] + 1, last + 1))


async def test_a_replay_never_has_a_gap(start: Start) -> None:
    """A watcher that replays the ledger gets all of it, however slowly it reads."""
    serving = await start(watch={"lag_events": 20})
    run = await serving.add()
    await serving.add_events(run, 1500)
    peer = await serving.peer()
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    peer.send_request("run.watch", {"since": 0}, id="w")
    await wait_in_loop(lambda: serving.broadcaster.watchers, "a client watches")
    await serving.add_events(run, 500)
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await peer.reply("w")
    last = serving.registry.last_seq
    notes = await peer.receive_until(lambda note: note["params"].get("seq") == last)
    assert [note["params"].get("seq") for note in notes] == list(range(1, last + 1))


async def test_the_memory_for_watchers_is_bounded(start: Start) -> None:
    """The events that are kept in memory for watchers do not grow with the ledger."""
    serving = await start(watch={"lag_events": 20})
    run = await serving.add()
    await serving.add_events(run, 2000)
    recent = serving.broadcaster._recent
    assert len(recent._events) <= 2 * recent._size
    assert recent.floor > 1000


async def test_a_cursor_of_another_epoch_is_a_conflict(serving: Serving, peer: Peer) -> None:
    """The error has both epochs; a cursor ahead of the ledger is a conflict with the last seq."""
    error = await peer.call_refused("run.watch", {"since": 0, "epoch": "another"})
    assert error["data"] == {"name": "conflict", "epoch": serving.registry.epoch, "yours": "another"}
    assert (await peer.call_refused("run.watch", {"since": 1}))["data"]["last_seq"] == 0
    assert (await peer.call_refused("run.watch", {"since": -1}))["data"]["errors"][0]["path"] == "since"


async def test_progress_notifications_are_limited_and_up_to_date(start: Start) -> None:
    """A thousand advances cause few notifications without seq; the last has the last values."""
    serving = await start(watch={"progress_interval_s": 0.05})
    run = await serving.execute(await serving.add())
    peer, silent = await serving.peer(), await serving.peer()
    await peer.call("run.watch", {"progress": True})
    await silent.call("run.watch")
    for step in range(1000):
        serving.advance(
            run, steps=step, telemetry_seq=step, metrics={"loss": step / 2}, last_heartbeat_at=AT + step
        )
        if step % 50 == 0:
            await peer.call("daemon.hello")
    notes = await peer.receive_until(lambda note: note["params"]["progress"]["steps"] == 999)
    assert len(notes) < 100
    assert notes[-1]["method"] == "run.progress" and "seq" not in notes[-1]["params"]
    assert notes[-1]["params"]["metrics"] == {"loss": 499.5}
    assert notes[-1]["params"]["last_heartbeat_at"] == AT + 999
    await silent.call("daemon.hello")
    assert silent.notifications == []


async def test_events_and_progress_stay_small(serving: Serving, peer: Peer) -> None:
    """No event exceeds 4 KiB; `reduced` lists the fields that were left out."""
    run = await serving.add(command=tuple("x" * 900 for _ in range(900)), labels={"k" * 50: "v" * 5000})
    await peer.call("run.watch", {"since": 0, "progress": True})
    huge = {"reason": "é" * 5000, "detail": {"x": ["y"] * 5000}, "small": 1, "seq": 99, "state": "no"}
    await serving.registry.record(run.run_id, Event(Kind.STOP_REQUESTED, AT, "ada", huge))
    serving.advance(run, metrics={f"m{number}": 1.5 for number in range(2000)})
    peer.send(b"")
    lines = [json.dumps(await peer.receive(), ensure_ascii=False).encode() for _ in range(3)]
    assert all(len(line) < 4096 for line in lines)
    submitted, stop_event, progress = (json.loads(line)["params"] for line in lines)
    assert (submitted["name"], submitted["kind"]) == (run.name, "submitted")
    assert (stop_event["small"], stop_event["seq"], stop_event["state"]) == (1, 2, "INIT")
    assert stop_event["reason"].startswith("ééé") and "detail" in stop_event["reduced"]
    assert progress["reduced"] == ["metrics"]


async def test_unwatch_ends_the_stream(serving: Serving, peer: Peer) -> None:
    """The stream ends with run.end and its cursor; a subscription of another connection is not_found."""
    run = await serving.add()
    number = (await peer.call("run.watch", {"since": 0}))["subscription"]
    await peer.receive_notification("run.event")
    assert (await peer.call("run.unwatch", {"subscription": number}))["cursor"] == 1
    assert await peer.receive_notification("run.end") == {
        "subscription": number,
        "reason": "unsubscribed",
        "cursor": 1,
    }
    await serving.execute(run)
    assert (await peer.call_refused("run.unwatch", {"subscription": number}))["data"]["name"] == "not_found"
    other = await serving.peer()
    theirs = (await other.call("run.watch"))["subscription"]
    assert (await peer.call_refused("run.unwatch", {"subscription": theirs}))["data"]["name"] == "not_found"


async def test_the_reply_is_sent_before_the_stream(serving: Serving, peer: Peer) -> None:
    """Also in a batch, the reply with the subscription precedes its first notification."""
    await serving.add()
    items = [
        {"jsonrpc": "2.0", "method": "run.watch", "params": {"since": 0}, "id": 1},
        {"jsonrpc": "2.0", "method": "run.list", "id": 2},
    ]
    peer.send(json.dumps(items).encode() + b"\n")
    replies = await peer.receive()
    assert (await peer.receive())["params"]["subscription"] == replies[0]["result"]["subscription"]


async def test_a_connection_has_a_bounded_number_of_streams(peer: Peer) -> None:
    """The 65th stream of a connection is refused."""
    for _ in range(64):
        await peer.call("run.watch")
    assert (await peer.call_refused("run.watch"))["data"]["name"] == "unavailable"
