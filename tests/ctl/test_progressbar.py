"""The living line of a run."""

from typing import Any

import pytest

from mosaicctl.progressbar import Rate, bar, line, measure
from tests.ctl.scripted import a_run


def progress(**counts: object) -> dict[str, object]:
    return {**a_run()["progress"], **counts}


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("fraction", [-1, 0, 0.001, 0.37, 0.999, 1, 7])
def test_a_bar_has_always_the_same_length(fraction: float, unicode: bool) -> None:
    """A line that is redrawn in place must not jump."""
    assert len(bar(fraction, 20, unicode)) == 20


def test_a_bar_is_full_at_the_end_and_only_then() -> None:
    """100% is full; a fraction below is not."""
    assert bar(1, 10, False) == "#" * 10
    assert bar(0.999, 10, False) == "#" * 9 + "."
    assert bar(0, 10, False) == "." * 10


def test_episodes_go_before_steps_and_a_total_before_both() -> None:
    """The unit with a total is the one to show."""
    both = {"steps": 5000, "episodes": 10, "total_steps": 10000, "total_episodes": None}
    assert measure(a_run(progress=progress(**both))) == (5000, 10000, "steps")
    assert measure(a_run(progress=progress(steps=50, episodes=3))) == (3, None, "episodes")
    assert measure(a_run()) == (0, None, "")


def test_the_line_says_it_all() -> None:
    """State, bar, counts, rate, last return, time to go."""
    rate = Rate()
    rate.add(0.0, 400)
    rate.add(1.0, 450)
    run = a_run(
        progress=progress(episodes=450, total_episodes=1000, steps_per_s=1234.56),
        metrics={"episode_return": -12.34},
    )
    text = line(run, rate, 200, unicode=False)
    for part in (
        "run-1",
        "EXEC",
        "45%",
        "450/1000 episodes",
        "1235 steps/s",
        "return -12.3",
        "11s to go",
        "#####",
    ):
        assert part in text


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 120])
def test_the_line_never_wraps(width: int) -> None:
    """However narrow the terminal, the line fits, and the state is the last to go."""
    run = a_run(
        progress=progress(episodes=450, total_episodes=1000, steps_per_s=12.0), metrics={"episode_return": 1}
    )
    assert len(line(run, Rate(), width)) <= width
    assert width < 20 or "EXEC" in line(run, Rate(), width)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"want": "stop"}, "stopping"),
        ({"want": "pause"}, "pausing"),
        ({"state": "INIT", "reason": "needs 1 CPU, 0 of 1 free"}, "needs 1 CPU, 0 of 1 free"),
        ({"state": "INIT"}, "waiting"),
    ],
)
def test_the_line_says_what_is_wanted(changes: dict[str, Any], words: str) -> None:
    """What was asked for and has not happened is told."""
    assert words in line(a_run(**changes), Rate(), 120)


def test_rate_forgets_a_pause_and_starts_anew_with_an_attempt() -> None:
    """The rate is of the last seconds; a counter that went back (a retry) does not make it negative."""
    rate = Rate()
    for second in range(30):
        rate.add(float(second), 100.0 * second if second < 10 else 1000.0 + 10 * (second - 10))
    assert rate.per_s() == pytest.approx(10)
    rate.add(30.0, 5.0)
    assert rate.per_s() is None
