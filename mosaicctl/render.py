"""Runs as text: a table, JSON or ids.

Output to a terminal has colour and is cut to its width; output into a pipe is plain and complete.  Names and
reasons come from other users, so all text goes through `clean`: control characters in a name must not reach
the terminal.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from mosaicctl.left import left_text
from mosaicd.protocol import Json

_STATE_COLOURS = {"INIT": "36", "HSHK": "36", "RDY": "36", "EXEC": "32", "PAUSE": "33", "FAULT": "31"}
_OUTCOME_COLOURS = {
    "succeeded": "32",
    "failed": "31",
    "timeout": "31",
    "interrupted": "31",
    "cancelled": "33",
}
_STOP_TEXTS = {
    "by_user": "stopped",
    "time_limit": "time limit reached",
    "step_limit": "step limit reached",
    "preempted": "preempted",
}
#: Cause of the end -> the text before the length of the liveness limit.
_LIVENESS_TEXTS = {
    "handshake_timeout": "no shim registered for",
    "start_timeout": "no sign of life for",
    "heartbeat_lost": "no output for",
    "stuck": "no step for",
}
_WANT_TEXTS = {"stop": "stopping", "pause": "pausing", "run": "resuming"}


def has_colour(stream: TextIO) -> bool:
    """Return whether to use colour: `stream` is a terminal, $NO_COLOR is not set, and $TERM is not `dumb`."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, on: bool) -> str:
    """Return `text` in the SGR colour `colour` if `on` is true, else unchanged."""
    return f"\x1b[{colour}m{text}\x1b[0m" if on and colour else text


def clean(value: object) -> str:
    """Return one line of printable text: control characters (also escapes) become `?`."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def width(default: int = 100) -> int:
    """Return the terminal's columns."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or default
    except (OSError, ValueError):
        return default


def columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], colour_of: Any = None, stream: TextIO | None = None
) -> str:
    """Return aligned columns under `header`; lines are cut to the width only on a terminal.

    `colour_of(row_index, column_index)` gives a cell's colour or None.
    """
    stream = stream or sys.stdout
    on, limit = has_colour(stream), width() if stream.isatty() else None
    table = [list(header), *([clean(cell) for cell in row] for row in rows)]
    sizes = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = []
    for number, row in enumerate(table):
        cells, used = [], 0
        for i, cell in enumerate(row):
            last = i == len(row) - 1
            room = None if limit is None else max(0, limit - used)
            text = cell if last else cell.ljust(sizes[i])
            if room is not None and len(text) > room:
                text = text[: max(0, room - 1)] + "…" if room else ""
            used += len(text) + 2
            colour = "1" if number == 0 else colour_of(number - 1, i) if colour_of else None
            cells.append(paint(text, colour, on))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def ago(at: float | None, until: float | None = None) -> str:
    """Return the time from `at` to `until` (default: now) in short form; `-` if `at` is None."""
    from mosaicd.protocol.durations import format_duration

    if at is None:
        return "-"
    return format_duration(max(0.0, (time.time() if until is None else until) - at))


def clock(at: float | None) -> str:
    """Return local date and time of a Unix time; `-` for none."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def number(value: object) -> str:
    """Return a number as text: integers and numbers from 10,000 without decimals, others with four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value)
    is_whole = float(value).is_integer() or abs(value) >= 1e4
    return f"{value:.0f}" if is_whole and abs(value) < 1e15 else f"{value:.4g}"


def cause(run: Json) -> str:
    """Return the cause of an end or a fault with its details as text; an empty text without a cause."""
    cause_fields = run.get("cause")
    if not cause_fields:
        return ""
    if cause_fields.get("crash_loop"):
        count, rest = cause_fields.get("attempts"), {**cause_fields, "crash_loop": None, "attempts": None}
        return f"{cause({**run, 'cause': rest})}; crash loop: {count} attempts in a row ended at once"
    kind = str(cause_fields.get("kind", ""))
    hidden = ("kind", "post_mortem")  # `show` prints the post-mortem in a separate line
    details = {key: value for key, value in cause_fields.items() if key not in hidden and value is not None}
    if kind == "exit_code":
        return f"exit code {details.pop('exit_code', run.get('exit_code'))}"
    if kind == "signal":
        return f"signal {details.pop('signal', run.get('signal'))}"
    if kind in _STOP_TEXTS:
        return _stop_text(kind, details, run.get("time_limit_s"))
    if isinstance(details.get("error"), str):
        return f"{kind.replace('_', ' ')}: {clean(details['error'])}"
    if kind in _LIVENESS_TEXTS and isinstance(details.get("after_s"), int | float):
        return _liveness_text(kind, details)
    words = ", ".join(_detail_text(key, value) for key, value in details.items())
    return f"{kind.replace('_', ' ')}: {words}" if words else kind.replace("_", " ")


def _liveness_text(kind: str, details: Json) -> str:
    """Return the missed liveness limit with its length.  The shim's signal that ended the run is omitted."""
    from mosaicd.protocol.durations import format_duration

    text = f"{kind.replace('_', ' ')}: {_LIVENESS_TEXTS[kind]} {format_duration(details['after_s'])}"
    return f"{text}; killed" if details.get("forced") else text


def _stop_text(kind: str, details: Json, time_limit_s: float | None) -> str:
    """Return the user or the limit that ended a run.  The shim's signal that ended the run is omitted."""
    who = "its worker" if details.get("who") == "worker" else clean(details.get("who") or "its owner")
    text = f"stopped by {who}" if kind == "by_user" else _STOP_TEXTS[kind]
    if kind == "time_limit" and time_limit_s is not None:
        from mosaicd.protocol.durations import format_duration

        text = f"time limit of {format_duration(time_limit_s)} reached"
    if details.get("reason"):
        text += f": {clean(details['reason'])}"
    return f"{text}; killed after the grace period" if details.get("forced") else text


def ending_text(run: Json) -> str:
    """Return outcome and cause of an ended run, and processes that it left behind: `failed (exit code 7)`."""
    why = cause(run)
    outcome = run.get("outcome")
    ending = f"{outcome} ({why})" if outcome and why else str(outcome) if outcome else why
    return "; ".join(text for text in (ending, left_text(run)) if text)


def _detail_text(key: str, value: object) -> str:
    """Return `key value`; a number of bytes is printed with a unit (KiB, MiB)."""
    if key.endswith("_bytes") and isinstance(value, int | float):
        from mosaicctl.sizes import size

        return f"{key.removesuffix('_bytes')} {size(value)}"
    return f"{key.replace('_', ' ')} {_value_text(value)}"


def _value_text(value: object) -> str:
    """Return a value as text; objects and lists as JSON."""
    return json.dumps(value) if isinstance(value, dict | list) else clean(value)


def progress(run: Json) -> str:
    """Return `450/1000 episodes`, `12000 steps`, or `-`."""
    counters = run.get("progress") or {}
    for unit in ("episodes", "steps"):
        done, total = counters.get(unit), counters.get(f"total_{unit}")
        if total:
            return f"{done or 0}/{total} {unit}"
    for unit in ("episodes", "steps"):
        if counters.get(unit):
            return f"{counters[unit]} {unit}"
    return "-"


def note(run: Json) -> str:
    """Return the text for the NOTE column: the most important fact about a run after its state."""
    state, want = run.get("state"), run.get("want")
    if state == "FAULT" and run.get("reason"):
        return clean(run["reason"])
    if state == "TERM" or state == "FAULT":
        return "; ".join(text for text in (cause(run), left_text(run)) if text)
    if want == "stop" or (want == "pause" and state != "PAUSE") or (want == "run" and state == "PAUSE"):
        return _WANT_TEXTS[str(want)]
    if run.get("held"):
        return "held"
    if state == "PAUSE" and run.get("released"):
        return "without slots"
    return clean(run.get("reason") or "")


def took(run: Json) -> str:
    """Return the time since the start of a run (until its end); if it has not started, the time it waits."""
    begin_at = run.get("started_at") or (None if run.get("finished_at") else run.get("created_at"))
    return ago(begin_at, run.get("finished_at"))


def colour(run: Json) -> str | None:
    """Return the SGR colour of the run's outcome, or of its state if it has not ended."""
    if run.get("outcome"):
        return _OUTCOME_COLOURS.get(str(run["outcome"]))
    return _STATE_COLOURS.get(str(run.get("state")))


def label(run: Json) -> str:
    """Return `name (id)` of a run; the id alone if the run has no name."""
    name = clean(run.get("name") or "")
    return f"{name} ({run['run_id']})" if name else str(run["run_id"])


def to_json(value: object, indent: int | None = 2) -> str:
    """Return JSON text, newline included."""
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"


def emit(output: str, runs: Sequence[Json], text: str, single: bool = False) -> None:
    """Print runs in the format `output`; `text` is the table; `single` prints one JSON object, not a list."""
    if output == "json":
        sys.stdout.write(to_json(runs[0] if single and len(runs) == 1 else list(runs)))
    elif output == "jsonl":
        sys.stdout.writelines(to_json(run, None) for run in runs)
    elif output == "name":
        sys.stdout.writelines(f"{run['run_id']}\n" for run in runs)
    else:
        sys.stdout.write(text)


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Return `name  value` lines, aligned; rows whose value is None or empty are omitted."""
    kept = [(name, clean(value)) for name, value in rows if value is not None and value != ""]
    size = max((len(name) for name, _ in kept), default=0)
    return "".join(f"{name.ljust(size)}  {value}\n" for name, value in kept)
