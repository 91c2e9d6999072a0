"""One line for a living run: state, bar, counts, rate, last return, time to go.

Pure: a run object and the time go in, text comes out; `Rate` is the only memory, because the time to go
must follow how fast the run is now and not how long it has been paused.
"""

from mosaicctl.render import clean, colour, paint
from mosaicd.protocol import Json
from mosaicd.protocol.durations import format_duration

BAR_COLUMNS = 20
#: Characters of a name at the beginning of a line.
HEAD_SIZE = 24
#: Metric names that mean "how well it does", best first.
_RETURNS = ("mean_return_100", "episode_return", "return", "episode_reward", "total_reward", "mean_reward")
_BLOCKS = " ▏▎▍▌▋▊▉█"


class Rate:
    """Units a second over the last few seconds, of one counter."""

    WINDOW_S = 8.0

    def __init__(self) -> None:
        self._marks: list[tuple[float, float]] = []

    def add(self, at: float, done: float) -> None:
        """Note that `done` units were done at time `at`; a counter that went back starts anew."""
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((at, done))
        while len(self._marks) > 2 and at - self._marks[0][0] > self.WINDOW_S:
            self._marks.pop(0)

    def per_s(self) -> float | None:
        """Return the rate; None while it cannot be known."""
        if len(self._marks) < 2:
            return None
        (first_at, first), (last_at, last) = self._marks[0], self._marks[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else None


def measure(run: Json) -> tuple[float, float | None, str]:
    """Return (done, total, unit): episodes or steps, whichever has a total; total None where neither has."""
    found = run.get("progress") or {}
    for unit in ("episodes", "steps"):
        if found.get(f"total_{unit}"):
            return float(found.get(unit) or 0), float(found[f"total_{unit}"]), unit
    for unit in ("episodes", "steps"):
        if found.get(unit):
            return float(found[unit]), None, unit
    return 0.0, None, ""


def bar(fraction: float, columns: int = BAR_COLUMNS, unicode: bool = True) -> str:
    """Return a bar of exactly `columns` characters; `fraction` is cut to 0..1."""
    fraction = min(1.0, max(0.0, fraction))
    if not unicode:
        full = int(fraction * columns)
        return "#" * full + "." * (columns - full)
    eighths = int(fraction * columns * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if rest else "")).ljust(columns, "·")


def line(
    run: Json, rate: Rate, width: int, colours: bool = False, unicode: bool = True, name_size: int = 0
) -> str:
    """Return the run's line, at most `width` columns: what matters least is left out first."""
    done, total, unit = measure(run)
    name = clean(run.get("name") or run["run_id"])[:HEAD_SIZE].ljust(name_size)
    state = str(run.get("state"))
    parts = [_counts(done, total, unit), _rate(run), _last_return(run), _to_go(done, total, rate, state)]
    if run.get("want") == "stop":
        parts.insert(0, "stopping")
    elif run.get("want") == "pause" and state != "PAUSE":
        parts.insert(0, "pausing")
    elif state == "INIT":
        parts.insert(0, clean(run.get("reason") or "waiting"))
    shown = [part for part in parts if part]
    drawn = bar(done / total, unicode=unicode) if total else ""
    while True:
        text = "  ".join(part for part in (name, f"{state:<5}", drawn, *shown) if part)
        if len(text) <= width or not (shown or drawn):
            break
        if shown:
            shown.pop()
        else:
            drawn = ""
    text = text[:width]
    # The state is behind the name, which may have the same word in it.
    at = len(name) + 2
    return text[:at] + text[at:].replace(state, paint(state, colour(run), colours), 1) if colours else text


def _counts(done: float, total: float | None, unit: str) -> str:
    if total:
        return f"{int(100 * done / total)}%  {int(done)}/{int(total)} {unit}"
    return f"{int(done)} {unit}" if unit else ""


def _rate(run: Json) -> str:
    per_s = (run.get("progress") or {}).get("steps_per_s")
    if not per_s or run.get("state") != "EXEC":
        return ""
    return f"{per_s:.0f} steps/s" if per_s >= 10 else f"{per_s:.1f} steps/s"


def _last_return(run: Json) -> str:
    metrics = run.get("metrics") or {}
    for name in _RETURNS:
        if isinstance(metrics.get(name), int | float):
            return f"return {metrics[name]:.1f}"
    return ""


def _to_go(done: float, total: float | None, rate: Rate, state: str) -> str:
    per_s = rate.per_s()
    if not total or not per_s or per_s <= 0 or state != "EXEC" or done >= total:
        return ""
    return f"{format_duration((total - done) / per_s)} to go"
