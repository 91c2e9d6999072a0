"""One figure of a benchmark: its value, its reference and its target."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for the value, or for its ratio to the plain way: at most, unless `at_least`."""

    limit: float
    at_least: bool = False
    of_ratio: bool = False

    def is_reached(self, value: float, ratio: float | None) -> bool:
        """Return whether the value, or its ratio, meets the limit."""
        compared = ratio if self.of_ratio else value
        if compared is None:
            return False
        return compared >= self.limit if self.at_least else compared <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.limit:g}{'x' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.  `low` and `high` are the range of its rounds, or the spread of its samples."""

    measure: str
    what: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    plain: float | None = None
    plain_what: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Return the value divided by that of the plain way; None without one."""
        return self.value / self.plain if self.plain else None

    @property
    def is_reached(self) -> bool | None:
        """Return whether the target was reached; None without a target."""
        return self.target.is_reached(self.value, self.ratio) if self.target else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as a JSON object, with its ratio and its verdict."""
        target = str(self.target) if self.target else None
        return {**asdict(self), "target": target, "ratio": self.ratio, "reached": self.is_reached}


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; `share` within 0..1."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def percentiles(
    measure: str, what: str, ours: Sequence[float], plain: Sequence[float], plain_what: str, target: Target
) -> list[Row]:
    """Return the rows p50 (with the target) and p95 of samples in seconds, as milliseconds."""
    ours_ms, plain_ms = [1000 * s for s in ours], [1000 * s for s in plain]
    spread = min(ours_ms), max(ours_ms)
    note = f"n = {len(ours_ms)}"
    return [
        Row(
            measure, f"{what}, p{share * 100:.0f}", "ms", percentile(ours_ms, share), *spread,
            percentile(plain_ms, share), plain_what, target if share == 0.5 else None, note,
        )
        for share in (0.5, 0.95)
    ]  # fmt: skip


def of_rounds(
    measure: str, what: str, unit: str, ours: Sequence[float], plain: Sequence[float], plain_what: str,
    target: Target | None = None, note: str = "",
) -> Row:  # fmt: skip
    """Return the row with the median of some rounds, the lowest and the highest."""
    value, beside = median(ours), median(plain)
    return Row(measure, what, unit, value, min(ours), max(ours), beside, plain_what, target, note)
