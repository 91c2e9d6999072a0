"""The time after --since: a duration before now, a date and time, or seconds since the epoch."""

import time
from datetime import datetime

from mosaicd.protocol.durations import parse_duration


def parse_moment(text: str, now: float | None = None) -> float:
    """Return Unix seconds; `10m` is ten minutes ago, a date without a zone is local time.

    Raises ValueError if `text` is neither a duration nor a date.
    """
    now = time.time() if now is None else now
    try:
        return max(0.0, now - parse_duration(text))
    except ValueError:
        pass
    try:
        if text.startswith("@"):
            moment = float(text[1:])
        else:
            moment = datetime.fromisoformat(text.strip()).timestamp()
        if 0 <= moment < 2**40:
            return moment
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{text!r} is not a time; write a duration before now (10m, 2h30m, 3d), a date (2026-11-22T10:30), "
        "or seconds since the epoch (@1795298458)"
    )
