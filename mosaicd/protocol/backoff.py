"""Back-off: the delay between tries doubles, from a first delay up to a maximum."""

#: Every maximum is reached before; the bound keeps the power of two small.
_MOST_DOUBLINGS = 30


def delay_s(tries: int, first_s: float, most_s: float) -> float:
    """Return the delay after `tries` earlier delays: `first_s`, doubled each time, at most `most_s`."""
    return float(min(most_s, first_s * 2 ** min(tries, _MOST_DOUBLINGS)))


class Backoff:
    """The back-off of one series of tries; `reset` starts the series again."""

    __slots__ = ("_first_s", "_most_s", "_tries")

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._tries = 0

    def next_s(self) -> float:
        """Return the delay before the next try, and count that try."""
        tries = self._tries
        self._tries += 1
        return delay_s(tries, self._first_s, self._most_s)

    def reset(self) -> None:
        """Start again with the first delay, after a success or a change."""
        self._tries = 0
