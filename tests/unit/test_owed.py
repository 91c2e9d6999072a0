"""The action that the daemon owes a run, by hand for every place, want and exit."""

from typing import Any

import pytest

from mosaicd.core.fsm import Kind, Place, apply, owed
from tests.unit.lifecycle import make_event, run_in

REQUEST_OF = {"run": Kind.RESUME_REQUESTED, "pause": Kind.PAUSE_REQUESTED, "stop": Kind.STOP_REQUESTED}

#: place, want -> owed action while no exit is known
LIVING = """
INIT      run    queue
INIT      stop   withdraw
HSHK      run    launch
HSHK      pause  launch
HSHK      stop   launch
RDY       run    -
RDY       pause  -
RDY       stop   stop
EXEC      run    -
EXEC      pause  pause
EXEC      stop   stop
PAUSE     run    resume
PAUSE     pause  -
PAUSE     stop   stop
RELEASED  run    queue
RELEASED  pause  -
RELEASED  stop   withdraw
FAULT     stop   empty_tree
"""


@pytest.mark.parametrize("line", LIVING.strip().splitlines())
def test_owed_action_without_an_exit(line: str) -> None:
    """Place and want decide; a pause of a run in RDY is not owed before the run is in EXEC."""
    where, want, action = line.split()
    run = run_in(Place(where))
    if run.want != want:
        run = apply(run, make_event(REQUEST_OF[want]))
    assert run.want == want
    assert str(owed(run) or "-") == action
    assert owed(run) is owed(run)


GOOD = {"exit_code": 0}
BAD = {"exit_code": 1}


@pytest.mark.parametrize("where", [Place.HSHK, Place.RDY, Place.EXEC, Place.PAUSE])
@pytest.mark.parametrize(
    ("exit", "want", "action"),
    [
        (GOOD, "run", "empty_tree"), (GOOD, "stop", "empty_tree"), (BAD, "stop", "empty_tree"),
        (BAD, "run", "break"), (BAD, "pause", "break"), ({"signal": 11}, "run", "break"),
        ({"signal": 15, "stop": {"kind": "time_limit"}}, "run", "empty_tree"),
        ({"signal": 9, "stop": {"kind": "heartbeat_lost"}}, "run", "break"),
        ({"exit_code": None, "fault": "spawn_failed"}, "run", "break"),
    ],
)  # fmt: skip
def test_owed_action_after_an_exit(where: Place, exit: dict[str, Any], want: str, action: str) -> None:
    """After a clean or requested end the process tree is emptied; a failure becomes a fault first."""
    run = run_in(where)
    if run.want != want:
        run = apply(run, make_event(REQUEST_OF[want]))
    run = apply(run, make_event(Kind.EXITED, **{"exit_code": None, **exit}))
    assert owed(run) == action


def test_no_action_is_owed_to_an_ended_run() -> None:
    """A run in TERM is owed no action."""
    assert owed(run_in(Place.TERM)) is None
