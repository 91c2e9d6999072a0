"""The lifecycle table: every cell against a second copy by hand, and the fields that each event stores."""

from pathlib import Path

import pytest

from mosaicd.core import diagram
from mosaicd.core.fsm import (
    TABLE,
    Action,
    IllegalTransition,
    Kind,
    Place,
    apply,
    is_legal,
    owed,
    place,
    replay,
)
from mosaicd.core.run import Run
from mosaicd.protocol.states import Outcome, PauseMode, State, Want
from tests.unit.lifecycle import AT, EVIDENCE, PATHS, make_event, new_run, run_in

#: Written by hand from the design.  `=`: the place stays; `.`: illegal; else the place after the event.
EXPECTED = """
                 INIT  HSHK   RDY    EXEC     PAUSE     RELEASED  FAULT  TERM
stop_requested   =     =      =      =        =         =         =      .
pause_requested  .     =      =      =        =         =         .      .
resume_requested =     =      =      =        =         =         .      .
hold             =     .      .      .        .         =         .      .
release          =     .      .      .        .         =         .      .
set              =     =      =      =        =         =         =      .
dispatched       HSHK  .      .      .        .         HSHK      .      .
registered       .     RDY    .      .        .         .         .      .
spawned          .     .      =      .        .         .         .      .
started          .     .      EXEC   .        .         .         .      .
paused           .     .      .      PAUSE    .         .         .      .
continued        .     .      .      .        EXEC      .         .      .
released         .     .      .      RELEASED RELEASED  .         .      .
limit_reached    .     =      =      =        =         .         .      .
exited           .     =      =      =        =         .         =      .
finished         .     TERM   TERM   TERM     TERM      .         .      .
broke            .     FAULT  FAULT  FAULT    FAULT     .         .      .
spawn_failed     .     FAULT  FAULT  .        .         .         .      .
deadline_missed  .     FAULT  FAULT  FAULT    FAULT     .         .      .
lost             .     FAULT  FAULT  FAULT    FAULT     .         =      .
unkillable       .     =      =      =        =         .         =      .
requeued         .     .      .      .        .         .         INIT   .
gave_up          .     .      .      .        .         .         TERM   .
withdrawn        TERM  .      .      .        .         TERM      .      .
submitted        .     .      .      .        .         .         .      .
"""


def cells() -> list[tuple[Place, Kind, Place | None]]:
    head, *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    return [
        (Place(where), Kind(kind), None if cell == "." else Place(where if cell == "=" else cell))
        for kind, *row in rows
        for where, cell in zip(head, row, strict=True)
    ]


def test_every_cell_is_expected() -> None:
    """The table by hand has each place and each kind once."""
    assert sorted((where, kind) for where, kind, _ in cells()) == sorted((p, k) for p in Place for k in Kind)
    assert set(TABLE) == set(Place)


@pytest.mark.parametrize(("where", "kind", "target"), cells(), ids=lambda value: str(value))
def test_every_cell_of_the_table(where: Place, kind: Kind, target: Place | None) -> None:
    """A legal event leads to the place in the table, one revision on; an illegal event changes nothing."""
    run = run_in(where)
    assert is_legal(run, kind) == (target is not None)
    if target is None:
        with pytest.raises(IllegalTransition, match=f"{kind} is not legal in {where}") as caught:
            apply(run, make_event(kind))
        assert caught.value.run is run
        return
    after = apply(run, make_event(kind))
    assert place(after) is target
    assert after.state is target.state
    assert after.rev == run.rev + 1
    assert (after.outcome is not None) == (target is Place.TERM)
    assert bool(after.slots) == (target not in (Place.INIT, Place.RELEASED, Place.TERM))


def test_the_diagram_equals_its_golden_file() -> None:
    """After a change of the table, the printed diagram.text() is reviewed and becomes the golden file."""
    golden = Path(__file__).parent / "golden" / "lifecycle.txt"
    assert diagram.text() == golden.read_text(encoding="utf-8")
    assert max(map(len, diagram.text().splitlines())) <= diagram.WIDTH


def test_the_diagram_is_drawn_from_the_table() -> None:
    """One more row in the table adds one arrow and one cell to the diagram."""
    more = {**TABLE, Place.TERM: {Kind.REQUEUED: Place.INIT}}
    added = set(diagram.text(more).splitlines()) - set(diagram.text().splitlines())
    assert any(line.split() == ["TERM", "->", "INIT", "requeued"] for line in added)
    assert len(added) == 2


# --- stored fields ------------------------------------------------------------------------------


def test_requests_change_the_want_and_never_the_state() -> None:
    """Want, pause mode, user and reason are stored; the newest request wins."""
    run = apply(run_in(Place.EXEC), make_event(Kind.PAUSE_REQUESTED, mode="freeze"))
    assert (run.state, run.want, run.pause_mode) == (State.EXEC, Want.PAUSE, PauseMode.FREEZE)
    run = apply(run, make_event(Kind.RESUME_REQUESTED))
    assert (run.want, run.pause_mode) == (Want.RUN, None)
    run = apply(run, make_event(Kind.STOP_REQUESTED, who="bob", reason="enough", grace_s=0))
    assert (run.state, run.want) == (State.EXEC, Want.STOP)
    assert run.stop == {"kind": "by_user", "who": "bob", "reason": "enough", "grace_s": 0}


def test_set_changes_only_its_own_fields() -> None:
    """Absent fields stay; fields that must not be set are ignored."""
    run = new_run(priority=1, labels={"a": "b"})
    after = apply(run, make_event(Kind.SET, priority=5, owner="eve"))
    assert (after.priority, after.labels, after.name, after.owner) == (5, {"a": "b"}, "taxi", "ada")
    assert apply(run, make_event(Kind.SET, name="x", labels={})).labels == {}


def test_a_hold_ends_with_release_or_resume() -> None:
    """A run is held until it is released, or resumed before it ever ran."""
    held = apply(new_run(), make_event(Kind.HOLD))
    assert held.held
    assert not apply(held, make_event(Kind.RELEASE)).held
    assert not apply(held, make_event(Kind.RESUME_REQUESTED)).held


def test_a_dispatch_clears_the_previous_attempt() -> None:
    """Slots, nonce and attempt are set; evidence of an earlier process and the back-off are cleared."""
    run = run_in(Place.RELEASED, not_before=AT + 5)
    after = apply(run, make_event(Kind.DISPATCHED, attempt=2, nonce="n2", slots=[3, 4], cpus=2))
    assert (after.attempt, after.nonce, after.slots) == (2, "n2", (3, 4))
    assert (after.cpus_granted, after.gpus_granted, after.not_before, after.dispatched_at) == (2, 2, None, AT)
    assert has_no_process(after)


def test_the_first_reason_to_stop_is_kept() -> None:
    """A limit that is reached after a stop changes only the revision."""
    stopped = apply(run_in(Place.EXEC), make_event(Kind.STOP_REQUESTED, reason="mine"))
    after = apply(stopped, make_event(Kind.LIMIT_REACHED))
    assert (after.want, after.stop, after.rev) == (Want.STOP, stopped.stop, stopped.rev + 1)
    limited = apply(run_in(Place.EXEC), make_event(Kind.LIMIT_REACHED))
    assert limited.want is Want.STOP
    assert limited.stop == {"who": "daemon", "kind": "time_limit", "reason": "1h"}


def test_started_at_is_the_first_start() -> None:
    """An attempt after a release does not change started_at."""
    run = apply(run_in(Place.RDY), make_event(Kind.STARTED, at=AT + 1))
    run = apply(run, make_event(Kind.EXITED))
    run = apply(run, make_event(Kind.RELEASED))
    for kind in PATHS[Place.EXEC]:
        run = apply(run, make_event(kind, at=AT + 100))
    assert run.started_at == AT + 1


def test_a_release_keeps_steps_and_returns_the_slots() -> None:
    """Steps and active time are kept, slots and process are cleared, and no retry is used."""
    run = apply(
        run_in(Place.EXEC, retries=1), make_event(Kind.EXITED, steps=500, active_s=60.5, released=True)
    )
    after = apply(run, make_event(Kind.RELEASED))
    assert (after.steps_before, after.active_s, after.retries_used) == (500, 60.5, 0)
    assert after.slots == ()
    assert has_no_process(after)


def test_a_requeue_clears_the_attempt_and_keeps_the_steps() -> None:
    """Process, fault and slots are cleared; the time limit starts again; steps count over all attempts."""
    run = apply(run_in(Place.EXEC, retries=1), make_event(Kind.EXITED, steps=500, active_s=60.5))
    run = apply(run, make_event(Kind.LOST))
    run = apply(run, make_event(Kind.UNKILLABLE))
    after = apply(run, make_event(Kind.REQUEUED, not_before=AT + 30))
    assert (after.state, after.not_before, after.retries_used) == (State.INIT, AT + 30, 1)
    assert (after.steps_before, after.active_s) == (500, 0.0)
    assert (after.fault, after.unkillable, after.slots) == (None, False, ())
    assert (after.run_id, after.digest, after.attempt) == (run.run_id, run.digest, 1)
    assert has_no_process(after)


def test_a_fault_keeps_its_first_cause() -> None:
    """A later exit adds the signal or exit code to the fault and does not change its cause."""
    run = apply(run_in(Place.EXEC), make_event(Kind.DEADLINE_MISSED))
    run = apply(run, make_event(Kind.EXITED, exit_code=None, signal=9))
    assert run.fault == {"kind": "heartbeat_lost", "signal": 9}
    assert (apply(run, make_event(Kind.LOST)).fault or {})["kind"] == "heartbeat_lost"


def test_an_unkillable_run_keeps_its_slots() -> None:
    """The event `unkillable` marks a run in FAULT and does not change its state."""
    run = apply(run_in(Place.FAULT), make_event(Kind.UNKILLABLE))
    assert (run.state, run.unkillable, run.slots) == (State.FAULT, True, (0,))
    assert owed(run) is Action.EMPTY_TREE


def test_finished_at_is_the_end_of_the_process() -> None:
    """finished_at comes from the exit record, or without one from the event that ends the run."""
    run = apply(run_in(Place.EXEC), make_event(Kind.EXITED, finished_at=AT + 7))
    ended = apply(run, make_event(Kind.FINISHED, at=AT + 9))
    assert (ended.finished_at, ended.outcome, ended.slots) == (AT + 7, Outcome.SUCCEEDED, ())
    lost = apply(run_in(Place.FAULT), make_event(Kind.GAVE_UP, at=AT + 9))
    assert lost.finished_at == AT + 9
    withdrawn = apply(
        apply(new_run(), make_event(Kind.STOP_REQUESTED, reason="r")), make_event(Kind.WITHDRAWN)
    )
    assert (withdrawn.outcome, withdrawn.cause) == (
        Outcome.CANCELLED, {"kind": "by_user", "who": "ada", "reason": "r"},
    )  # fmt: skip


@pytest.mark.parametrize("where", list(Place))
def test_a_run_survives_json(where: Place) -> None:
    """In every place, from_dict restores what to_dict wrote."""
    run = run_in(where, labels={"ä": "b"}, retries=2)
    assert Run.from_dict(run.to_dict()) == run


def test_replay_of_the_ledger_gives_the_run() -> None:
    """A replay from `submitted` gives the same run as the events one by one."""
    run = new_run(retries=1)
    events = [
        make_event(Kind.SUBMITTED, run=run.to_dict()),
        *map(make_event, PATHS[Place.EXEC]),
        make_event(Kind.LOST),
    ]
    assert replay(events) == run_in(Place.FAULT, retries=1)
    with pytest.raises(IllegalTransition):
        replay([*events, make_event(Kind.STARTED)])


def test_evidence_is_only_for_known_kinds() -> None:
    """EVIDENCE has keys of known event kinds only."""
    assert set(EVIDENCE) < set(Kind)


def has_no_process(run: Run) -> bool:
    names = ("exit", "pid", "start_ticks", "boot_id", "containment", "shim_pid", "shim_start_ticks")
    return all(getattr(run, name) is None for name in names)
