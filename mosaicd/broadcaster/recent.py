"""The newest events in memory, so that live watchers need no read of the ledger.

All events above `floor` are here; events at or below it must be read from the ledger.  An event is encoded
once, when the first watcher needs it.
"""

from bisect import bisect_right
from collections.abc import Sequence

from mosaicd.broadcaster import notices
from mosaicd.store.registry import Committed


class Event:
    """One committed event."""

    __slots__ = ("_body", "_commit", "owner_uid", "run_id", "seq")

    def __init__(self, commit: Committed) -> None:
        self.seq = commit.seq
        self.run_id = commit.run.run_id
        self.owner_uid = commit.run.owner_uid
        self._commit = commit
        self._body: bytes | None = None

    def body(self) -> bytes:
        """Return its params, encoded."""
        if self._body is None:
            self._body = notices.committed_body(self._commit)
        return self._body


class Recent:
    """At least the newest `size` events, at most twice as many."""

    def __init__(self, size: int, floor: int) -> None:
        self.floor = floor
        self._size = size
        self._events: list[Event] = []

    @property
    def last_seq(self) -> int:
        """The seq of the newest event, in memory or not."""
        return self._events[-1].seq if self._events else self.floor

    def extend(self, batch: Sequence[Committed]) -> None:
        """Add committed events, in order of seq."""
        self._events.extend(Event(commit) for commit in batch)
        surplus = len(self._events) - self._size
        if surplus >= self._size:
            self.floor = self._events[surplus - 1].seq
            del self._events[:surplus]

    def after(self, cursor: int, limit: int) -> list[Event]:
        """Return at most `limit` events with seq > `cursor`, which must not be below the floor."""
        start = bisect_right(self._events, cursor, key=lambda event: event.seq)
        return self._events[start : start + limit]
