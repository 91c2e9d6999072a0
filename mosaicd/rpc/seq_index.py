"""Remember places in telemetry files, so that the next page needs no scan from the start of the file."""

from bisect import bisect_right
from dataclasses import dataclass

#: The most files that are remembered, and the most places in one file.
FILES = 64
PLACES = 256


@dataclass
class Place:
    """A place between two records: every record before `offset` has a seq <= `seq`."""

    seq: int = 0
    offset: int = 0


class SeqIndex:
    """The known places in the telemetry files that one connection has read; the key is run id and attempt."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], list[Place]] = {}

    def before(self, key: tuple[str, int], seq: int) -> Place:
        """Return the last known place whose seq is at most `seq`; the start of the file if there is none."""
        places = self._places.get(key, [])
        index = bisect_right(places, seq, key=lambda place: place.seq)
        return Place(places[index - 1].seq, places[index - 1].offset) if index else Place()

    def add(self, key: tuple[str, int], place: Place) -> None:
        """Remember a place."""
        if key not in self._places and len(self._places) >= FILES:
            self._places.pop(next(iter(self._places)))
        places = self._places.setdefault(key, [])
        index = bisect_right(places, place.seq, key=lambda known: known.seq)
        if index == 0 or places[index - 1].seq != place.seq:
            places.insert(index, Place(place.seq, place.offset))
        if len(places) > PLACES:
            del places[::2]
