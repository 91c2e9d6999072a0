"""The progress line of a live run."""

from typing import Any

import pytest

from mosaicctl.progressbar import Rate, bar, measure, progress_line
from tests.ctl.scripted import a_run


def progress(**counts: object) -> dict[str, object]:
    return {**a_run()["progress"], **counts}


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("fraction", [-1, 0, 0.001, 0.37, 0.999, 1, 7])
def test_bar_has_the_same_length_for_every_fraction(fraction: float, unicode: bool) -> None:
    """The bar has the same length for every fraction, so that a redrawn line does not move."""
    assert len(bar(fraction, 20, unicode)) == 20


def test_bar_is_full_only_at_100_percent() -> None:
    """The bar is full at 100 % and not below."""
    assert bar(1, 10, False) == "#" * 10
    assert bar(0.999, 10, False) == "#" * 9 + "."
    assert bar(0, 10, False) == "." * 10


def test_unit_with_a_total_is_preferred() -> None:
    """A unit with a total is preferred; otherwise episodes are preferred to steps."""
    both = {"steps": 5000, "episodes": 10, "total_steps": 10000, "total_episodes": None}
    assert measure(a_run(progress=progress(**both))) == (5000, 10000, "steps")
    assert measure(a_run(progress=progress(steps=50, episodes=3))) == (3, None, "episodes")
    assert measure(a_run()) == (0, None, "")


def test_line_has_all_parts() -> None:
    """The line has the name, state, bar, counts, rate, return and remaining time."""
    rate = Rate()
    rate.add(0.0, 400)
    rate.add(1.0, 450)
    run = a_run(
        progress=progress(episodes=450, total_episodes=1000, steps_per_s=1234.56),
        metrics={"episode_return": -12.34},
    )
    text = progress_line(run, rate, 200, unicode=False)
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
def test_line_fits_the_terminal(width: int) -> None:
    """The line fits the width of the terminal, and the state is dropped last."""
    run = a_run(
        progress=progress(episodes=450, total_episodes=1000, steps_per_s=12.0), metrics={"episode_return": 1}
    )
    assert len(progress_line(run, Rate(), width)) <= width
    assert width < 20 or "EXEC" in progress_line(run, Rate(), width)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"want": "stop"}, "stopping"),
        ({"want": "pause"}, "pausing"),
        ({"state": "INIT", "reason": "needs 1 CPU, 0 of 1 free"}, "needs 1 CPU, 0 of 1 free"),
        ({"state": "INIT"}, "waiting"),
    ],
)
def test_line_shows_open_requests_and_reasons(changes: dict[str, Any], words: str) -> None:
    """The line shows a request that has not been carried out, or the reason of a wait."""
    assert words in progress_line(a_run(**changes), Rate(), 120)


def test_rate_covers_the_last_seconds_and_restarts_with_an_attempt() -> None:
    """The rate covers the last seconds; after a retry, which resets the counter, it begins again."""
    rate = Rate()
    for second in range(30):
        rate.add(float(second), 100.0 * second if second < 10 else 1000.0 + 10 * (second - 10))
    assert rate.per_s() == pytest.approx(10)
    rate.add(30.0, 5.0)
    assert rate.per_s() is None
