"""The table of `list` on terminals of any width: complete if there is space, otherwise shortened."""

import time
from typing import Any

import pytest

from mosaicctl.runtable import SHORTEST_ID, Table, run_table
from tests.ctl.scripted import a_run, an_ended_run

WAITS = "needs 2 CPUs, 1 of 3 free"
PROGRESS = {**a_run()["progress"], "episodes": 1500, "total_episodes": 2000}
NOW = {"started_at": None, "created_at": time.time() - 30}
RUNS = [
    a_run(1, name="a-rather-long-name-of-a-sweep-17", progress=PROGRESS, **NOW),
    a_run(2, state="INIT", reason=WAITS, **NOW),
    an_ended_run(3, outcome="interrupted", cause={"kind": "rebooted"}),
]
for place, run in enumerate(RUNS):
    run["run_id"] = f"01M80K83{'ABC'[place]}8EK7C92Y74NG404CK"


def fitted(limit: int, runs: list[dict[str, Any]] | None = None) -> Table:
    table = Table(RUNS if runs is None else runs)
    table.fit(limit)
    return table


def test_wide_terminal_gets_every_column_uncut() -> None:
    """A wide terminal gets every column, with nothing cut."""
    table = fitted(160)
    assert list(table.columns) == "RUN NAME STATE OUTCOME PROGRESS TIME NOTE".split()
    assert table.columns["RUN"] == [run["run_id"] for run in RUNS]


@pytest.mark.parametrize("limit", [90, 100, 110, 120, 140])
def test_notes_are_uncut_from_90_columns_on(limit: int) -> None:
    """From 90 columns on, notes are not cut; names, ids and redundant words are shortened first."""
    table = fitted(limit)
    assert table.excess(limit) <= 0
    assert table.columns["NOTE"][1] == WAITS


def test_outcome_replaces_the_state_term() -> None:
    """On a narrow terminal the outcome replaces the state TERM."""
    assert fitted(95).columns["STATE"] == ["EXEC", "INIT", "interrupted"]


@pytest.mark.parametrize("limit", [20, 40, 60, 80, 90, 100])
def test_shortened_ids_are_unique(limit: int) -> None:
    """A shortened id is a prefix that no other shown run has."""
    runs = [a_run(n, name="x" * 30, state="INIT", reason=WAITS) for n in range(200)]
    ids = fitted(limit, runs).columns["RUN"]
    assert len(set(ids)) == 200 and min(map(len, ids)) >= SHORTEST_ID
    assert all(run["run_id"].startswith(prefix) for run, prefix in zip(runs, ids, strict=True))


def test_empty_columns_are_dropped_first() -> None:
    """On a narrow terminal the columns that have no value are dropped first."""
    runs = [a_run(1, state="INIT", reason=WAITS, **NOW)]
    assert list(fitted(90, runs).columns) == "RUN NAME STATE TIME NOTE".split()
    assert fitted(90, runs).columns["RUN"] == ["01J00000000000000000000001"]


def test_table_without_runs_is_a_header() -> None:
    """A table without runs is a header, at any width."""
    table = fitted(1, [])
    assert table.columns["RUN"] == []
    assert run_table([]).split()[:2] == ["RUN", "NAME"]


def test_table_in_a_pipe_is_uncut() -> None:
    """In a pipe nothing is cut."""
    line = run_table(RUNS).splitlines()[1]
    assert line.split()[:2] == [RUNS[0]["run_id"], "a-rather-long-name-of-a-sweep-17"]
    assert "1500/2000 episodes" in line
