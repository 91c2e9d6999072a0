"""Selectors and filters: which runs a verb is about."""

from collections.abc import Callable
from typing import Any

import pytest

from mosaicctl.select import me
from tests.ctl.scripted import Peer, ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stopped(daemon: ScriptedDaemon) -> Callable[[], list[str]]:
    """A daemon that stops anything, and which runs it was asked to stop."""
    daemon.handlers["run.stop"] = lambda params, peer: a_run(want="stop", run_id=params["run_id"])
    return lambda: [params["run_id"] for params in daemon.asked("run.stop")]


def test_ids_prefixes_and_names_are_the_daemons_business(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """What names one run is sent as it is, without another question; a word given twice is one."""
    assert ctl("stop", "01j0", "my-run", "01j0")[0] == 0
    assert stopped() == ["01j0", "my-run"]
    assert not daemon.asked("run.list")


def test_at_is_my_last_run(daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]) -> None:
    """`@` is the newest run of the caller."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(8)], "cursor": "more"}
    assert ctl("stop", "@")[0] == 0
    assert daemon.asked("run.list") == [{"user": me(), "newest_first": True, "limit": 1}]
    assert stopped() == [a_run(8)["run_id"]]


def test_at_without_any_run(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`@` of a user without runs is "not found"."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [], "cursor": None}
    code, _, err = ctl("show")
    assert code == 3
    assert "@" in err


def test_a_pattern_is_every_run_with_such_a_name(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """A quoted pattern selects by name, over all pages."""

    def pages(params: dict[str, Any], peer: Peer) -> object:
        assert params["name"] == "sweep-*"
        return (
            {"runs": [a_run(2)], "cursor": None}
            if params.get("cursor")
            else {"runs": [a_run(1)], "cursor": "2"}
        )

    daemon.handlers["run.list"] = pages
    assert ctl("stop", "sweep-*")[0] == 0
    assert stopped() == [a_run(1)["run_id"], a_run(2)["run_id"]]


def test_filters_choose_among_my_live_runs(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """--all, --state and -l are joined by AND, and never reach ended or foreign runs."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(1), a_run(2)], "cursor": None}
    assert ctl("stop", "--state", "paused,EXEC", "-l", "team=a", "-l", "x=1=2")[0] == 0
    assert daemon.asked("run.list") == [
        {"live": True, "user": me(), "state": ["PAUSE", "EXEC"], "label": {"team": "a", "x": "1=2"}}
    ]
    assert len(stopped()) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["stop"], "RUN"),
        (["pause", "--all", "x"], "--all"),
        (["stop", "--state", "sleeping"], "'sleeping'"),
        (["stop", "-l", "nonsense"], "K=V"),
        (["stop", "--grace", "soon", "x"], "--grace: 'soon'"),
        (["set", "x"], "--priority"),
    ],
)
def test_a_choice_that_makes_no_sense_is_2(
    argv: list[str], words: str, daemon: ScriptedDaemon, ctl: Ctl
) -> None:
    """Nothing is stopped by a slip: no runs, two ways of choosing, an unknown state."""
    code, out, err = ctl(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert not daemon.calls


@pytest.mark.parametrize("verb", ["logs", "metrics"])
def test_a_verb_about_one_run_wants_one(verb: str, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A pattern that fits several runs is refused in words, not by a traceback."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(1), a_run(2)], "cursor": None}
    code, out, err = ctl(verb, "sweep-*")
    assert (code, out) == (2, "")
    assert "sweep-*" in err and "2 runs" in err and err.count("\n") == 1


def test_an_older_word_for_an_end_says_which(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`--state failed` means the failed, not every run that has ended: the daemon is asked by that word."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [], "cursor": None}
    ctl("list", "-o", "name", "--state", "Failed,running", "--state", "TERM")
    assert daemon.asked("run.list") == [{"state": ["failed", "EXEC", "TERM"]}]


def test_a_filter_without_a_match_is_3(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A filter that fits no run is an error, never silently all or none."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [], "cursor": None}
    assert ctl("stop", "--all")[0] == 3
