"""The table of `list`, which is shortened on a narrow terminal.

In a pipe the table is always complete.  On a terminal that is too narrow, these steps follow one after the
other until all lines fit: remove empty columns; cut ids to a unique beginning; show the outcome in place of
TERM; show progress as a percentage; cut names.
"""

import sys
from collections.abc import Sequence

from mosaicctl.render import (
    clean,
    colour,
    columns,
    note,
    progress,
    took,
    width,
)
from mosaicd.protocol import Json

#: An id is not cut to fewer characters: its time (10 characters) and 2 random ones.
SHORTEST_ID = 12
SHORTEST_NAME = 12


def run_table(runs: Sequence[Json]) -> str:
    """Return the runs as text, a line each under a header."""
    limit = width() if sys.stdout.isatty() else None
    table = Table(runs)
    if limit is not None:
        table.fit(limit)
    header = list(table.columns)

    def colour_of(row: int, column: int) -> str | None:
        return colour(runs[row]) if header[column] in ("STATE", "OUTCOME") else None

    return columns(header, list(zip(*table.columns.values(), strict=True)), colour_of)


class Table:
    """The columns of the table, by heading."""

    def __init__(self, runs: Sequence[Json]) -> None:
        cells = {
            "RUN": [str(run["run_id"]) for run in runs],
            "NAME": [clean(run.get("name") or "-") for run in runs],
            "OWNER": [clean(run.get("owner")) for run in runs],
            "STATE": [str(run.get("state")) for run in runs],
            "OUTCOME": [str(run.get("outcome") or "-") for run in runs],
            "PROGRESS": [progress(run) for run in runs],
            "TIME": [took(run) for run in runs],
            "NOTE": [note(run) for run in runs],
        }
        if len(set(cells["OWNER"])) <= 1:
            del cells["OWNER"]
        self.columns = cells

    def excess(self, limit: int) -> int:
        """Return the excess of the longest line in characters; 0 or less if all lines fit."""
        sizes = [max(map(len, [heading, *cells])) for heading, cells in self.columns.items()]
        return sum(sizes) + 2 * (len(sizes) - 1) - limit

    def fit(self, limit: int) -> None:
        """Shorten the table until every line has at most `limit` characters, or all steps are done."""
        for shorten in (
            self._drop_empty,
            self._cut_ids,
            self._merge_outcomes,
            self._show_percentages,
            self._cut_names,
        ):
            excess = self.excess(limit)
            if excess <= 0:
                return
            shorten(excess)

    def _drop_empty(self, excess: int) -> None:
        for heading in ("OUTCOME", "PROGRESS"):
            if set(self.columns[heading]) == {"-"}:
                del self.columns[heading]

    def _cut_ids(self, excess: int) -> None:
        ids = self.columns["RUN"]
        size = SHORTEST_ID
        while size < 26 and len({run_id[:size] for run_id in ids}) < len(set(ids)):
            size += 1
        self.columns["RUN"] = [run_id[:size] for run_id in ids]

    def _merge_outcomes(self, excess: int) -> None:
        outcomes = self.columns.pop("OUTCOME", None)
        if outcomes is not None:
            pairs = zip(self.columns["STATE"], outcomes, strict=True)
            self.columns["STATE"] = [state if outcome == "-" else outcome for state, outcome in pairs]

    def _show_percentages(self, excess: int) -> None:
        done = self.columns.get("PROGRESS")
        if done is not None:
            self.columns["PROGRESS"] = [_percentage(text) for text in done]

    def _cut_names(self, excess: int) -> None:
        names = self.columns["NAME"]
        size = max(SHORTEST_NAME, max(map(len, names), default=0) - excess)
        self.columns["NAME"] = [name if len(name) <= size else f"{name[: size - 1]}…" for name in names]


def _percentage(text: str) -> str:
    """Return `75%` for `1500/2000 episodes`; a text without a total is returned unchanged."""
    done, slash, rest = text.partition("/")
    total = rest.split(" ")[0]
    return f"{100 * int(done) // int(total)}%" if slash and int(total) else text
