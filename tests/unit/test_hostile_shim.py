"""Untrusted reports of shims and exit.json: the daemon can fold, store and send any value in them."""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mosaicd.broadcaster import notices
from mosaicd.core import fsm, missed_events
from mosaicd.core.event import Event, Kind
from mosaicd.core.fsm import Action, owed
from mosaicd.core.run import Progress, Run
from mosaicd.core.view import run_object
from mosaicd.protocol.framing import encode
from mosaicd.protocol.records.reports import Status
from mosaicd.protocol.records.untrusted import read
from mosaicd.protocol.states import RunKind, State
from mosaicd.store.registry import Committed
from mosaicd.store.rows import event_values, run_values

RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

#: Values that JSON can have in any place; the daemon's reader of files accepts NaN and Infinity too.
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, -(2**63) - 1, 10**400, -(10**400), 0.5, -0.0, 1e308,
    float("nan"), float("inf"), float("-inf"), "", "x" * 5000, "\ud800", "a\0b", "by_user", "run_failed",
    "spawn_failed", [], [1], {}, {"kind": "by_user"}, {"kind": []}, {"\ud800": 1}, {"a": 10**400},
]  # fmt: skip

EXIT: dict[str, Any] = {
    "exit_code": 0, "signal": None, "core_dumped": False, "started_at": 1.0, "finished_at": 2.0,
    "rusage": {"utime_s": 1.0}, "stop": None, "released": False, "last_word": None, "error": None,
    "fault": None, "telemetry_seq": 1, "stdout_bytes": 1, "stderr_bytes": 1, "steps": 1, "episodes": 1,
    "metrics": {},
    "unparsed_lines": 0, "swept": True, "active_s": 1.0,
}  # fmt: skip
STOP = {"kind": "time_limit", "who": "a", "reason": "b", "forced": False, "grace_s": 1.0, "at": 1.0}
SPAWNED = {"pid": 7, "start_ticks": 8, "boot_id": "b", "containment": "process-group", "at": 1.0}


def run_in(state: State, kind: RunKind = RunKind.COMMAND) -> Run:
    """Return a run that holds slots in `state`."""
    run = Run(
        run_id=RUN_ID, owner_uid=1, owner="ann", kind=kind, name="n", command=("x",), digest="d",
        created_at=1.0, retries=3, rev=1,
    )  # fmt: skip
    steps = [
        Event(Kind.DISPATCHED, 1.0, data={"attempt": 1, "nonce": "n", "slots": [0], "cpus": 1}),
        Event(Kind.REGISTERED, 1.0, data={"shim_pid": 5, "shim_start_ticks": 6}),
        Event(Kind.STARTED, 1.0),
        Event(Kind.PAUSED, 1.0),
    ]
    order = [State.HSHK, State.RDY, State.EXEC, State.PAUSE]
    for event in steps[: order.index(state) + 1] if state in order else steps[:3]:
        run = fsm.apply(run, event)
    if state is State.FAULT:
        run = fsm.apply(run, Event(Kind.LOST, 1.0, data={"kind": "shim_lost"}))
    return run


def statuses() -> Iterator[Mapping[str, Any]]:
    """Yield a status for each of its keys and each hostile value."""
    for value in HOSTILE:
        for name in ("spawned", "started_at", "frozen", "paused_mode", "stop", "exit"):
            yield {"exit": EXIT, "spawned": SPAWNED, name: value}
            yield {name: value}
        for name in EXIT:
            yield {"exit": {**EXIT, name: value}}
        for name in STOP:
            yield {"stop": {**STOP, name: value}}
            yield {"exit": {**EXIT, "stop": {**STOP, name: value}}, "stop": {**STOP, name: value}}
        for name in SPAWNED:
            yield {"spawned": {**SPAWNED, name: value}}
        yield {"exit": {**EXIT, "metrics": {"m": value}, "rusage": {"m": value}}}


def check_end(run: Run, events: list[Event]) -> None:
    """Fold, store and encode the events; then end the run as the dispatcher does."""
    for _ in range(4):
        for event in events:
            run = fsm.apply(run, event)
            row = event_values(run, event)
            values = run_values(run)
            for number in (row[4], values["created_at"], values["finished_at"]):
                assert number is None or abs(number) < 1e18
            json.dumps([row[6], values["body"]]).encode()
            encode(run_object(run, Progress().after_exit(run.exit or {}), "/r"))
            notices.committed_body(Committed(1, run, event))
        action = owed(run)
        if action is Action.BREAK:
            events = [fsm.broke_event(run, 3.0)]
        elif action is Action.EMPTY_TREE:
            events = [fsm.conclude(run, 3.0, 1.0)]
        else:
            return
    raise AssertionError(f"the run does not end: {run}")


@pytest.mark.parametrize("state", [State.HSHK, State.RDY, State.EXEC, State.PAUSE, State.FAULT])
@pytest.mark.parametrize("kind", list(RunKind))
def test_no_status_breaks_the_fold(state: State, kind: RunKind) -> None:
    """Wrong types, unknown words, and huge, negative or non-finite numbers are ignored or cut."""
    run = run_in(state, kind)
    for status in statuses():
        check_end(run, missed_events.from_status(run, read(Status, status), 2.5))


@pytest.mark.parametrize("state", [State.HSHK, State.RDY, State.EXEC, State.PAUSE, State.FAULT])
def test_no_fact_breaks_the_fold(state: State) -> None:
    """Facts may have any name, time and evidence."""
    run = run_in(state)
    for name, value in itertools.product([*missed_events.HINTS, *Kind, *HOSTILE], HOSTILE):
        words = dict.fromkeys(("mode", "kind", "reason", "error"), value)
        evidence = {**words, "pid": value, "exit_code": 0}
        for fact in ({"fact": name, "at": value}, {"fact": name, "at": 1.0, **evidence}):
            events, _ = missed_events.from_facts(run, [fact])
            check_end(run, events)


@pytest.mark.parametrize("source", ["exited", "exit.json"])
def test_a_release_before_the_run_worked_ends_the_run(source: str) -> None:
    """`released` in the exit of a run in RDY is ignored, and the run ends by its exit record."""
    run = run_in(State.RDY)
    exit = {**EXIT, "released": True}
    events = (
        missed_events.from_facts(run, [{"fact": "exited", "at": 2.0, **exit}])[0]
        if source == "exited"
        else missed_events.from_status(run, read(Status, {"exit": exit}), 2.5)
    )
    for event in events:
        run = fsm.apply(run, event)
    assert fsm.conclude(run, 3.0, 1.0).kind is Kind.FINISHED


def test_a_register_does_not_resume_a_cooperative_pause() -> None:
    """A status that is not frozen continues a paused run only if the pause was not cooperative."""
    run = run_in(State.PAUSE, RunKind.WORKER)
    assert missed_events.from_status(run, Status(frozen=False, paused_mode="cooperative"), 2.5) == []
    [event] = missed_events.from_status(run, Status(frozen=False), 2.5)
    assert (event.kind, event.at) == (Kind.CONTINUED, 2.5)


def test_a_pause_without_a_time_gets_the_time_of_the_register() -> None:
    """A pause that the daemon missed, in a status without a time, is recorded with the register's time."""
    [event] = missed_events.from_status(run_in(State.EXEC), Status(paused_mode="cooperative"), 2.5)
    assert (event.kind, event.at, event.data) == (Kind.PAUSED, 2.5, {"mode": "cooperative"})


def test_an_exit_report_that_is_too_long_is_cut() -> None:
    """The end of a run is never refused for its size; less than 32 KiB of it is kept."""
    padding = {f"name{n}": "x" * 5000 for n in range(200)}
    fact = {
        **EXIT, "fact": "exited", "at": 2.0, "exit_code": 3, "error": "e" * 500_000, **padding,
        "metrics": {f"{n}" * 50: n for n in range(5000)},
    }  # fmt: skip
    events, rejected = missed_events.from_facts(run_in(State.EXEC), [fact])
    assert (len(events), rejected) == (1, [])
    assert events[0].data["exit_code"] == 3
    assert len(encode(events[0].data)) < 32 << 10
