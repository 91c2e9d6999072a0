"""Facts of an attempt, which its shim sends with worker.fact; each is an object with `fact` and `at`.

`spawned` and `exited` contain a complete record, `started` and `continued` only the time.
"""

from mosaicd.protocol import Json
from mosaicd.protocol.records.attempt import Exit, Started
from mosaicd.protocol.records.record import Record

SPAWNED, STARTED, CONTINUED, EXITED = "spawned", "started", "continued", "exited"


class SpawnFailed(Record):
    """The worker could not be executed, or its files could not be created; `exit` is exit.json."""

    fact: str = "spawn_failed"
    at: float | None = None
    errno: int | None = None
    error: str | None = None
    exit: Exit | None = None


class Paused(Record):
    """The process tree is frozen, or the worker has paused by itself."""

    fact: str = "paused"
    at: float | None = None
    mode: str | None = None


class LimitReached(Record):
    """A limit of the run was reached; `kind` is time_limit or step_limit."""

    fact: str = "limit_reached"
    at: float | None = None
    kind: str | None = None
    ran_s: float | None = None
    steps: int | None = None


class Emptied(Record):
    """The shim found the process tree empty, after `exited`; only the launcher can confirm that."""

    fact: str = "emptied"
    at: float | None = None
    telemetry_seq: int | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None


def spawned(started: Started) -> Json:
    """Return the fact that the worker was started, with the record of started.json."""
    return {"fact": SPAWNED, **started.to_json()}


def exited(exit: Exit) -> Json:
    """Return the fact that the worker has ended, with the record of exit.json."""
    return {"fact": EXITED, "at": exit.finished_at, **exit.to_json()}


def at_time(fact: str, at: float) -> Json:
    """Return a fact that has only a time: `started` or `continued`."""
    return {"fact": fact, "at": at}
