"""The picture of the lifecycle, drawn from TABLE: what the manual shows and a golden file holds still.

First the ways between places, then every legal pair.  Lines stay under 72 columns, so that the picture fits
an indented display in an 80-column page.
"""

from collections.abc import Iterable, Iterator, Mapping

from mosaicd.core.event import Kind
from mosaicd.core.fsm import TABLE, Place

Table = Mapping[Place, Mapping[Kind, Place]]

WIDTH = 72

#: RELEASED is PAUSE on the wire, and too long for a column.
_HEADS = {place: "PAUSE*" if place is Place.RELEASED else str(place) for place in Place}
_STAYS = "="
_ILLEGAL = "."


def text(table: Table = TABLE) -> str:
    """Return the whole picture; the same table gives the same text."""
    parts = [*_arrows(table), "", *_matrix(table), "", *_legend()]
    return "\n".join(line.rstrip() for line in parts) + "\n"


def _arrows(table: Table) -> Iterator[str]:
    """One line for each two places with a way between them: from, to, the events that lead there."""
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
    line = head
    for number, word in enumerate(words):
        piece = word if number == len(words) - 1 else f"{word}, "
        if len(line) + len(piece.rstrip()) > WIDTH:
            yield line
            line = " " * len(head)
        line += piece
    yield line


def _matrix(table: Table) -> Iterator[str]:
    """A row for each event, a column for each place: where it leads, or that it is illegal there."""
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
    yield f"{_HEADS[Place.RELEASED]}  PAUSE with its slots given back: it waits in the queue again"
