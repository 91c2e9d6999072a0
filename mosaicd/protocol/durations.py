"""Parse and format durations: `90s`, `1h30m`, `2d`, `1:30:00`, `2-12:00:00`, `0`."""

import re

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NUMBER = re.compile(r"\d{1,12}(?:\.\d+)?")
_PART = re.compile(r"(\d{1,12}(?:\.\d+)?)(ms|s|m|h|d|w)")
_CLOCK = re.compile(r"(?:(\d{1,6})-)?(\d{1,6}):([0-5]\d):([0-5]\d)")
_TWO_PARTS = re.compile(r"(\d{1,6}):([0-5]\d)")


def parse_duration(text: str) -> float:
    """Return seconds (>= 0) of numbers with units, of `H:MM:SS`, or of 0.

    Raises ValueError.  For a bare number and for two parts (`1:30`) the message has both meanings, because
    such a text means minutes to some tools, and seconds or hours to others.
    """
    folded = text.strip().lower().replace(" ", "")
    if _NUMBER.fullmatch(folded):
        if float(folded):
            raise ValueError(f"{text!r} has no unit; write {folded}s or {folded}m")
        return 0.0
    clock = _CLOCK.fullmatch(folded)
    if clock:
        days, hours, minutes, seconds = (int(group or 0) for group in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    two_parts = _TWO_PARTS.fullmatch(folded)
    if two_parts:
        first, second = two_parts.groups()
        in_minutes = f"{int(first) // 60}:{int(first) % 60:02d}:{second}"
        raise ValueError(f"{text!r} has two meanings; write {in_minutes} or {int(first)}:{second}:00")
    parts = _PART.findall(folded)
    if not parts or "".join(number + unit for number, unit in parts) != folded:
        raise ValueError(f"{text!r} is not a duration; write 90s, 15m, 1h30m, 2d, 1:30:00 or 0")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return a short form: `0.4s`, `12s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
