"""Selectors and filters: the runs that a verb works on."""

from collections.abc import Callable
from typing import Any

import pytest

from mosaicctl.select import own_user_name
from tests.ctl.scripted import Peer, ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stopped(daemon: ScriptedDaemon) -> Callable[[], list[str]]:
    """Return a function that lists the runs that the daemon was requested to stop."""
    daemon.handlers["run.stop"] = lambda params, peer: a_run(want="stop", run_id=params["run_id"])
    return lambda: [params["run_id"] for params in daemon.requests("run.stop")]


def test_ids_prefixes_and_names_are_sent_unchanged(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """Ids, prefixes and names go to the daemon unchanged and without run.list; duplicates are sent once."""
    assert ctl("stop", "01j0", "my-run", "01j0")[0] == 0
    assert stopped() == ["01j0", "my-run"]
    assert not daemon.requests("run.list")


def test_at_means_the_newest_run_of_the_user(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """`@` means the newest run of the user."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(8)], "cursor": "more"}
    assert ctl("stop", "@")[0] == 0
    assert daemon.requests("run.list") == [{"user": own_user_name(), "newest_first": True, "limit": 1}]
    assert stopped() == [a_run(8)["run_id"]]


def test_at_without_runs_exits_3(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """If the user has no runs, `@` exits with 3."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [], "cursor": None}
    code, _, err = ctl("show")
    assert code == 3
    assert "@" in err


def test_pattern_selects_all_runs_with_a_matching_name(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """A pattern selects all runs with a matching name, over all pages of run.list."""

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


def test_filters_select_live_runs_of_the_user(
    daemon: ScriptedDaemon, ctl: Ctl, stopped: Callable[[], list[str]]
) -> None:
    """--all, --state and -l are combined with AND and select only live runs of the user."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(1), a_run(2)], "cursor": None}
    assert ctl("stop", "--state", "paused,EXEC", "-l", "team=a", "-l", "x=1=2")[0] == 0
    assert daemon.requests("run.list") == [
        {
            "live": True,
            "user": own_user_name(),
            "state": ["PAUSE", "EXEC"],
            "label": {"team": "a", "x": "1=2"},
        }
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
def test_invalid_selection_exits_2(argv: list[str], words: str, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A missing, contradictory or invalid selection exits with 2, and no request is sent."""
    code, out, err = ctl(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert not daemon.calls


@pytest.mark.parametrize("verb", ["logs", "metrics"])
def test_verb_for_one_run_refuses_several(verb: str, daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A verb for one run refuses a pattern that matches several runs, with exit code 2."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(1), a_run(2)], "cursor": None}
    code, out, err = ctl(verb, "sweep-*")
    assert (code, out) == (2, "")
    assert "sweep-*" in err and "2 runs" in err and err.count("\n") == 1


def test_state_failed_selects_failed_runs(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`list --state failed` selects failed runs, not all ended runs."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [], "cursor": None}
    ctl("list", "-o", "name", "--state", "Failed,running", "--state", "TERM")
    assert daemon.requests("run.list") == [{"state": ["failed", "EXEC", "TERM"]}]


def test_filter_without_a_match_exits_3(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A filter that matches no run exits with 3."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [], "cursor": None}
    assert ctl("stop", "--all")[0] == 3
