"""The data of events, made from the records that a shim or a file has of an attempt.

`protocol/records/untrusted` has already dropped every value of a wrong type.  This module checks ranges and
contradictions, which a type cannot express.  A ValueError means that the record must not become an event.
"""

from typing import Any

from mosaicd.protocol import Json
from mosaicd.protocol.records import untrusted
from mosaicd.protocol.records.attempt import Checkpoint, Exit, Started
from mosaicd.protocol.states import CauseKind

_MOST_EXIT_CODE = 255
_MOST_SIGNAL = 64
_LAST_WORDS = ("run_completed", "run_failed", "run_cancelled")
#: Keys of exit.json and of started.json that are not part of the event.
_NOT_OF_EXIT = ("run_id", "attempt", "nonce", "shed")
_NOT_OF_START = ("pgid", "sid", "cgroup", "at")


def exited(exit: Exit) -> Json:
    """Return the known values of an exit record; raise ValueError if it contradicts itself or has no end."""
    if exit.fault is not None and not _is_cause(exit.fault):
        raise ValueError("fault: not a cause")
    if exit.stop is not None and not _is_cause(exit.stop.kind):
        raise ValueError("stop.kind: not a cause")
    if exit.exit_code is not None and exit.exit_code > _MOST_EXIT_CODE:
        raise ValueError(f"exit_code: {exit.exit_code} is not in 0..{_MOST_EXIT_CODE}")
    if exit.signal is not None and not 1 <= exit.signal <= _MOST_SIGNAL:
        raise ValueError(f"signal: {exit.signal} is not in 1..{_MOST_SIGNAL}")
    if all(value is None for value in (exit.exit_code, exit.signal, exit.fault, exit.stop)):
        raise ValueError("an exit record needs exit_code, signal, fault or stop")
    known = {name: value for name, value in exit.known().items() if name not in _NOT_OF_EXIT}
    for name in ("resumed_from", "checkpoint"):
        if not known.get(name, {}).get("path"):
            known.pop(name, None)
    return {**known, "last_word": exit.last_word if exit.last_word in _LAST_WORDS else None}


def spawned(started: Started) -> Json:
    """Return the process of a worker and its containment; raise ValueError without a pid."""
    if not started.pid:
        raise ValueError("pid: a positive integer is needed")
    return {name: value for name, value in started.known().items() if name not in _NOT_OF_START}


def checkpoint(value: Any) -> Json | None:
    """Return path, step, time and hash of a checkpoint that a shim reports; None without a path."""
    known = untrusted.read(Checkpoint, value).known()
    return known if known.get("path") else None


def _is_cause(word: str | None) -> bool:
    return word in frozenset(CauseKind)
