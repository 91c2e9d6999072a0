"""The words of a run's state after a request."""

import pytest

from mosaicctl.acting import status


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"state": "INIT", "want": "run", "held": True}, "held (INIT)"),
        ({"state": "INIT", "want": "stop", "held": True}, "stopping (INIT)"),
        ({"state": "EXEC", "want": "stop"}, "stopping (EXEC)"),
        ({"state": "TERM", "want": "stop", "outcome": "cancelled"}, "ended, cancelled"),
    ],
)
def test_a_stop_shows_before_a_hold(run: dict[str, object], expected: str) -> None:
    """A held run that was asked to stop is stopping; otherwise the stop would look ignored."""
    assert status(run) == expected
