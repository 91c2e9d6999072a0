"""Replies: what each verb prints about an answer of the daemon."""

import os
import signal
from typing import Any
from unittest import mock

from mosaicctl.offline import Refused
from mosaicd.protocol.errors import Unavailable
from tests.ctl.scripted import Hangup, Peer, a_chunk, a_run, an_ended_run, an_event
from tests.golden.stage import NOW, Stage

RUN_ID = a_run()["run_id"]


def submits(stage: Stage) -> None:
    """submit and retry."""
    stage.title("Replies: submit, retry")
    stage.ctl("submit -- true", {"run.submit": a_run(state="INIT")})
    with mock.patch("mosaicctl.dropped_input.has_input", return_value=True):
        stage.ctl("submit -- bash -s", {"run.submit": a_run(state="INIT")})
    stage.ctl("submit --hold -- true", {"run.submit": a_run(state="INIT", held=True)})
    stage.ctl("submit -- true", {"run.submit": a_run(duplicate=True)})
    attached = a_run(duplicate=True, differing_variables=["LR", "PATH"])
    stage.ctl("submit -- true", {"run.submit": attached})
    rewritten = a_run(state="INIT", overwritten_variables=["CLEANRL_RUN_ID", "RUN_ID"])
    stage.ctl("submit -- true", {"run.submit": rewritten})
    stage.ctl("submit -- true", {"run.submit": a_run(state="INIT", cut_attributes=["core", "nofile"])})
    exported = {"RANK": "0", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "RUN_ID": "x", "DISPLAY": ":0"}
    with mock.patch.dict(os.environ, {**exported, "BYTES": os.fsdecode(b"\xff")}):
        stage.ctl("submit -- true", {"run.submit": a_run(state="INIT")})
    stage.ctl("submit --key k -- true", {"run.submit": an_ended_run(duplicate=True, outcome="failed")})
    kept = {"run_id": RUN_ID, "variables": {"LR": "3e-4", "NOTE": "a b"}, "secrets": ["HF_TOKEN"]}
    stage.ctl("show --env a", {"run.environment": kept})
    stage.ctl("retry a", {"run.retry": a_run(2, state="INIT", origin=RUN_ID)})


def requests(stage: Stage) -> None:
    """pause, resume, stop, hold, release, set, pin, unpin, wait."""
    stage.title("Replies: requests about runs")
    stage.ctl("pause a", {"run.pause": a_run(want="pause")})
    stage.ctl(
        "pause --wait a", {"run.pause": a_run(want="pause"), "run.wait": a_run(state="PAUSE", want="pause")}
    )
    stage.ctl("resume a", {"run.resume": a_run(state="PAUSE")})
    stage.ctl("stop a", {"run.stop": a_run(want="stop")})
    stage.ctl(
        "stop --wait a", {"run.stop": a_run(want="stop"), "run.wait": an_ended_run(outcome="cancelled")}
    )
    stage.ctl("hold a", {"run.hold": a_run(state="INIT", held=True)})
    stage.ctl("release a", {"run.release": a_run(state="INIT")})
    was = a_run(labels={"team": "a", "old": "1"})
    now = a_run(labels={"team": "b", "new": ""}, priority=5, name="base")
    stage.ctl("set a -p 5", {"run.get": was, "run.set": now})
    stage.ctl("set a -p 0", {"run.get": was, "run.set": was})
    stage.ctl("pin a", {"run.pin": an_ended_run()})
    stage.ctl("unpin a", {"run.unpin": an_ended_run()})
    failed = an_ended_run(outcome="failed", exit_code=7, cause={"kind": "exit_code", "exit_code": 7})
    stage.ctl("wait a", {"run.wait": failed})
    stage.ctl("wait --state EXEC a", {"run.wait": a_run()})


def follows(stage: Stage) -> None:
    """run and watch: states, Ctrl-C, a daemon that restarts."""
    stage.title("Replies: run, watch")
    stage.ctl("run -- true", _life(an_ended_run()))
    stage.ctl("run -- true", _life(an_ended_run(), submitted=a_run(duplicate=True, rev=0)))
    cause = {"kind": "spawn_failed", "error": "no such file: x"}
    stage.ctl("run -q -- true", _life(an_ended_run(outcome="failed", exit_code=None, cause=cause)))
    stage.ctl("run -- true", _life(an_ended_run(outcome="cancelled", signal=15), interrupts=1))
    stage.ctl("run -- true", _life(an_ended_run(left_processes=1)))
    stage.ctl("run -q -- true", _life(an_ended_run(outcome="failed", exit_code=7, left_processes=2)))
    stage.ctl("run --detach-on-interrupt -- true", _life(an_ended_run(), interrupts=1))
    stage.ctl("watch a", {"run.get": an_ended_run(), "run.watch": {"epoch": "e1", "cursor": 10, "runs": []}})
    stage.ctl("watch a", _restored())


def outputs(stage: Stage) -> None:
    """logs and metrics: what is said beside the output itself."""
    stage.title("Replies: logs, metrics")
    gone = {"run.get": a_run(), "run.logs": _gap}
    stage.ctl("logs --since 10m a", gone)
    stage.ctl("logs --post-mortem a", {"run.get": a_run(), "run.logs": a_chunk(b"", 0, eof=True)})
    stage.ctl("metrics a", {"run.get": a_run()})
    stage.ctl("metrics --plot a", {"run.get": a_run(attempt=0)})
    stage.ctl("metrics a", {"run.get": a_run(metrics={"loss": 0.5, "mean_return_100": 7.25})})


def shows(stage: Stage) -> None:
    """list and show."""
    stage.title("Replies: list, show")
    runs = [
        a_run(1, state="INIT", reason="needs 2 CPUs, 1 of 2 free"),
        a_run(2, want="pause"),
        an_ended_run(3, outcome="failed", exit_code=7, cause={"kind": "exit_code", "exit_code": 7}),
    ]
    stage.ctl("list -a", {"run.list": {"runs": runs, "cursor": None}})
    stage.ctl("list", {"run.list": lambda params, peer: _page(runs, params)}, on_terminal=True)
    full: dict[str, Any] = {
        "cpus": {"requested": 4, "granted": 2},
        "memory_mb": 512,
        "limits": {"memory_bytes": 512 << 20, "tasks": 99},
        "containment": "cgroup-v2",
        "stall_s": 600.0,
        "heartbeat_timeout_s": 60.0,
        "time_limit_s": 5400.0,
        "retries": 2,
        "retries_used": 1,
        "pinned": True,
        "metrics": {"loss": 0.5},
        "labels": {"team": "a"},
    }
    stage.ctl("show a", {"run.get": a_run(**full)})
    standing = {"processes": 2, "waits_in": "futex_wait", "state": "S", "python": "train.py:7 in step"}
    stuck = {"kind": "stuck", "after_s": 600, "post_mortem": standing}
    stage.ctl("show a", {"run.get": an_ended_run(outcome="failed", exit_code=None, signal=9, cause=stuck)})
    leftovers = {
        "processes": [{"pid": 7, "command": "python3 train.py"}, {"pid": 8, "command": "a\x1b[2Jb"}],
        "shared_memory_files": 2,
        "shared_memory_bytes": 92 << 20,
        "shared_memory": [{"path": "/dev/shm/psm_1", "bytes": 92 << 20}],
        "removed_shared_memory": {"files": 1, "bytes": 4096, "failed": 1},
    }
    stage.ctl("show a", {"run.get": an_ended_run(left_processes=3), "run.leftovers": leftovers})
    refused = Unavailable("leftovers.json of attempt 1 cannot be read: it is not JSON")
    stage.ctl("show a", {"run.get": an_ended_run(), "run.leftovers": refused})
    stage.ctl("show a", {"run.get": an_ended_run(origin="import", started_at=None)})


def explanations(stage: Stage) -> None:
    """why and workers."""
    stage.title("Replies: why, workers")
    holder = {"run_id": "01X", "name": "big", "owner": "bob", "cpus": 1, "slots": [0]}
    ahead = {"run_id": "01Y", "owner": "bob", "because": "submitted earlier"}
    explanation = {
        "facts": [
            {"fact": "cpus", "text": "it needs 1 CPU; 0 of 1 are free", "held_by": [holder]},
            {"fact": "order", "text": "1 run is ahead of it (bob)", "runs": [ahead]},
        ],
        "changes": [[{"text": "release it"}, {"text": "big of bob ends"}], [{"text": "ask for 0 GPUs"}]],
    }
    waiting = a_run(state="INIT")
    stage.ctl("why a", {"run.get": waiting, "run.explain": explanation})
    stage.ctl("why a", {"run.get": waiting, "run.explain": {"facts": [], "changes": []}})
    broken = {"kind": "broken", "error": "no numpy"}
    good = {
        "kind": "good",
        "module": "g",
        "python": "/g/python",
        "metadata": {"version": "2"},
        "capabilities": {},
    }
    stage.ctl("workers", {"worker.list": {"workers": [broken, good]}})
    stage.ctl("workers", {"worker.list": {"workers": []}})


def reports(stage: Stage) -> None:
    """health."""
    stage.title("Replies: health")
    report = {
        "ready": True,
        "version": "0.1.0",
        "protocol": 1,
        "pid": 7,
        "uptime_s": 61,
        "socket": "/s/s",
        "state_dir": "/s",
        "counts": {"EXEC": 2},
        "cpus": {"total": 4, "free": 2},
        "gpus": {"total": 1, "free": 1},
        "containment": {"holds": "cgroup-v2", "enforces": ["memory", "pids"]},
        "wal": {"at": NOW, "busy": 0, "log": 9, "checkpointed": 9},
        "quarantine": [{"run_id": "01X", "why": "w"}],
        "warnings": ["a sentence [LOG2101]"],
    }
    stage.ctl("health", {"daemon.health": report})
    stage.ctl("health", {"daemon.health": {**report, "draining": True, "warnings": [], "quarantine": []}})
    stage.ctl("health", {"daemon.health": {**report, "ready": False, "warnings": [], "quarantine": []}})


def upkeep(stage: Stage) -> None:
    """prune and import."""
    stage.title("Replies: prune, import")
    gone = {
        "run_id": RUN_ID,
        "name": "old",
        "owner": "ada",
        "outcome": "failed",
        "finished_at": 900.0,
        "bytes": 2048,
        "why": "more than 10 runs of ada",
    }
    kept = {"run_id": "01X", "why": "it is pinned", "error": "conflict"}
    report = {"runs": [gone], "count": 1, "bytes": 2048, "complete": True, "kept": [], "dry_run": False}
    stage.ctl("prune --dry-run", {"run.prune": {**report, "dry_run": True}})
    stage.ctl("prune --yes --older-than 1d", {"run.prune": {**report, "count": 300, "kept": [kept]}})
    stage.ctl("prune --older-than 1d", {"run.prune": {**report, "dry_run": True}})
    none = {"run_id": "b", "why": "there is no run 'b'", "error": "not_found"}
    stage.ctl(
        "prune 01X b", {"run.prune": {**report, "runs": [], "count": 0, "bytes": 0, "kept": [kept, none]}}
    )
    old = stage.directory / "old.sqlite"
    old.touch()
    imported = {
        "path": str(old),
        "dry_run": False,
        "rows": 5,
        "imported": 2,
        "known": 1,
        "skipped": 2,
        "outcomes": {"failed": 2},
        "run_ids": [],
        "unknown_columns": ["notes"],
        "missing_columns": ["digest"],
        "notes": [{"note": "'sleeping' is not a state", "rows": 2}],
    }
    stage.ctl(f"import {old}", {"daemon.import": imported})
    stage.ctl(f"import --dry-run {old}", {"daemon.import": {**imported, "dry_run": True}})


def registries(stage: Stage) -> None:
    """backup, restore, daemon."""
    stage.title("Replies: backup, restore, daemon")
    old = stage.directory / "old.sqlite"
    made = {"path": "/b/copy", "runs": 3, "last_seq": 40, "bytes": 8192}
    stage.ctl(f"backup {stage.directory / 'copy'}", {"daemon.backup": made})
    restored = {
        "runs": 3,
        "last_seq": 40,
        "restored_from": "/b/copy",
        "set_aside": "/s/set-aside/x",
        "epoch": "e2",
        "held": ["01A"],
        "as_found": ["01B"],
        "quarantined": ["01C"],
        "unknown_directories": ["01D", "01E"],
        "at_work": ["01D"],
    }
    with mock.patch("mosaicctl.verbs.restore.run_mosaicd", lambda *_: restored):
        stage.ctl(f"restore {old}")
    refused = Refused("DIR/lock is already in use by mosaicd 0.1.0 (pid 7)")
    with mock.patch("mosaicctl.verbs.restore.run_mosaicd", side_effect=refused):
        stage.ctl(f"restore {old}")
    with mock.patch("time.monotonic", lambda: 5.0):
        stage.ctl(
            "daemon reexec",
            {"daemon.reexec": _replaced, "daemon.health": {"ready": True, "pid": 7, "version": "0.2.0"}},
        )


def _page(runs: list[dict[str, Any]], params: dict[str, Any]) -> dict[str, Any]:
    """Return the live runs, or a page of the ended runs that is not the last one."""
    wanted = [run for run in runs if (run["state"] != "TERM") == params["live"]]
    return {"runs": wanted, "cursor": None if params["live"] else "more"}


def _replaced(params: dict[str, Any], peer: Peer) -> Any:
    """Answer the first request of a connection, and close it."""
    peer.send({"jsonrpc": "2.0", "id": 1, "result": {"version": "0.1.0"}})
    raise Hangup


def _gap(params: dict[str, Any], peer: Peer) -> Any:
    chunk = a_chunk(b"tail\n", 1005, eof=True)
    return chunk if params["cursor"] >= 1005 else {**chunk, "gap": {"from": 400, "to": 1000}}


def _life(
    ended: dict[str, Any], submitted: dict[str, Any] | None = None, interrupts: int = 0
) -> dict[str, Any]:
    """Handlers of one run that is submitted, started and ended; Ctrl-C comes after its start."""
    last = an_event(3, "finished", "TERM", outcome=ended["outcome"], at=NOW)

    def watch(params: dict[str, Any], peer: Peer) -> Any:
        peer.notify("run.event", an_event(1, "submitted", "INIT", attempt=0, at=NOW))
        peer.notify("run.event", an_event(2, "started", "EXEC", at=NOW))
        if not interrupts:
            peer.notify("run.event", last)
        return {"epoch": "e1", "cursor": 0, "runs": [], "subscription": 1}

    def logs(params: dict[str, Any], peer: Peer) -> Any:
        if interrupts and params["stream"] == "stderr" and params.get("follow"):
            os.kill(os.getpid(), signal.SIGINT)
        return a_chunk(b"", params["cursor"], eof=True, attempt=1, subscription=f"log {params['stream']}")

    def stop(params: dict[str, Any], peer: Peer) -> Any:
        peer.notify("run.event", last)
        return a_run(want="stop")

    return {
        "run.submit": submitted or a_run(state="INIT", rev=0, attempt=0),
        "run.get": ended,
        "run.watch": watch,
        "run.logs": logs,
        "run.stop": stop,
    }


def _restored() -> dict[str, Any]:
    """Handlers of a daemon that goes away after a first event, and comes back with another ledger."""
    asked: list[dict[str, Any]] = []

    def watch(params: dict[str, Any], peer: Peer) -> Any:
        from mosaicd.protocol.errors import Conflict

        asked.append(params)
        if len(asked) == 1:
            peer.notify("run.end", {"subscription": 1, "reason": "shutdown"})
            return {"epoch": "e1", "cursor": 10, "runs": [], "subscription": 1}
        if params.get("epoch"):
            raise Conflict("the epoch is another one")
        peer.notify("run.event", an_event(3, "finished", "TERM", outcome="succeeded", at=NOW, rev=9))
        return {"epoch": "e2", "cursor": 2, "runs": [], "subscription": 1}

    return {"run.get": a_run(), "run.watch": watch}


SECTIONS = (submits, requests, follows, outputs, shows, explanations, reports, upkeep, registries)
