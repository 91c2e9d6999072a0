"""Back-off: the delays between tries of one thing double, from a first delay up to a longest one."""

#: More doublings would only make the number large: every longest delay is reached long before.
_MOST_DOUBLINGS = 30


def delay_s(tries: int, first_s: float, most_s: float) -> float:
    """Return how long to wait after `tries` earlier waits: `first_s`, doubled each time, at most `most_s`."""
    return float(min(most_s, first_s * 2 ** min(tries, _MOST_DOUBLINGS)))


class Backoff:
    """The delays of one series of tries; `reset` starts the series again."""

    __slots__ = ("_first_s", "_most_s", "_tries")

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._tries = 0

    def next_s(self) -> float:
        """Return how long to wait before the next try, and count that try."""
        tries = self._tries
        self._tries += 1
        return delay_s(tries, self._first_s, self._most_s)

    def reset(self) -> None:
        """Start again with the first delay, after a success or a change."""
        self._tries = 0
