"""Bytes and counts as people read and write them."""

import math
import re

_MIB_OF_UNIT = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d+)?)(?:([KMGT])(?:I?B)?)?")


def parse_mebibytes(text: str) -> int:
    """Return a size such as `512M`, `1.5G`, `4GiB` in MiB, rounded up; units are powers of 1024.

    Raises ValueError.  A bare number is refused: some tools read bytes, and others MiB.
    """
    found = _SIZE.fullmatch(text.strip().upper().replace(" ", ""))
    if not found:
        raise ValueError(f"{text!r} is not a size; write 512M, 1.5G or 4GiB")
    number, unit = found.groups()
    if float(number) == 0:
        raise ValueError(f"{text!r} is not allowed; give more than 0")
    if unit is None:
        raise ValueError(f"{text!r} has no unit; write {number}M or {number}G")
    return math.ceil(float(number) * _MIB_OF_UNIT[unit])


def size(count: float) -> str:
    """Return `512 B`, `28.0 KiB`, `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{int(count)} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
