"""The diagram of the lifecycle, drawn from TABLE, for the manual and a golden file.

First come the transitions between places, then a matrix of events and places.  Lines have at most 72 columns,
so that the diagram fits an indented display on a page of 80 columns.
"""

from collections.abc import Iterable, Iterator, Mapping

from mosaicd.core.event import Kind
from mosaicd.core.fsm import TABLE, Place

Table = Mapping[Place, Mapping[Kind, Place]]

WIDTH = 72

#: Column heads.  RELEASED, which is PAUSE on the wire, is too long for a column.
_HEADS = {place: "PAUSE*" if place is Place.RELEASED else str(place) for place in Place}
_STAYS = "="
_ILLEGAL = "."


def text(table: Table = TABLE) -> str:
    """Return the diagram; the same table gives the same text."""
    parts = [*_arrows(table), "", *_matrix(table), "", *_legend()]
    return "\n".join(line.rstrip() for line in parts) + "\n"


def _arrows(table: Table) -> Iterator[str]:
    """Return one line for each pair of places with a transition: from, to, and its events."""
    for place, row in table.items():
        ways: dict[Place, list[str]] = {}
        for kind, target in row.items():
            if target is not place:
                ways.setdefault(target, []).append(kind)
        shown = _HEADS[place]
        for target in sorted(ways, key=list(Place).index):
            head = f"{shown:<6} -> {_HEADS[target]:<6}  "
            yield from _wrapped(head, sorted(ways[target]))
            shown = ""


def _wrapped(head: str, words: list[str]) -> Iterator[str]:
    """Yield `head` followed by the words, wrapped at WIDTH and indented below the first word."""
    line = head
    for number, word in enumerate(words):
        piece = word if number == len(words) - 1 else f"{word}, "
        if len(line) + len(piece.rstrip()) > WIDTH:
            yield line
            line = " " * len(head)
        line += piece
    yield line


def _matrix(table: Table) -> Iterator[str]:
    """Return a row for each event and a column for each place, with the next place."""
    yield _row("", _HEADS.values())
    for kind in Kind:
        if kind is not Kind.SUBMITTED:
            yield _row(kind, (_cell(place, table[place].get(kind)) for place in Place))


def _cell(place: Place, target: Place | None) -> str:
    if target is None:
        return _ILLEGAL
    return _STAYS if target is place else _HEADS[target]


def _row(head: str, cells: Iterable[str]) -> str:
    return f"{head:<16}" + "".join(f" {cell:<6}" for cell in cells)


def _legend() -> Iterator[str]:
    yield f"{_STAYS}  the state stays: the event is stored and may change what is wanted"
    yield f"{_ILLEGAL}  illegal there: refused, and nothing changes"
    yield f"{_HEADS[Place.RELEASED]}  PAUSE without slots: the run waits in the queue again"
