"""`set`, and how what was set is told: field, old value, new value."""

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
    """A run that can be set."""
    known = a_run(1, labels={"team": "a", "paper": "yes"})

    def change(params: dict[str, Any], peer: Peer) -> object:
        labels = {**known["labels"], **params.get("label", {})}
        gone = params.get("unlabel", ())
        known["labels"] = {key: value for key, value in labels.items() if key not in gone}
        known.update({key: params[key] for key in ("priority", "name") if key in params})
        return known

    daemon.handlers["run.get"] = lambda params, peer: dict(known)
    daemon.handlers["run.set"] = change
    return known


def test_what_was_set_is_said(run: dict[str, Any], ctl: Ctl) -> None:
    """Each field with its old and its new value; what was so already is said, too."""
    code, out, err = ctl("set", "x", "-p", "5", "-n", "base")
    assert (code, out, err) == (0, f"base ({run['run_id']}): name run-1 -> base, priority 0 -> 5\n", "")
    assert ctl("set", "x", "-p", "5")[1] == f"base ({run['run_id']}): nothing to change\n"
    assert json.loads(ctl("-o", "json", "set", "x", "-p", "6")[1])["priority"] == 6


def test_a_label_leaves_the_others_alone(run: dict[str, Any], daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """The daemon is told what to add and what to remove, and not what there was when the client looked."""
    out = ctl("set", "x", "-l", "seed=7", "-l", "team=", "--unlabel", "paper", "--unlabel", "unknown")[1]
    added, removed = {"seed": "7", "team": ""}, ["paper", "unknown"]
    assert daemon.asked("run.set") == [{"run_id": run["run_id"], "label": added, "unlabel": removed}]
    assert out.endswith(': label paper: yes -> (none), label seed: (none) -> 7, label team: a -> ""\n')


def test_the_first_refusal_is_the_code(daemon: ScriptedDaemon, run: dict[str, Any], ctl: Ctl) -> None:
    """A run that has ended cannot be set; the others are."""

    def change(params: dict[str, Any], peer: Peer) -> object:
        if len(daemon.asked("run.set")) == 1:
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
        # An older ledger says only what was set, and too many labels are left out of an event.
        ({"priority": 7}, "set  priority 7  by ada"),
        ({"was": {}, "reduced": ["labels"]}, "set  (unknown change)  by ada"),
    ],
)
def test_a_set_event_says_what_was_set(event: dict[str, Any], words: str) -> None:
    """`watch` tells old and new, and who asked."""
    assert describe(an_event(3, "set", "INIT", **{**event, "who": "ada"})) == words


def test_a_renamed_run_goes_by_its_new_name() -> None:
    """What a watcher knows of a run follows its set events; an old event changes nothing."""
    board = Board()
    board.put(a_run(1, rev=5))
    run_id = a_run(1)["run_id"]
    board.fold(an_event(6, "set", "EXEC", run_id, name="new", was={"name": "run-1"}))
    assert board.runs[run_id]["name"] == "new"
    board.fold(an_event(4, "set", "EXEC", run_id, name="old", was={"name": "older"}))
    assert board.runs[run_id]["name"] == "new"


def test_changes_are_of_what_is_known() -> None:
    """A run object that lacks a field, or has no labels, is compared by the rest."""
    assert changes({}, {}) == []
    assert changes({"labels": None}, {"labels": None, "priority": 1}) == ["priority (none) -> 1"]
