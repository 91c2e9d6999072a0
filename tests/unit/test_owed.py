"""What the daemon owes a run: a function of the run alone, by hand for every place, wish and exit."""

from typing import Any

import pytest

from mosaicd.core.fsm import Kind, Place, apply, owed
from tests.unit.lives import happening, run_in

WISH = {"run": Kind.RESUME_REQUESTED, "pause": Kind.PAUSE_REQUESTED, "stop": Kind.STOP_REQUESTED}

#: place, want -> what is owed while no exit is known
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
def test_while_it_lives(line: str) -> None:
    """A waiting run waits or goes; a living one is made to do what is wanted; RDY remembers a pause."""
    where, want, action = line.split()
    run = run_in(Place(where))
    if run.want != want:
        run = apply(run, happening(WISH[want]))
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
def test_after_the_exit(where: Place, exit: dict[str, Any], want: str, action: str) -> None:
    """After a clean or requested end the process tree is emptied; a failure is a fault first."""
    run = run_in(where)
    if run.want != want:
        run = apply(run, happening(WISH[want]))
    run = apply(run, happening(Kind.EXITED, **{"exit_code": None, **exit}))
    assert owed(run) == action


def test_nothing_is_owed_to_what_has_ended() -> None:
    """TERM is final."""
    assert owed(run_in(Place.TERM)) is None
