"""The one way in which tests and benchmarks wait: read a value again and again, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 45.0
PAUSE_S = 0.01


def wait_until(
    read: Callable[[], T],
    is_wanted: Callable[[T], bool],
    what: str,
    deadline_s: float = DEADLINE_S,
    pause_s: float = PAUSE_S,
) -> T:
    """Return the first value that is wanted; after the deadline, fail with the last value seen."""
    end = time.monotonic() + deadline_s
    while True:
        value = read()
        if is_wanted(value):
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s:g} s; last seen: {value!r}")
        time.sleep(pause_s)
