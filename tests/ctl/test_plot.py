"""The plot of a learning curve in the terminal."""

import math
import time
from itertools import pairwise

import pytest

from mosaicctl.plot import finite, plot, smooth, squeeze


def body(text: str) -> list[str]:
    """Return the rows of the plot without margin and axes."""
    return [line.split("┤")[-1].split("│")[-1] for line in text.splitlines() if "┤" in line or "│" in line]


def test_plot_fits_the_given_columns_and_rows() -> None:
    """No line is wider than `columns`; the plot has `rows` rows, the axis and the scale."""
    text = plot([math.sin(i / 50) for i in range(5000)], columns=60, rows=10)
    assert max(map(len, text.splitlines())) <= 60
    assert len(text.splitlines()) == 12
    assert "5000 episodes" in text


def test_rising_curve_is_drawn_without_a_gap() -> None:
    """The line of a rising curve goes from bottom left to top right without a gap."""
    rows = body(plot(list(range(1000)), columns=50, rows=8))
    assert rows[-1][0] != " "
    assert rows[0].rstrip() == rows[0]
    assert all(any(len(row) > i and row[i] != " " for row in rows) for i in range(max(map(len, rows))))


def test_plot_without_unicode_is_ascii() -> None:
    """Without Unicode the plot has only ASCII characters."""
    assert plot([1, 5, 2, 8], 30, 6, unicode=False, title="return").isascii()


def test_jump_is_drawn_as_a_line() -> None:
    """A step from low to high leaves no gap between its ends."""
    rows = body(plot([0.0] * 50 + [100.0] * 50, columns=40, rows=10))
    assert all(row.strip() for row in rows)


@pytest.mark.parametrize("values", [[], [3.0], [2.0] * 500, [0.0, 1e12], [-1e-9, 1e-9]])
def test_unusual_curves_are_drawn(values: list[float]) -> None:
    """No episode, one episode, a flat line, huge and tiny ranges are plotted without an error."""
    text = plot(values, 40, 5)
    assert text.count("\n") == (7 if values else 0)


def test_hundred_thousand_episodes_are_drawn_fast() -> None:
    """The curve of 100,000 episodes is plotted in under 2 s and covers every episode."""
    began = time.process_time()
    text = plot(smooth([float(i % 7) for i in range(100_000)], 100))
    assert time.process_time() - began < 2.0
    assert "100000 episodes" in text


def test_squeeze_uses_every_value_once() -> None:
    """Down-sampling keeps the mean: each value is in exactly one point."""
    values = [float(i) for i in range(1001)]
    points = squeeze(values, 13)
    assert len(points) == 13
    assert squeeze([1.0, 2.0], 13) == [1.0, 2.0]
    edges = [i * 1001 // 13 for i in range(14)]
    weights = [b - a for a, b in pairwise(edges)]
    assert sum(p * w for p, w in zip(points, weights, strict=True)) == pytest.approx(sum(values))


def test_smooth_is_a_moving_mean() -> None:
    """Each point is the mean of the last values; the first points use the values so far."""
    assert smooth([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]


def test_values_that_are_no_numbers_are_left_out() -> None:
    """NaN (a string in the spool), null and booleans are not plotted."""
    assert finite([1, "NaN", None, True, float("inf"), 2.5]) == [1.0, 2.5]
