"""Bytes and counts as people read them."""


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
