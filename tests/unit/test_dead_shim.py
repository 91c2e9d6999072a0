"""What the files of an attempt mean whose shim is dead: every state, every combination of files."""

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
    for one in LIFE[state]:
        run = apply(run, one)
    return run


def kinds(run: Run, files: AttemptFiles) -> list[Kind]:
    events = events_of(run, files, HERE, AT + 50)
    for one in events:
        run = apply(run, one)  # each of them is legal, in this order
    assert events_of(run, files, HERE, AT + 50) == [] or run.state is State.FAULT, (
        "asked twice, nothing is new"
    )
    return [one.kind for one in events]


@pytest.mark.parametrize("state", LIFE)
def test_an_exit_record_is_the_end(state: State) -> None:
    """Whatever the row says, exit.json ends the attempt; nothing is lost."""
    found = kinds(run_in(state), AttemptFiles(1, LAUNCH, STARTED, EXIT))
    assert found[-1] is Kind.EXITED and Kind.LOST not in found


@pytest.mark.parametrize("state", LIFE)
@pytest.mark.parametrize("started", [None, STARTED])
def test_without_an_exit_record_the_shim_is_lost(state: State, started: Started | None) -> None:
    """No exit.json: the run is lost, unless it is in FAULT, where only the teardown shim is dead.  Of a run
    that has registered the worker is still recorded."""
    expected = [] if state is State.FAULT else [Kind.LOST]
    if state is State.RDY and started:
        expected.insert(0, Kind.SPAWNED)
    assert kinds(run_in(state), AttemptFiles(1, LAUNCH, started)) == expected


@pytest.mark.parametrize("state", LIFE)
def test_a_launch_is_owed_only_where_nothing_has_begun(state: State) -> None:
    """HSHK without launch.json and exit.json: the same order is sent again, and nothing is recorded."""
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
def test_another_boot_is_the_cause(files: AttemptFiles, kind: CauseKind) -> None:
    """started.json says on which boot the worker ran, else launch.json; no word of it: the shim was lost."""
    [lost] = events_of(run_in(State.HSHK), files, HERE, AT)
    assert lost.data == {"kind": kind}


def test_another_attempt_says_nothing() -> None:
    """Files of an attempt that the run has left, or has not come to, and those of a run that waits."""
    run = run_in(State.EXEC)
    assert events_of(run, AttemptFiles(2, LAUNCH, STARTED), HERE, AT) == []
    assert events_of(new_run(), AttemptFiles(0), HERE, AT) == []


def test_an_exit_that_is_known_adds_nothing() -> None:
    """The shim has told its exit before it died: its files are not read a second time."""
    run = apply(run_in(State.EXEC), event(Kind.STOP_REQUESTED))
    files = AttemptFiles(1, LAUNCH, STARTED, EXIT.changed(stop=LIMIT))
    first = kinds(run, files)
    assert first == [Kind.LIMIT_REACHED, Kind.EXITED]
