"""`set`, and the output of changes: field, old value, new value."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mosaicctl.board import Board, describe
from mosaicctl.changes import changes
from mosaicd.protocol.errors import Conflict
from tests.ctl.scripted import Peer, ScriptedDaemon, a_run, an_event

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(daemon: ScriptedDaemon) -> dict[str, Any]:
    """A run on a daemon that carries out run.set."""
    known = a_run(1, labels={"team": "a", "paper": "yes"})

    def change(params: dict[str, Any], peer: Peer) -> object:
        labels = {**known["labels"], **params.get("label", {})}
        removed = params.get("unlabel", ())
        known["labels"] = {key: value for key, value in labels.items() if key not in removed}
        known.update({key: params[key] for key in ("priority", "name") if key in params})
        return known

    daemon.handlers["run.get"] = lambda params, peer: dict(known)
    daemon.handlers["run.set"] = change
    return known


def test_set_prints_old_and_new_values(run: dict[str, Any], ctl: Ctl) -> None:
    """`set` prints each changed field with old and new value, or that there was nothing to change."""
    code, out, err = ctl("set", "x", "-p", "5", "-n", "base")
    assert (code, out, err) == (0, f"base ({run['run_id']}): name run-1 -> base, priority 0 -> 5\n", "")
    assert ctl("set", "x", "-p", "5")[1] == f"base ({run['run_id']}): nothing to change\n"
    assert json.loads(ctl("-o", "json", "set", "x", "-p", "6")[1])["priority"] == 6


def test_set_sends_only_the_changed_labels(run: dict[str, Any], daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`set` sends only the labels to add and to remove, so other labels are not changed."""
    out = ctl("set", "x", "-l", "seed=7", "-l", "team=", "--unlabel", "paper", "--unlabel", "unknown")[1]
    added, removed = {"seed": "7", "team": ""}, ["paper", "unknown"]
    assert daemon.requests("run.set") == [{"run_id": run["run_id"], "label": added, "unlabel": removed}]
    assert out.endswith(': label paper: yes -> (none), label seed: (none) -> 7, label team: a -> ""\n')


def test_set_continues_after_a_refusal_and_exits_with_its_code(
    daemon: ScriptedDaemon, run: dict[str, Any], ctl: Ctl
) -> None:
    """If one run cannot be set, `set` sets the others and exits with the code of the first refusal."""

    def change(params: dict[str, Any], peer: Peer) -> object:
        if len(daemon.requests("run.set")) == 1:
            raise Conflict("it has ended", state="TERM")
        return a_run(2, priority=5)

    daemon.handlers["run.set"] = change
    code, out, err = ctl("set", "a", "b", "-p", "5")
    assert (code, err) == (5, "mosaicctl: a: it has ended\n")
    assert "priority 0 -> 5" in out


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"priority": 7, "was": {"priority": 0}}, "set  priority 0 -> 7  by ada"),
        ({"name": "b", "was": {"name": "\x1b[2J"}}, "set  name ?[2J -> b  by ada"),
        ({"labels": {"k": "v"}, "was": {"labels": {}}}, "set  label k: (none) -> v  by ada"),
        ({"labels": {}, "was": {"labels": {"k": "v"}}}, "set  label k: v -> (none)  by ada"),
        # An older ledger has only the new value, and an event leaves out too many labels.
        ({"priority": 7}, "set  priority 7  by ada"),
        ({"was": {}, "reduced": ["labels"]}, "set  (unknown change)  by ada"),
    ],
)
def test_watch_prints_old_and_new_values_of_a_set_event(event: dict[str, Any], words: str) -> None:
    """`watch` prints the old value, the new value and the user who requested the change."""
    assert describe(an_event(3, "set", "INIT", **{**event, "who": "ada"})) == words


def test_renamed_run_is_shown_with_its_new_name() -> None:
    """A watcher uses the new name of a run after its set event; an older event is ignored."""
    board = Board()
    board.put(a_run(1, rev=5))
    run_id = a_run(1)["run_id"]
    board.fold(an_event(6, "set", "EXEC", run_id, name="new", was={"name": "run-1"}))
    assert board.runs[run_id]["name"] == "new"
    board.fold(an_event(4, "set", "EXEC", run_id, name="old", was={"name": "older"}))
    assert board.runs[run_id]["name"] == "new"


def test_changes_compare_only_existing_fields() -> None:
    """Run objects are compared by the fields that they have; missing labels are no change."""
    assert changes({}, {}) == []
    assert changes({"labels": None}, {"labels": None, "priority": 1}) == ["priority (none) -> 1"]
