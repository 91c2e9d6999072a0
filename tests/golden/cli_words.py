"""Words inside replies: why a run ended, the note of `list`, the events of `watch`."""

from typing import Any

from mosaicctl import board, progressbar, render
from mosaicd.core.event import Kind
from mosaicd.protocol.states import CauseKind
from tests.ctl.scripted import a_run, an_ended_run, an_event
from tests.golden.stage import Stage

#: Causes with the data that the daemon gives them.
CAUSES: tuple[dict[str, Any], ...] = (
    {"kind": "exit_code", "exit_code": 7},
    {"kind": "signal", "signal": 11},
    {"kind": "by_user", "who": "ada", "reason": "wrong data", "signal": 15},
    {"kind": "by_user", "who": "ada", "forced": True, "signal": 9},
    {"kind": "by_user", "who": "worker"},
    {"kind": "time_limit", "signal": 15},
    {"kind": "step_limit", "signal": 15},
    {"kind": "handshake_timeout", "after_s": 30},
    {"kind": "start_timeout", "after_s": 60},
    {"kind": "heartbeat_lost", "after_s": 300, "forced": True},
    {"kind": "stuck", "after_s": 600},
    {"kind": "spawn_failed", "error": "no such file: x"},
    {"kind": "oom", "limit_bytes": 512 << 20, "victims": 1},
    {"kind": "exit_code", "exit_code": 1, "crash_loop": True, "attempts": 3},
)

#: What `list` notes beside the state of a run.
NOTES: tuple[dict[str, Any], ...] = (
    {"state": "INIT", "held": True},
    {"state": "INIT", "reason": "needs 2 CPUs, 1 of 2 free"},
    {"want": "stop"},
    {"want": "pause"},
    {"state": "PAUSE", "want": "run"},
    {"state": "PAUSE", "want": "pause", "released": True},
    {"state": "FAULT", "cause": {"kind": "shim_lost"}},
    {"state": "FAULT", "cause": {"kind": "shim_lost"}, "left_processes": 1},
    {"state": "TERM", "outcome": "succeeded", "left_processes": 1},
    {"state": "TERM", "cause": {"kind": "exit_code", "exit_code": 7}, "left_processes": 2},
)

#: Data of events, by kind, that `watch` prints beside the kind.
EVENTS: dict[str, dict[str, Any]] = {
    "dispatched": {"attempt": 2, "slots": [0, 1], "cpus": 2},
    "exited": {"exit_code": 7},
    "finished": {"state": "TERM", "outcome": "failed", "cause": {"kind": "exit_code", "exit_code": 7}},
    "broke": {"cause": {"kind": "signal", "signal": 11}},
    "stop_requested": {"who": "ada", "reason": "wrong data"},
    "set": {"who": "ada", "priority": 7, "was": {"priority": 0}},
    "limit_reached": {"limit": "time"},
    "requeued": {
        "state": "INIT",
        "not_before": 1010.0,
        "cause": {"kind": "shim_lost"},
        "left_processes": 1,
    },
}


def causes(stage: Stage) -> None:
    """The words for each cause."""
    stage.title("Words: why a run ended, or its attempt failed")
    plain = [{"kind": kind} for kind in CauseKind if kind not in {cause["kind"] for cause in CAUSES}]
    stage.lines([f"{cause} -> {render.cause({'cause': cause})}" for cause in (*CAUSES, *plain)])


def notes(stage: Stage) -> None:
    """The note beside the state, and what a live line of `watch` begins with."""
    stage.title("Words: the note in `list`, `show` and `run`")
    stage.lines([f"{changes} -> {render.note(a_run(**changes))}" for changes in NOTES])
    rate = progressbar.Rate()
    lines = [progressbar.progress_line(a_run(**changes), rate, 79, unicode=False) for changes in NOTES]
    stage.lines(lines)


def events(stage: Stage) -> None:
    """The words for each kind of event."""
    stage.title("Words: the events of `watch`")
    told = [an_event(1, kind, "EXEC") | EVENTS.get(kind, {}) for kind in Kind]
    old = an_event(1, "set", "EXEC", who="ada", was={}, reduced=["labels"])
    stage.lines([board.describe(event) for event in (*told, old)])
    stage.lines([render.ending_text(an_ended_run())])


SECTIONS = (causes, notes, events)
