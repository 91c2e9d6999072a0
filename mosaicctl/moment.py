"""The time after --since: a duration before now, a time of day, a date, or seconds since the epoch."""

import re
import time
from datetime import datetime, timedelta

from mosaicd.protocol.durations import parse_duration

_FORMS = (
    "a duration before now (10m, 2h30m, 3d), a time of day (10:30), a date (2026-11-22T10:30), "
    "or seconds since the epoch (@1795298458)"
)
_TIME_OF_DAY = re.compile(r"(\d+):(\d+)(?::(\d+))?")
_BARE_NUMBER = re.compile(r"\d+(\.\d+)?")


def parse_moment(text: str, now: float | None = None) -> float:
    """Return Unix seconds; `10m` is ten minutes ago, a date without a zone is local time.

    `10:30` and `10:30:00` are a local time of day: today, or yesterday if that is still in the future.
    Raises ValueError if `text` has none of the forms; a bare number but 0 has none.
    """
    now = time.time() if now is None else now
    time_of_day = _TIME_OF_DAY.fullmatch(text.strip())
    if time_of_day:
        return _last_time_of_day(text, [int(group or 0) for group in time_of_day.groups()], now)
    try:
        return max(0.0, now - parse_duration(text))
    except ValueError:
        if _BARE_NUMBER.fullmatch(text.strip()):
            raise
    try:
        if text.startswith("@"):
            moment = float(text[1:])
        else:
            moment = datetime.fromisoformat(text.strip()).timestamp()
        if 0 <= moment < 2**40:
            return moment
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not a time; write {_FORMS}")


def _last_time_of_day(text: str, parts: list[int], now: float) -> float:
    """Return the last time before `now` at which local clocks showed these hours, minutes and seconds."""
    today = datetime.fromtimestamp(now)  # noqa: DTZ006 - without a zone: local time
    try:
        moment = today.replace(hour=parts[0], minute=parts[1], second=parts[2], microsecond=0)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time of day (0:00 to 23:59:59); write {_FORMS}") from None
    if moment.timestamp() > now:
        moment -= timedelta(days=1)
    return moment.timestamp()
