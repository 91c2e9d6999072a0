"""metrics, workers, health and why: reports that the daemon's answers are turned into."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mosaicctl.verbs.metrics import return_of
from mosaicd.protocol.errors import NotFound
from tests.ctl.scripted import Peer, ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]


def an_episode(seq: int, value: object) -> dict[str, Any]:
    return {"seq": seq, "at": 1.0, "kind": "episode", "data": {"type": "episode", "total_reward": value}}


@pytest.fixture
def learner(daemon: ScriptedDaemon) -> None:
    """A run of two attempts with 150 and 50 episodes, in pages of 40; each returns its own number."""
    attempts = {
        1: [an_episode(n, n) for n in range(1, 151)],
        2: [an_episode(n, 150 + n) for n in range(1, 51)],
    }

    def telemetry(params: dict[str, Any], peer: Peer) -> object:
        assert params["kinds"] == ["episode"]
        fresh = [record for record in attempts[params["attempt"]] if record["seq"] > params["cursor"]]
        page = fresh[:40]
        end = page[-1]["seq"] if page else params["cursor"]
        return {"records": page, "cursor": end, "eof": len(page) == len(fresh)}

    progress = {**a_run()["progress"], "episodes": 200}
    daemon.handlers["run.get"] = lambda params, peer: a_run(
        attempt=2, metrics={"loss": 0.5}, progress=progress
    )
    daemon.handlers["run.telemetry"] = telemetry


@pytest.mark.usefixtures("learner")
def test_metrics_has_the_mean_of_the_last_hundred(ctl: Ctl) -> None:
    """mean_return_100 is there for every worker that reports episodes, whether it says so itself or not."""
    metrics = json.loads(ctl("-o", "json", "metrics", "x")[1])["metrics"]
    assert metrics == {"loss": 0.5, "mean_return_100": sum(range(101, 201)) / 100}


@pytest.mark.usefixtures("learner")
def test_a_curve_goes_over_all_attempts(ctl: Ctl) -> None:
    """--plot draws the episodes of all attempts, --attempt those of one; unasked, a pipe gets no drawing."""
    assert "200 episodes" in ctl("metrics", "--plot", "x")[1]
    assert "50 episodes" in ctl("metrics", "--plot", "--attempt", "2", "x")[1]
    assert "└" not in ctl("metrics", "x")[1]


@pytest.mark.usefixtures("learner")
def test_jsonl_is_every_episode(ctl: Ctl) -> None:
    """-o jsonl prints the records themselves."""
    lines = ctl("metrics", "-o", "jsonl", "x")[1].splitlines()
    assert len(lines) == 200
    assert json.loads(lines[-1])["data"]["total_reward"] == 200


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"type": "episode", "total_reward": 4.0, "steps": 15}, 4.0),
        ({"type": "episode", "reward": -3, "success": False}, -3),
        ({"event": "episode", "payload": {"episode_return": 2}}, 2),
        ({"type": "episode"}, None),
    ],
)
def test_a_return_has_many_names(data: dict[str, Any], value: object) -> None:
    """Each dialect's word for an episode's return is understood."""
    assert return_of({"data": data}) == value


def test_a_run_without_episodes_has_no_curve(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """That is told in words; telemetry is asked only for what has episodes or a plot."""
    daemon.handlers["run.get"] = lambda params, peer: a_run(attempt=0)
    head, told = ctl("metrics", "x")[1].splitlines()
    assert "no metrics" in told
    assert ": EXEC, " in head and "-," not in head
    assert "no curve" in ctl("metrics", "--plot", "x")[1]


def test_workers(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A broken worker is listed with its fault and hides no other; one kind is told in full."""
    schema = {"properties": {"alpha": {"type": "number", "default": 0.1, "description": "learning rate"}}}
    schema["properties"]["seed"] = {"type": ["integer", "null"], "description": "of all randomness"}
    good = {
        "kind": "good",
        "module": "g",
        "python": "/g/python",
        "metadata": {"version": "2", "description": "fine"},
    }
    good |= {
        "capabilities": {"supports_pause_resume": True, "env_families": ["a", "b"]},
        "config_schema": schema,
    }
    daemon.handlers["worker.list"] = lambda params, peer: {
        "workers": [{"kind": "bad", "error": "no numpy"}, good]
    }
    out = ctl("workers")[1].splitlines()
    assert "no numpy" in out[1]
    assert out[2].split()[:5] == ["good", "2", "yes", "-", "-"]
    full = ctl("workers", "good")[1]
    assert "env families" in full
    assert "learning rate" in full
    assert "integer or null" in full
    assert ctl("workers", "bad")[0] == 2
    assert ctl("-o", "name", "workers")[1] == "bad\ngood\n"


def test_health(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """Ready is 0, still starting is 69, and warnings are told."""
    report = {"ready": True, "version": "1", "pid": 7, "uptime_s": 61, "counts": {"EXEC": 2, "TERM": 0}}
    report |= {"cpus": {"total": 4, "free": 1}, "warnings": ["the disk is full"], "quarantine": []}
    daemon.handlers["daemon.health"] = lambda params, peer: report
    code, out, _ = ctl("health")
    assert code == 0
    assert "2 EXEC" in out
    assert "1 of 4 free" in out
    assert "warning: the disk is full" in out
    report["ready"] = False
    assert ctl("health")[0] == 69


def test_why(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """Facts with who holds what, and the alternatives that would start it."""
    holder = {"run_id": "01X", "name": "big", "owner": "bob", "cpus": 1, "slots": [0]}
    answer = {
        "facts": [{"fact": "cpus", "text": "it needs 1 CPU; 0 of 1 are free", "held_by": [holder]}],
        "changes": [[{"text": "release it"}, {"text": "big of bob ends"}], [{"text": "ask for 0 GPUs"}]],
    }
    daemon.handlers["run.get"] = lambda params, peer: a_run(state="INIT")
    daemon.handlers["run.explain"] = lambda params, peer: answer
    out = ctl("why", "x")[1]
    assert "1 CPU, GPU 0: big (01X) of bob" in out
    assert "release it and big of bob ends" in out
    assert "or ask for 0 GPUs" in out


def test_a_refused_report_is_told(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """An unknown run is 3, with the daemon's words."""

    def refuse(params: object, peer: object) -> None:
        raise NotFound("there is no run 'x'", reference="x")

    daemon.handlers["run.get"] = refuse
    assert ctl("why", "x") == (3, "", "mosaicctl: there is no run 'x'\n")


def test_why_of_a_run_that_has_ended(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """It says that it has ended, and nothing of what keeps it waiting."""
    daemon.handlers["run.get"] = lambda params, peer: a_run(state="TERM", outcome="succeeded")
    daemon.handlers["run.explain"] = lambda params, peer: {"facts": [], "changes": []}
    assert ctl("why", "x")[1].endswith(": ended, succeeded\n")


def test_show_of_an_imported_run(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """Its origin is no run, and nothing is said of when it began where that is not known."""
    run = a_run(state="TERM", outcome="succeeded", origin="import", started_at=None, finished_at=2000.0)
    daemon.handlers["run.get"] = lambda params, peer: run
    out = ctl("show", "x")[1]
    assert "retry of" not in out
    assert "started" not in out
