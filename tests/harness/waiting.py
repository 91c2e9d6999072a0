"""Waiting of tests and benchmarks: read a value repeatedly until it is wanted, with a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 45.0
PAUSE_S = 0.01


class Deadline:
    """The time by which a condition must hold."""

    def __init__(self, what: str, after_s: float) -> None:
        self._what = what
        self._after_s = after_s
        self._end_mono = time.monotonic() + after_s

    def check(self, seen: object) -> None:
        """Fail if the deadline has passed; the message has the value that was seen last."""
        if time.monotonic() > self._end_mono:
            raise AssertionError(f"{self._what}: not within {self._after_s:g} s; last seen: {seen!r}")


def nap() -> None:
    """Sleep for a moment."""
    time.sleep(PAUSE_S)


def wait_until(
    read: Callable[[], T],
    is_wanted: Callable[[T], bool] = bool,
    what: str = "the condition holds",
    deadline_s: float = DEADLINE_S,
    *,
    pause: Callable[[], object] = nap,
    shown: Callable[[], object] | None = None,
) -> T:
    """Return the first wanted value; after the deadline, fail with the last value.

    `pause` is called between two reads; `shown` gives the value for the failure message.
    """
    deadline = Deadline(what, deadline_s)
    while not is_wanted(value := read()):
        deadline.check(shown() if shown else value)
        pause()
    return value


async def wait_in_loop(read: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Return the first true value, as `wait_until` does, while the event loop runs."""
    deadline = Deadline(what, deadline_s)
    while not (value := read()):
        deadline.check(value)
        await asyncio.sleep(0.001)
    return value
