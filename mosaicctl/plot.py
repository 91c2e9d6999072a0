"""A learning curve in the terminal: any number of values, drawn with braille dots or plain characters.

Neighbouring values are averaged first, so that there is one point for each column of dots: a hundred thousand
episodes cost one pass, and a single lucky episode does not dominate the curve.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

#: Braille: two dots across and four down in a character, bit by (column, row).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800


def finite(values: Sequence[object]) -> list[float]:
    """Return the numbers among `values`, without NaN, infinities and booleans."""
    return [
        float(v)
        for v in values
        if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    ]


def squeeze(values: Sequence[float], points: int) -> list[float]:
    """Return at most `points` means of neighbouring values, in order; every value counts in exactly one."""
    count = len(values)
    if count <= points:
        return list(values)
    edges = [i * count // points for i in range(points + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and the up to `window` - 1 before it."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def plot(
    values: Sequence[float], columns: int = 72, rows: int = 14, unicode: bool = True, title: str = "",
    unit: str = "episodes",
) -> str:  # fmt: skip
    """Return the curve of `values` with its axes, at most `columns` wide and `rows` + 2 (or 3) lines high."""
    if not values:
        return ""
    across, down = (2, 4) if unicode else (1, 1)
    low, high = _bounds(squeeze(values, 4 * columns))
    middle = high - (high - low) * (rows // 2) / max(1, rows - 1)
    ticks = {0: _tick_text(high), rows // 2: _tick_text(middle), rows - 1: _tick_text(low)}
    margin = max(len(tick) for tick in ticks.values())
    width = max(8, columns - margin - 2)
    points = squeeze(values, width * across)
    dots = _trace(points, width * across, rows * down, low, high)
    axis, corner, floor = ("┤│", "└", "─") if unicode else ("+|", "+", "-")
    lines = [title.rjust(margin + 2 + (width + len(title)) // 2)] if title else []
    for row in range(rows):
        text = _braille(dots, row, width) if unicode else _ascii(dots, row, width)
        lines.append(f"{ticks.get(row, '').rjust(margin)} {axis[0 if row in ticks else 1]}{text}".rstrip())
    lines.append(f"{' ' * margin} {corner}{floor * width}")
    last = f"{len(values)} {unit}"
    lines.append(f"{' ' * margin}  1{last.rjust(width - 1)}")
    return "\n".join(lines) + "\n"


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and highest value; if both are (nearly) equal, 1 below and 1 above."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high), abs(low)):
        return low - 1.0, high + 1.0
    return low, high


def _trace(points: Sequence[float], width: int, height: int, low: float, high: float) -> set[tuple[int, int]]:
    """Return the (x, y) dots of a line through `points` without gaps; y counts from the top."""
    dots: set[tuple[int, int]] = set()
    before: int | None = None
    for x in range(width):
        position = x * (len(points) - 1) / (width - 1) if width > 1 else 0.0
        left = int(position)
        right = min(left + 1, len(points) - 1)
        value = points[left] + (points[right] - points[left]) * (position - left)
        y = round((high - value) / (high - low) * (height - 1))
        y = min(height - 1, max(0, y))
        first = y if before is None else before + (1 if y > before else -1 if y < before else 0)
        dots.update((x, between) for between in range(min(first, y), max(first, y) + 1))
        before = y
    return dots


def _braille(dots: set[tuple[int, int]], row: int, width: int) -> str:
    """Return a row of braille characters, each with 2 x 4 dots."""
    cells = []
    for column in range(width):
        bits = 0
        for dx in (0, 1):
            for dy in range(4):
                if (2 * column + dx, 4 * row + dy) in dots:
                    bits |= _DOTS[dx][dy]
        cells.append(chr(_BRAILLE + bits) if bits else " ")
    return "".join(cells)


def _ascii(dots: set[tuple[int, int]], row: int, width: int) -> str:
    """Return a row of the plot in ASCII, with `*` for each dot."""
    return "".join("*" if (column, row) in dots else " " for column in range(width))


def _tick_text(value: float) -> str:
    """Return an axis label of few characters."""
    if value == 0:
        return "0"
    if abs(value) >= 10000 or abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}"
