"""The reports of `metrics`, `workers`, `health`, `why` and `show`."""

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
    """A run with 150 and 50 episodes in two attempts, in pages of 40; episode n returns n."""
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
def test_metrics_has_the_mean_of_the_last_hundred_returns(ctl: Ctl) -> None:
    """`metrics` computes mean_return_100 if the worker reports episodes without it."""
    metrics = json.loads(ctl("-o", "json", "metrics", "x")[1])["metrics"]
    assert metrics == {"loss": 0.5, "mean_return_100": sum(range(101, 201)) / 100}


@pytest.mark.usefixtures("learner")
def test_plot_covers_all_attempts(ctl: Ctl) -> None:
    """--plot draws the episodes of all attempts, with --attempt of one; a pipe gets no plot by default."""
    assert "200 episodes" in ctl("metrics", "--plot", "x")[1]
    assert "50 episodes" in ctl("metrics", "--plot", "--attempt", "2", "x")[1]
    assert "└" not in ctl("metrics", "x")[1]


@pytest.mark.usefixtures("learner")
def test_metrics_jsonl_prints_every_episode(ctl: Ctl) -> None:
    """`metrics -o jsonl` prints every episode record."""
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
def test_return_is_found_under_every_known_name(data: dict[str, Any], value: object) -> None:
    """The return of an episode is found under every known name."""
    assert return_of({"data": data}) == value


def test_run_without_episodes_has_no_metrics_and_no_curve(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`metrics` of a run without episodes reports that there are no metrics, and with --plot no curve."""
    daemon.handlers["run.get"] = lambda params, peer: a_run(attempt=0)
    head, message = ctl("metrics", "x")[1].splitlines()
    assert "no metrics" in message
    assert ": EXEC, " in head and "-," not in head
    assert "no curve" in ctl("metrics", "--plot", "x")[1]


def test_workers_lists_broken_workers_with_their_error(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """A broken worker is listed with its error beside the others; `workers KIND` prints all details."""
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


def test_health_exits_0_only_if_ready(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`health` exits with 0 if the daemon is ready and with 69 if it is starting; warnings are printed."""
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


def test_why_prints_reasons_holders_and_changes(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`why` prints the reasons, the holders of resources, and the changes that would start the run."""
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


def test_why_of_an_unknown_run_exits_3(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`why` of an unknown run exits with 3 and the daemon's message."""

    def refuse(params: object, peer: object) -> None:
        raise NotFound("there is no run 'x'", reference="x")

    daemon.handlers["run.get"] = refuse
    assert ctl("why", "x") == (3, "", "mosaicctl: there is no run 'x'\n")


def test_why_of_an_ended_run_prints_the_outcome(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`why` of an ended run prints its outcome."""
    daemon.handlers["run.get"] = lambda params, peer: a_run(state="TERM", outcome="succeeded")
    daemon.handlers["run.explain"] = lambda params, peer: {"facts": [], "changes": []}
    assert ctl("why", "x")[1].endswith(": ended, succeeded\n")


def test_show_of_an_imported_run_has_no_origin(daemon: ScriptedDaemon, ctl: Ctl) -> None:
    """`show` of an imported run prints no origin and no unknown start time."""
    run = a_run(state="TERM", outcome="succeeded", origin="import", started_at=None, finished_at=2000.0)
    daemon.handlers["run.get"] = lambda params, peer: run
    out = ctl("show", "x")[1]
    assert "retry of" not in out
    assert "started" not in out
