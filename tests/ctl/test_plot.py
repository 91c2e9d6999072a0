"""The learning curve in the terminal."""

import math
import time
from itertools import pairwise

import pytest

from mosaicctl.plot import finite, plot, smooth, squeeze


def body(text: str) -> list[str]:
    """The drawing's rows without margin and axes."""
    return [line.split("┤")[-1].split("│")[-1] for line in text.splitlines() if "┤" in line or "│" in line]


def test_it_fits_the_columns_and_rows_it_was_given() -> None:
    """No line is wider than asked, and there are the rows, the floor and the scale."""
    text = plot([math.sin(i / 50) for i in range(5000)], columns=60, rows=10)
    assert max(map(len, text.splitlines())) <= 60
    assert len(text.splitlines()) == 12
    assert "5000 episodes" in text


def test_a_rising_curve_rises() -> None:
    """The line begins at the bottom left and ends at the top right, with no hole in it."""
    rows = body(plot(list(range(1000)), columns=50, rows=8))
    assert rows[-1][0] != " "
    assert rows[0].rstrip() == rows[0]
    assert all(any(len(row) > i and row[i] != " " for row in rows) for i in range(max(map(len, rows))))


def test_plain_characters_where_the_terminal_has_no_others() -> None:
    """Without Unicode the drawing is ASCII."""
    assert plot([1, 5, 2, 8], 30, 6, unicode=False, title="return").isascii()


def test_a_jump_is_drawn_as_a_line() -> None:
    """A step from low to high leaves no gap between its ends."""
    rows = body(plot([0.0] * 50 + [100.0] * 50, columns=40, rows=10))
    assert all(row.strip() for row in rows)


@pytest.mark.parametrize("values", [[], [3.0], [2.0] * 500, [0.0, 1e12], [-1e-9, 1e-9]])
def test_odd_curves_are_drawn_too(values: list[float]) -> None:
    """No episode, one episode, a flat line, huge and tiny ranges: nothing fails."""
    text = plot(values, 40, 5)
    assert text.count("\n") == (7 if values else 0)


def test_a_hundred_thousand_episodes_take_no_time() -> None:
    """A long run's curve is drawn at once, and still covers every episode."""
    begun = time.process_time()
    text = plot(smooth([float(i % 7) for i in range(100_000)], 100))
    assert time.process_time() - begun < 2.0
    assert "100000 episodes" in text


def test_squeeze_counts_every_value_once() -> None:
    """Down-sampling keeps the mean: each value is in exactly one point."""
    values = [float(i) for i in range(1001)]
    points = squeeze(values, 13)
    assert len(points) == 13
    assert squeeze([1.0, 2.0], 13) == [1.0, 2.0]
    edges = [i * 1001 // 13 for i in range(14)]
    weights = [b - a for a, b in pairwise(edges)]
    assert sum(p * w for p, w in zip(points, weights, strict=True)) == pytest.approx(sum(values))


def test_smooth_is_the_mean_of_the_last() -> None:
    """The first points are means of what there is."""
    assert smooth([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]


def test_what_is_no_number_is_left_out() -> None:
    """NaN (which the spool keeps as a word), null and booleans are no returns."""
    assert finite([1, "NaN", None, True, float("inf"), 2.5]) == [1.0, 2.5]
