"""The printed table: one line for each figure, printed as soon as it is measured."""

from benchmarks.rows import Row

_LINE = "{what:<41} {value:>10} {unit:<7} {spread:>17} {plain:>10} {ratio:>8} {target:>9} {word}"


def head(facts: dict[str, str | int | float]) -> str:
    """Return the description of the machine and the names of the columns."""
    description = ", ".join(f"{name} {value}" for name, value in facts.items())
    names = _LINE.format(
        what="", value="mosaicd", unit="", spread="(min - max)", plain="plain", ratio="ratio",
        target="target", word="",
    )  # fmt: skip
    return f"{description}\n\n{names.rstrip()}"


def line(row: Row) -> str:
    """Return the line of one figure."""
    spread = "" if row.low is None or row.high is None else f"{number(row.low)} - {number(row.high)}"
    word = {True: "reached", False: "MISSED", None: ""}[row.is_reached]
    text = _LINE.format(
        what=row.what, value=number(row.value), unit=row.unit, spread=spread,
        plain="" if row.plain is None else number(row.plain), ratio=_ratio(row.ratio),
        target=str(row.target or ""), word=word,
    )  # fmt: skip
    about = "; ".join(part for part in (row.plain_what and f"plain: {row.plain_what}", row.note) if part)
    return f"{text:<118} {about}".rstrip() if about else text.rstrip()


def number(value: float) -> str:
    """Return a number with three significant digits; a large one as an integer, a tiny one with one digit."""
    if 0 < abs(value) < 0.1:
        return f"{value:.1g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{number(ratio)}x"
