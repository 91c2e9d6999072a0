"""What a run missed: from what a shim reports, or its files say, to the events that the row still lacks.

A shim's facts, its status at a (re-)register and a run directory read after a crash all come through
here, so that a fact told twice is folded once, whichever way it came.  Events are returned in the
order of the lifecycle table; what is known already is left out; what has no row is returned apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from mosaicd.core import evidence
from mosaicd.core.fsm import Event, Kind, apply, is_legal
from mosaicd.core.run import Run
from mosaicd.protocol.states import CauseKind, PauseMode, RunKind, State, Want

#: Facts that move nothing: they only ask the daemon to look.
HINTS = ("emptied",)
#: Facts that each undo the other: where a run stands does not say whether a pair of them is known.
PAUSE_FACTS = (Kind.PAUSED, Kind.CONTINUED)
#: How much of a name that nobody knows is repeated.
NAME_LIMIT = 40

_LIMITS = (CauseKind.TIME_LIMIT, CauseKind.STEP_LIMIT)


def from_facts(
    run: Run, facts: Iterable[Mapping[str, Any]], who: str = "shim"
) -> tuple[list[Event], list[str]]:
    """Return the events that `facts` add to `run`, and the names of those that have no row or no meaning."""
    events: list[Event] = []
    rejected: list[str] = []
    for fact in chain.from_iterable(map(_with_its_exit, facts)):
        name = evidence.text(fact.get("fact")) or "?"
        if name in HINTS:
            continue
        event = _event(fact, who)
        if event is None:
            rejected.append(name[:NAME_LIMIT])
        elif not _is_known(run, event):
            if not is_legal(run, event.kind):
                rejected.append(name)
                continue
            run = apply(run, event)
            events.append(event)
    return events, rejected


def untold(facts: Sequence[Mapping[str, Any]], newest: tuple[str, float]) -> Sequence[Mapping[str, Any]]:
    """Return `facts` without the pauses that the ledger has: all up to its `newest` (kind, at)."""
    told = [
        n for n, fact in enumerate(facts) if (fact.get("fact"), evidence.seconds(fact.get("at"))) == newest
    ]
    last = max(told, default=-1)
    return [fact for n, fact in enumerate(facts) if n > last or fact.get("fact") not in PAUSE_FACTS]


def of_this_boot(run: Run, boot_id: str) -> Run:
    """Return `run` without pids that are of another boot, or machine: they are other processes here."""
    is_rebooted = (run.fault or {}).get("kind") == CauseKind.REBOOTED
    if run.boot_id in (None, boot_id) and not is_rebooted:
        return run
    return replace(run, pid=None, start_ticks=None, shim_pid=None, shim_start_ticks=None)


def _with_its_exit(fact: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the fact, and the exit record that a spawn_failed carries as the fact that it also is."""
    yield fact
    if fact.get("fact") == Kind.SPAWN_FAILED and _object(fact.get("exit")):
        yield {**_object(fact.get("exit")), "fact": "exited", "at": fact.get("at")}


def from_status(run: Run, status: Mapping[str, Any], at: float, who: str = "shim") -> list[Event]:
    """Return the events that `run` lacks, given all that its attempt has come to.

    `status` has the keys of worker.register: spawned, started_at, frozen, paused_mode, stop, exit.
    `at` is taken for the time of what the status does not date.
    """
    return from_facts(run, _facts_of(run, status, at), who)[0]


def _facts_of(run: Run, status: Mapping[str, Any], at: float) -> Iterable[Mapping[str, Any]]:
    spawned, exit, stop = (_object(status.get(name)) for name in ("spawned", "exit", "stop"))
    if spawned:
        yield {**spawned, "fact": "spawned", "at": _time(spawned.get("at"), at)}
    if status.get("started_at") is not None:
        yield {"fact": "started", "at": _time(status["started_at"], at)}
    if stop.get("kind") in _LIMITS:
        yield {**stop, "fact": "limit_reached", "at": _time(stop.get("at"), at)}
    if exit:
        ended_at = _time(exit.get("finished_at"), at)
        if exit.get("fault") in (CauseKind.SPAWN_FAILED, CauseKind.DISK_FULL):
            yield {"fact": "spawn_failed", "at": ended_at, "error": exit.get("error"), "exit": exit}
        yield {**exit, "fact": "exited", "at": ended_at}
        return
    is_paused = bool(status.get("frozen") or status.get("paused_mode"))
    if is_paused and run.state is State.EXEC:
        yield {"fact": "paused", "at": _time(status.get("frozen_at"), at), "mode": status.get("paused_mode")}
    elif run.state is State.PAUSE and not is_paused:
        yield {"fact": "continued", "at": _time(status.get("thawed_at"), at)}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _time(value: Any, otherwise: float) -> float:
    at = evidence.seconds(value)
    return otherwise if at is None else at


def _event(fact: Mapping[str, Any], who: str) -> Event | None:
    name, at = fact.get("fact"), evidence.seconds(fact.get("at"))
    if not isinstance(name, str) or name not in _FACTS or at is None:
        return None
    kind = Kind(name)
    try:
        return Event(kind, at, who, _EVIDENCE[kind](fact))
    except ValueError:
        return None


def _limit(fact: Mapping[str, Any]) -> dict[str, Any]:
    if fact.get("kind") not in _LIMITS:
        raise ValueError("kind: time_limit or step_limit")
    return {"kind": fact["kind"], "reason": evidence.text(fact.get("reason"))}


def _paused(fact: Mapping[str, Any]) -> dict[str, Any]:
    return {"mode": fact["mode"]} if fact.get("mode") in tuple(PauseMode) else {}


def _spawn_failed(fact: Mapping[str, Any]) -> dict[str, Any]:
    error = {"error": evidence.text(fact.get("error"))}
    is_disk = _object(fact.get("exit")).get("fault") == CauseKind.DISK_FULL
    return {**error, "cause": CauseKind.DISK_FULL} if is_disk else error


_EVIDENCE: Mapping[Kind, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    Kind.SPAWNED: evidence.spawned_record,
    Kind.STARTED: lambda fact: {},
    Kind.SPAWN_FAILED: _spawn_failed,
    Kind.PAUSED: _paused,
    Kind.CONTINUED: lambda fact: {},
    Kind.LIMIT_REACHED: _limit,
    Kind.EXITED: evidence.exit_record,
}

_FACTS = frozenset(_EVIDENCE)


def _is_known(run: Run, event: Event) -> bool:
    """Whether `run` already holds what `event` says."""
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


def status_from_files(
    kind: RunKind, started: Mapping[str, Any] | None, exit: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a status as a shim would report it, from started.json and exit.json (None where absent)."""
    started_at = None
    if started and (kind is RunKind.COMMAND or (exit and exit.get("telemetry_seq"))):
        started_at = started.get("at")
    return {
        "spawned": started,
        "started_at": started_at,
        "frozen": False,
        "stop": (exit or {}).get("stop"),
        "exit": exit,
    }
