"""The progress line of a live run: state, bar, counts, rate, return, remaining time.

The line is computed from the run object and a `Rate`, which keeps the last seconds of progress: the remaining
time depends on the current speed of the run, and a pause does not change it.
"""

from mosaicctl.render import clean, colour, paint
from mosaicd.protocol import Json
from mosaicd.protocol.durations import format_duration

BAR_COLUMNS = 20
#: The longest name at the beginning of a line, in characters.
NAME_SIZE = 24
#: Metrics for the returns of episodes (a mean or the last one); the first one that a run has is shown.
_RETURNS = ("mean_return_100", "episode_return", "return", "episode_reward", "total_reward", "mean_reward")
_BLOCKS = " ▏▎▍▌▋▊▉█"


class Rate:
    """The speed of one counter over the last seconds, in units per second."""

    WINDOW_S = 8.0

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []

    def add(self, at: float, done: float) -> None:
        """Record the counter value `done` at time `at` (seconds); a lower value than before starts again."""
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((at, done))
        while len(self._samples) > 2 and at - self._samples[0][0] > self.WINDOW_S:
            self._samples.pop(0)

    def per_s(self) -> float | None:
        """Return the rate in units per second; None before there are two samples."""
        if len(self._samples) < 2:
            return None
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else None


def measure(run: Json) -> tuple[float, float | None, str]:
    """Return (done, total, unit) in episodes or steps: the unit that has a total, else total is None."""
    counters = run.get("progress") or {}
    for unit in ("episodes", "steps"):
        if counters.get(f"total_{unit}"):
            return float(counters.get(unit) or 0), float(counters[f"total_{unit}"]), unit
    for unit in ("episodes", "steps"):
        if counters.get(unit):
            return float(counters[unit]), None, unit
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


def progress_line(
    run: Json, rate: Rate, width: int, colours: bool = False, unicode: bool = True, name_size: int = 0
) -> str:
    """Return the progress line of a run; parts that do not fit `width` are dropped, the last one first."""
    done, total, unit = measure(run)
    name = clean(run.get("name") or run["run_id"])[:NAME_SIZE].ljust(name_size)
    state = str(run.get("state"))
    parts = [
        _counts_text(done, total, unit),
        _rate_text(run),
        _return_text(run),
        _time_left(done, total, rate, state),
    ]
    if run.get("want") == "stop":
        parts.insert(0, "stopping")
    elif run.get("want") == "pause" and state != "PAUSE":
        parts.insert(0, "pausing")
    elif state == "INIT":
        parts.insert(0, clean(run.get("reason") or "waiting"))
    shown = [part for part in parts if part]
    bar_text = bar(done / total, unicode=unicode) if total else ""
    while True:
        text = "  ".join(part for part in (name, f"{state:<5}", bar_text, *shown) if part)
        if len(text) <= width or not (shown or bar_text):
            break
        if shown:
            shown.pop()
        else:
            bar_text = ""
    text = text[:width]
    # Colour only the state: the name before it may contain the same word.
    at = len(name) + 2
    return text[:at] + text[at:].replace(state, paint(state, colour(run), colours), 1) if colours else text


def _counts_text(done: float, total: float | None, unit: str) -> str:
    if total:
        return f"{int(100 * done / total)}%  {int(done)}/{int(total)} {unit}"
    return f"{int(done)} {unit}" if unit else ""


def _rate_text(run: Json) -> str:
    per_s = (run.get("progress") or {}).get("steps_per_s")
    if not per_s or run.get("state") != "EXEC":
        return ""
    return f"{per_s:.0f} steps/s" if per_s >= 10 else f"{per_s:.1f} steps/s"


def _return_text(run: Json) -> str:
    """Return `return 12.3`, the return of the episodes (a mean or the last one); empty without one."""
    metrics = run.get("metrics") or {}
    for name in _RETURNS:
        if isinstance(metrics.get(name), int | float):
            return f"return {metrics[name]:.1f}"
    return ""


def _time_left(done: float, total: float | None, rate: Rate, state: str) -> str:
    """Return `12m to go`; an empty text if the remaining time is unknown."""
    per_s = rate.per_s()
    if not total or not per_s or per_s <= 0 or state != "EXEC" or done >= total:
        return ""
    return f"{format_duration((total - done) / per_s)} to go"
