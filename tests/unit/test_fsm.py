"""The lifecycle table: every cell, written down a second time from the design, and what each event stores."""

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
from tests.unit.lives import AT, EVIDENCE, PATHS, happening, new_run, run_in

#: By hand, from the page that defines the lifecycle.  `=` stays, `.` is illegal, else the place it leads to.
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
        for kind, *found in rows
        for where, cell in zip(head, found, strict=True)
    ]


def test_every_cell_is_expected() -> None:
    """The hand-written table has each place and each kind once."""
    assert sorted((where, kind) for where, kind, _ in cells()) == sorted((p, k) for p in Place for k in Kind)
    assert set(TABLE) == set(Place)


@pytest.mark.parametrize(("where", "kind", "target"), cells(), ids=lambda value: str(value))
def test_a_cell(where: Place, kind: Kind, target: Place | None) -> None:
    """A legal event leads where the table says, one revision on; an illegal one raises, nothing changes."""
    run = run_in(where)
    assert is_legal(run, kind) == (target is not None)
    if target is None:
        with pytest.raises(IllegalTransition, match=f"{kind} is not legal in {where}") as caught:
            apply(run, happening(kind))
        assert caught.value.run is run
        return
    after = apply(run, happening(kind))
    assert place(after) is target
    assert after.state is target.state
    assert after.rev == run.rev + 1
    assert (after.outcome is not None) == (target is Place.TERM)
    assert bool(after.slots) == (target not in (Place.INIT, Place.RELEASED, Place.TERM))


def test_the_picture_is_golden() -> None:
    """A change of the table is a change of the picture that someone has looked at (print diagram.text())."""
    golden = Path(__file__).parent / "golden" / "lifecycle.txt"
    assert diagram.text() == golden.read_text(encoding="utf-8")
    assert max(map(len, diagram.text().splitlines())) <= diagram.WIDTH


def test_the_picture_is_drawn_from_the_table() -> None:
    """One row more in the table is one arrow and one cell more in the picture."""
    more = {**TABLE, Place.TERM: {Kind.REQUEUED: Place.INIT}}
    added = set(diagram.text(more).splitlines()) - set(diagram.text().splitlines())
    assert any(line.split() == ["TERM", "->", "INIT", "requeued"] for line in added)
    assert len(added) == 2


# --- what is stored ------------------------------------------------------------------------------


def test_requests_change_what_is_wanted_and_never_the_state() -> None:
    """want, mode, who and why are stored; the newest request wins."""
    run = apply(run_in(Place.EXEC), happening(Kind.PAUSE_REQUESTED, mode="freeze"))
    assert (run.state, run.want, run.pause_mode) == (State.EXEC, Want.PAUSE, PauseMode.FREEZE)
    run = apply(run, happening(Kind.RESUME_REQUESTED))
    assert (run.want, run.pause_mode) == (Want.RUN, None)
    run = apply(run, happening(Kind.STOP_REQUESTED, who="bob", reason="enough", grace_s=0))
    assert (run.state, run.want) == (State.EXEC, Want.STOP)
    assert run.stop == {"kind": "by_user", "who": "bob", "reason": "enough", "grace_s": 0}


def test_set_changes_only_what_it_names() -> None:
    """Absent fields stay; what may not be set is ignored."""
    run = new_run(priority=1, labels={"a": "b"})
    after = apply(run, happening(Kind.SET, priority=5, owner="eve"))
    assert (after.priority, after.labels, after.name, after.owner) == (5, {"a": "b"}, "taxi", "ada")
    assert apply(run, happening(Kind.SET, name="x", labels={})).labels == {}


def test_hold_and_release() -> None:
    """A held run says so until it is released, or resumed where it never ran."""
    held = apply(new_run(), happening(Kind.HOLD))
    assert held.held
    assert not apply(held, happening(Kind.RELEASE)).held
    assert not apply(held, happening(Kind.RESUME_REQUESTED)).held


def test_a_dispatch_starts_a_fresh_attempt() -> None:
    """Slots, nonce and attempt are set; no evidence of an earlier process is left; the delay is over."""
    run = run_in(Place.RELEASED, not_before=AT + 5)
    after = apply(run, happening(Kind.DISPATCHED, attempt=2, nonce="n2", slots=[3, 4], cpus=2))
    assert (after.attempt, after.nonce, after.slots) == (2, "n2", (3, 4))
    assert (after.cpus_granted, after.gpus_granted, after.not_before, after.dispatched_at) == (2, 2, None, AT)
    assert no_process(after)


def test_the_first_reason_to_stop_is_remembered() -> None:
    """A limit that comes after a stop changes nothing but the revision."""
    stopped = apply(run_in(Place.EXEC), happening(Kind.STOP_REQUESTED, reason="mine"))
    after = apply(stopped, happening(Kind.LIMIT_REACHED))
    assert (after.want, after.stop, after.rev) == (Want.STOP, stopped.stop, stopped.rev + 1)
    limited = apply(run_in(Place.EXEC), happening(Kind.LIMIT_REACHED))
    assert limited.want is Want.STOP
    assert limited.stop == {"who": "daemon", "kind": "time_limit", "reason": "1h"}


def test_started_is_the_first_start() -> None:
    """A run that comes back after a release began when it first began."""
    run = apply(run_in(Place.RDY), happening(Kind.STARTED, at=AT + 1))
    run = apply(run, happening(Kind.EXITED))
    run = apply(run, happening(Kind.RELEASED))
    for kind in PATHS[Place.EXEC]:
        run = apply(run, happening(kind, at=AT + 100))
    assert run.started_at == AT + 1


def test_a_release_keeps_count_and_gives_back() -> None:
    """Steps and active time are carried over; slots and process are not; it is no retry."""
    run = apply(
        run_in(Place.EXEC, retries=1), happening(Kind.EXITED, steps=500, active_s=60.5, released=True)
    )
    after = apply(run, happening(Kind.RELEASED))
    assert (after.steps_before, after.active_s, after.retries_used) == (500, 60.5, 0)
    assert after.slots == ()
    assert no_process(after)


def test_a_requeue_forgets_the_attempt_but_not_the_steps() -> None:
    """Evidence, pid, fault, slots are cleared; the time limit starts anew; steps count over all attempts."""
    run = apply(run_in(Place.EXEC, retries=1), happening(Kind.EXITED, steps=500, active_s=60.5))
    run = apply(run, happening(Kind.LOST))
    run = apply(run, happening(Kind.UNKILLABLE))
    after = apply(run, happening(Kind.REQUEUED, not_before=AT + 30))
    assert (after.state, after.not_before, after.retries_used) == (State.INIT, AT + 30, 1)
    assert (after.steps_before, after.active_s) == (500, 0.0)
    assert (after.fault, after.unkillable, after.slots) == (None, False, ())
    assert (after.run_id, after.digest, after.attempt) == (run.run_id, run.digest, 1)
    assert no_process(after)


def test_a_fault_keeps_its_first_cause_and_gathers_evidence() -> None:
    """What broke first is the cause; an exit that is learnt later adds how the process ended."""
    run = apply(run_in(Place.EXEC), happening(Kind.DEADLINE_MISSED))
    run = apply(run, happening(Kind.EXITED, exit_code=None, signal=9))
    assert run.fault == {"kind": "heartbeat_lost", "signal": 9}
    assert (apply(run, happening(Kind.LOST)).fault or {})["kind"] == "heartbeat_lost"


def test_what_cannot_be_killed_keeps_its_slots_and_says_so() -> None:
    """unkillable is a mark on a FAULT that stays one."""
    run = apply(run_in(Place.FAULT), happening(Kind.UNKILLABLE))
    assert (run.state, run.unkillable, run.slots) == (State.FAULT, True, (0,))
    assert owed(run) is Action.EMPTY_TREE


def test_the_end_is_when_the_process_ended() -> None:
    """finished_at is the exit record's, where there is one; a withdrawn run ends with the event."""
    run = apply(run_in(Place.EXEC), happening(Kind.EXITED, finished_at=AT + 7))
    ended = apply(run, happening(Kind.FINISHED, at=AT + 9))
    assert (ended.finished_at, ended.outcome, ended.slots) == (AT + 7, Outcome.SUCCEEDED, ())
    lost = apply(run_in(Place.FAULT), happening(Kind.GAVE_UP, at=AT + 9))
    assert lost.finished_at == AT + 9
    withdrawn = apply(apply(new_run(), happening(Kind.STOP_REQUESTED, reason="r")), happening(Kind.WITHDRAWN))
    assert (withdrawn.outcome, withdrawn.cause) == (
        Outcome.CANCELLED, {"kind": "by_user", "who": "ada", "reason": "r"},
    )  # fmt: skip


@pytest.mark.parametrize("where", list(Place))
def test_a_run_survives_json(where: Place) -> None:
    """to_dict and from_dict are inverse, wherever the run stands."""
    run = run_in(where, labels={"ä": "b"}, retries=2)
    assert Run.from_dict(run.to_dict()) == run


def test_replay_is_fold() -> None:
    """Replaying a ledger from `submitted` gives the run that the events made."""
    run = new_run(retries=1)
    events = [
        happening(Kind.SUBMITTED, run=run.to_dict()),
        *map(happening, PATHS[Place.EXEC]),
        happening(Kind.LOST),
    ]
    assert replay(events) == run_in(Place.FAULT, retries=1)
    with pytest.raises(IllegalTransition):
        replay([*events, happening(Kind.STARTED)])


def test_evidence_is_only_for_known_kinds() -> None:
    """The events of these tests carry what the real ones carry."""
    assert set(EVIDENCE) < set(Kind)


def no_process(run: Run) -> bool:
    names = ("exit", "pid", "start_ticks", "boot_id", "containment", "shim_pid", "shim_start_ticks")
    return all(getattr(run, name) is None for name in names)
