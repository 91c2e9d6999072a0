"""Parse and format durations: `90`, `90s`, `1h30m`, `2d`, `1:30:00`."""

import re

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{2})(?::(\d{2}))?")


def parse_duration(text: str) -> float:
    """Return seconds (>= 0); a bare number is seconds, `H:MM` is hours; ValueError lists the forms."""
    folded = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", folded):
        return float(folded)
    clock = _CLOCK.fullmatch(folded)
    if clock:
        days, hours, minutes, seconds = (int(group or 0) for group in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    parts = _PART.findall(folded)
    if not parts or "".join(number + unit for number, unit in parts) != folded:
        raise ValueError(f"{text!r} is not a duration; write 90, 90s, 15m, 1h30m, 2d or 1:30:00")
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
