"""Remember places in telemetry files, so that the next page needs no scan from the start of the file."""

from bisect import bisect_right
from dataclasses import dataclass, replace

#: The most files that are remembered, and the most places in one file.
FILES = 64
PLACES = 256


@dataclass
class Place:
    """A place between two records: every record before `offset` has a seq <= `seq`.

    `is_in_line`: `offset` is inside a line that is too long to be a record.
    """

    seq: int = 0
    offset: int = 0
    is_in_line: bool = False


#: Run id, attempt, and the `since` of the request.
Key = tuple[str, int, float | None]


class SeqIndex:
    """The known places in the telemetry files that one connection has read."""

    def __init__(self) -> None:
        self._places: dict[Key, list[Place]] = {}

    def before(self, key: Key, seq: int) -> Place:
        """Return the last known place whose seq is at most `seq`; the start of the file if there is none."""
        places = self._places.get(key, [])
        index = bisect_right(places, seq, key=lambda place: place.seq)
        return replace(places[index - 1]) if index else Place()

    def add(self, key: Key, place: Place) -> None:
        """Remember a place, instead of an earlier one with the same seq."""
        if key not in self._places and len(self._places) >= FILES:
            self._places.pop(next(iter(self._places)))
        places = self._places.setdefault(key, [])
        index = bisect_right(places, place.seq, key=lambda known: known.seq)
        if index and places[index - 1].seq == place.seq:
            places[index - 1] = replace(place)
        else:
            places.insert(index, replace(place))
        if len(places) > PLACES:
            del places[::2]
