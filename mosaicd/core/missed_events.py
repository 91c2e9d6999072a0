"""Missed events: convert the facts or files of a shim to the events that the row of the run lacks.

This module converts the facts of a shim, its status at a register, and the files of a run directory after a
crash, so that a fact that is reported twice is recorded once.  Events are returned in the order of the
lifecycle table.  Known events are left out; facts without a row in the table are returned apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from mosaicd.core import evidence
from mosaicd.core.fsm import Event, Kind, apply, is_legal
from mosaicd.core.run import Run
from mosaicd.protocol import Json
from mosaicd.protocol.records import facts, untrusted
from mosaicd.protocol.records.attempt import Exit, Started, Stop
from mosaicd.protocol.records.facts import Paused, SpawnFailed
from mosaicd.protocol.records.reports import Status
from mosaicd.protocol.states import CauseKind, PauseMode, RunKind, State, Want

#: Facts that change no state: they only make the daemon check the run.
HINTS = ("emptied",)
#: Facts that cancel each other: the state of a run does not show whether a pair of them is recorded.
PAUSE_FACTS = (Kind.PAUSED, Kind.CONTINUED)
#: The length to which an unknown name is cut in the answer.
NAME_LIMIT = 40

T = TypeVar("T")

_LIMITS = (CauseKind.TIME_LIMIT, CauseKind.STEP_LIMIT)


def from_facts(
    run: Run, facts: Iterable[Mapping[str, Any]], who: str = "shim"
) -> tuple[list[Event], list[str]]:
    """Return the events that `facts` add to `run`, and the names of facts that are illegal or unknown."""
    return _missing_events(run, chain.from_iterable(_events_of_fact(fact, who) for fact in facts))


def from_status(run: Run, status: Status, at: float, who: str = "shim") -> list[Event]:
    """Return the events that `run` lacks, from the status of its attempt.

    `at` is the time of facts without a time of their own.
    """
    return _missing_events(run, ((event.kind, event) for event in _events_of_status(run, status, at, who)))[0]


def _missing_events(run: Run, told: Iterable[tuple[str, Event | None]]) -> tuple[list[Event], list[str]]:
    """Return the events that `run` lacks, and the names of illegal ones; None stands for an unknown fact."""
    events: list[Event] = []
    rejected: list[str] = []
    for name, event in told:
        if event is None:
            rejected.append(name[:NAME_LIMIT])
        elif not _is_known(run, event):
            if not is_legal(run, event.kind):
                rejected.append(name)
                continue
            run = apply(run, event)
            events.append(event)
    return events, rejected


def not_recorded(
    facts: Sequence[Mapping[str, Any]], newest: tuple[str, float]
) -> Sequence[Mapping[str, Any]]:
    """Return `facts` without the pause facts in the ledger: all up to its newest one, `newest` (kind, at)."""
    recorded = [
        n for n, fact in enumerate(facts) if (fact.get("fact"), untrusted.seconds(fact.get("at"))) == newest
    ]
    last = max(recorded, default=-1)
    return [fact for n, fact in enumerate(facts) if n > last or fact.get("fact") not in PAUSE_FACTS]


def of_this_boot(run: Run, boot_id: str) -> Run:
    """Return `run` without pids of another boot or machine, because such a pid may be another process now."""
    is_rebooted = (run.fault or {}).get("kind") == CauseKind.REBOOTED
    if run.boot_id in (None, boot_id) and not is_rebooted:
        return run
    return replace(run, pid=None, start_ticks=None, shim_pid=None, shim_start_ticks=None)


def _events_of_fact(fact: Mapping[str, Any], who: str) -> Iterator[tuple[str, Event | None]]:
    """Yield the name and the event of a fact; an exit record in `spawn_failed` is a further fact."""
    name, at = untrusted.text(fact.get("fact")) or "?", untrusted.seconds(fact.get("at"))
    if name in HINTS:
        return
    kind = Kind(name) if name in _DATA else None
    yield name, None if kind is None or at is None else _event_or_none(kind, at, who, _DATA[kind], fact)
    if kind is Kind.SPAWN_FAILED and isinstance(exit := fact.get("exit"), Mapping) and exit:
        yield facts.EXITED, None if at is None else _event_or_none(Kind.EXITED, at, who, _exited, exit)


def _events_of_status(run: Run, status: Status, at: float, who: str) -> Iterator[Event]:
    """Yield the events of a status, in the order of the table."""
    for event in (*_start_events(status, at, who), *_end_events(status, at, who)):
        if event is not None:
            yield event
    if status.exit is not None and status.exit.has_values:
        return
    is_paused = bool(status.frozen or status.paused_mode)
    if is_paused and run.state is State.EXEC:
        yield Event(Kind.PAUSED, _known_or(status.frozen_at, at), who, _pause_data(status.paused_mode))
    elif run.state is State.PAUSE and not is_paused:
        yield Event(Kind.CONTINUED, _known_or(status.thawed_at, at), who, {})


def _start_events(status: Status, at: float, who: str) -> Iterator[Event | None]:
    if status.spawned is not None:
        yield _event_or_none(
            Kind.SPAWNED, _known_or(status.spawned.at, at), who, evidence.spawned, status.spawned
        )
    if status.started_at is not None:
        yield Event(Kind.STARTED, status.started_at, who, {})


def _end_events(status: Status, at: float, who: str) -> Iterator[Event | None]:
    stop, exit = status.stop, status.exit
    if stop is not None and stop.kind in _LIMITS:
        yield Event(
            Kind.LIMIT_REACHED, _known_or(stop.at, at), who, {"kind": stop.kind, "reason": stop.reason}
        )
    if exit is not None:
        ended_at = _known_or(exit.finished_at, at)
        if exit.fault in (CauseKind.SPAWN_FAILED, CauseKind.DISK_FULL):
            failed = SpawnFailed(error=exit.error, exit=exit)
            yield _event_or_none(Kind.SPAWN_FAILED, ended_at, who, _spawn_failed, failed)
        yield _event_or_none(Kind.EXITED, ended_at, who, evidence.exited, exit)


def _event_or_none(kind: Kind, at: float, who: str, data_of: Callable[[T], Json], told: T) -> Event | None:
    """Return the event of a fact, or None for an unknown fact."""
    try:
        return Event(kind, at, who, data_of(told))
    except ValueError:
        return None


def _known_or(at: float | None, otherwise: float) -> float:
    """Return the time `at` of a record, or `otherwise` if the record has no time."""
    return otherwise if at is None else at


def _exited(fact: Mapping[str, Any]) -> Json:
    return evidence.exited(untrusted.read(Exit, fact))


def _limit_reached(fact: Mapping[str, Any]) -> Json:
    stop = untrusted.read(Stop, fact)
    if stop.kind not in _LIMITS:
        raise ValueError("kind: time_limit or step_limit")
    return {"kind": stop.kind, "reason": stop.reason}


def _pause_data(mode: str | None) -> Json:
    return {"mode": mode} if mode in tuple(PauseMode) else {}


def _spawn_failed(failed: SpawnFailed) -> Json:
    is_disk = failed.exit is not None and failed.exit.fault == CauseKind.DISK_FULL
    return {"error": failed.error, **({"cause": CauseKind.DISK_FULL} if is_disk else {})}


#: The function that checks the data of each kind of fact.
_DATA: Mapping[str, Callable[[Mapping[str, Any]], Json]] = {
    Kind.SPAWNED: lambda fact: evidence.spawned(untrusted.read(Started, fact)),
    Kind.STARTED: lambda fact: {},
    Kind.SPAWN_FAILED: lambda fact: _spawn_failed(untrusted.read(SpawnFailed, fact)),
    Kind.PAUSED: lambda fact: _pause_data(untrusted.read(Paused, fact).mode),
    Kind.CONTINUED: lambda fact: {},
    Kind.LIMIT_REACHED: _limit_reached,
    Kind.EXITED: _exited,
}


def _is_known(run: Run, event: Event) -> bool:
    """Return whether `run` already has the content of `event`."""
    match event.kind:
        case Kind.SPAWNED:
            return run.pid is not None
        case Kind.STARTED:
            return run.state in (State.EXEC, State.PAUSE) or (
                run.started_at is not None and run.exit is not None
            )
        case Kind.PAUSED:
            return run.state is State.PAUSE
        case Kind.CONTINUED:
            return run.state is State.EXEC
        case Kind.LIMIT_REACHED:
            return run.want is Want.STOP and (run.stop or {}).get("kind") == event.data.get("kind")
        case Kind.SPAWN_FAILED:
            return run.state is State.FAULT
        case Kind.EXITED:
            return run.exit is not None
        case _:
            return False


def status_from_files(kind: RunKind, started: Started | None, exit: Exit | None) -> Status:
    """Return a status as a shim would report it, from started.json and exit.json (None where absent)."""
    has_worked = kind is RunKind.COMMAND or (exit is not None and exit.telemetry_seq)
    return Status(
        spawned=started,
        started_at=started.at if started is not None and has_worked else None,
        frozen=False,
        stop=exit.stop if exit is not None else None,
        exit=exit,
    )
