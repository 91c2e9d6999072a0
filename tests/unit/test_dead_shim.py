"""The events that follow from the files of a dead shim's attempt, for every state and set of files."""

import pytest

from mosaicd.core.dead_shim import events_of, is_launch_owed
from mosaicd.core.fsm import Kind, apply
from mosaicd.core.run import Run
from mosaicd.protocol.records.attempt import Exit, Launch, Started, Stop
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.records.untrusted import read
from mosaicd.protocol.states import CauseKind, State
from tests.store.building import AT, EXIT_0, dispatched, event, new_run, registered, spawned

HERE, BEFORE = "boot-1", "boot-0"
LAUNCH = Launch(nonce="1" * 32, boot_id=HERE)
STARTED = Started(pid=4712, start_ticks=100, boot_id=HERE, at=AT + 3)
LIMIT = Stop(kind="time_limit", who="shim")
EXIT = Exit.from_json(EXIT_0)
LIFE = {
    State.HSHK: (dispatched(0),),
    State.RDY: (dispatched(0), registered()),
    State.EXEC: (dispatched(0), registered(), spawned(), event(Kind.STARTED)),
    State.PAUSE: (dispatched(0), registered(), spawned(), event(Kind.STARTED), event(Kind.PAUSED)),
    State.FAULT: (dispatched(0), event(Kind.DEADLINE_MISSED, kind="handshake_timeout")),
}


def run_in(state: State) -> Run:
    run = new_run()
    for happened in LIFE[state]:
        run = apply(run, happened)
    return run


def kinds(run: Run, files: AttemptFiles) -> list[Kind]:
    events = events_of(run, files, HERE, AT + 50)
    for happened in events:
        run = apply(run, happened)  # each of them is legal, in this order
    assert events_of(run, files, HERE, AT + 50) == [] or run.state is State.FAULT, (
        "a second call returns no new event"
    )
    return [happened.kind for happened in events]


@pytest.mark.parametrize("state", LIFE)
def test_exit_json_ends_the_attempt_in_every_state(state: State) -> None:
    """exit.json ends the attempt in every state, and the run is not lost."""
    recorded = kinds(run_in(state), AttemptFiles(1, LAUNCH, STARTED, EXIT))
    assert recorded[-1] is Kind.EXITED and Kind.LOST not in recorded


@pytest.mark.parametrize("state", LIFE)
@pytest.mark.parametrize("started", [None, STARTED])
def test_without_an_exit_record_the_shim_is_lost(state: State, started: Started | None) -> None:
    """Without exit.json the run is lost.  In FAULT only a teardown shim is dead, and no event follows.

    For a run in RDY, the worker in started.json is recorded first.
    """
    expected = [] if state is State.FAULT else [Kind.LOST]
    if state is State.RDY and started:
        expected.insert(0, Kind.SPAWNED)
    assert kinds(run_in(state), AttemptFiles(1, LAUNCH, started)) == expected


@pytest.mark.parametrize("state", LIFE)
def test_a_launch_is_owed_only_in_hshk_without_files(state: State) -> None:
    """In HSHK without launch.json and exit.json the order is sent again, and no event is recorded."""
    run = run_in(state)
    assert is_launch_owed(run, AttemptFiles(1)) == (state is State.HSHK)
    assert not is_launch_owed(run, AttemptFiles(1, launch=Launch()))
    assert not is_launch_owed(run, AttemptFiles(1, exit=Exit()))
    assert (events_of(run, AttemptFiles(1), HERE, AT) == []) == (state in (State.HSHK, State.FAULT))


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (AttemptFiles(1, LAUNCH, STARTED.changed(boot_id=BEFORE)), CauseKind.REBOOTED),
        (AttemptFiles(1, LAUNCH.changed(boot_id=BEFORE)), CauseKind.REBOOTED),
        (AttemptFiles(1, LAUNCH, STARTED), CauseKind.SHIM_LOST),
        (AttemptFiles(1, Launch(), Started()), CauseKind.SHIM_LOST),
        (AttemptFiles(1, LAUNCH.changed(boot_id=BEFORE), Started()), CauseKind.REBOOTED),
        (AttemptFiles(1, launch=read(Launch, {"boot_id": ["x"]})), CauseKind.SHIM_LOST),
    ],
)
def test_files_of_an_earlier_boot_make_the_cause_rebooted(files: AttemptFiles, kind: CauseKind) -> None:
    """The boot id in started.json counts, then that in launch.json; without one the cause is shim_lost."""
    [lost] = events_of(run_in(State.HSHK), files, HERE, AT)
    assert lost.data == {"kind": kind}


def test_files_of_another_attempt_are_ignored() -> None:
    """Only files of the current attempt count; a waiting run has none."""
    run = run_in(State.EXEC)
    assert events_of(run, AttemptFiles(2, LAUNCH, STARTED), HERE, AT) == []
    assert events_of(new_run(), AttemptFiles(0), HERE, AT) == []


def test_exit_json_is_ignored_if_the_exit_is_known() -> None:
    """If the shim reported the exit before it died, its files add no event."""
    run = apply(run_in(State.EXEC), event(Kind.STOP_REQUESTED))
    files = AttemptFiles(1, LAUNCH, STARTED, EXIT.changed(stop=LIMIT))
    first = kinds(run, files)
    assert first == [Kind.LIMIT_REACHED, Kind.EXITED]
