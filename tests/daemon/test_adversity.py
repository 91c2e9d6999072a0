"""Faults at the worst moment: a full disk, a stopped shim, a shim that sends false facts, false exit
records."""

import hashlib
import hmac
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from mosaicctl.client import Client
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


@contextmanager
def full_disk(harness: DaemonHarness) -> Iterator[None]:
    """Let no file of the daemon grow, as on a full disk; shims and their logs are not affected."""
    assert harness.process is not None
    harness.allow(Catalogue.COMMIT_RETRIED)
    size_bytes = (harness.state_dir / "registry.sqlite3-wal").stat().st_size
    resource.prlimit(harness.process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(harness.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def refusals(harness: DaemonHarness) -> int:
    """Return how many commits the daemon has logged as to be retried."""
    return len(harness.logged(Catalogue.COMMIT_RETRIED))


def test_a_retry_due_on_a_full_disk_starts_when_there_is_room(build: Build) -> None:
    """A start that could not be recorded on a full disk happens when there is room again; later starts work
    too."""
    harness = build(retries={"backoff_s": 2.0, "backoff_max_s": 2.0, "crash_loop_attempts": 0})
    gate = harness.home / "gate"  # 10 retries: one may be spent before the disk is full
    run_id = harness.submit("sh", "-c", f"test -e {gate}", retries=10, retry_on=["exit_code"])
    wait_until(
        lambda: harness.get(run_id), lambda run: run["retries_used"] > 0, "the run waits for its retry"
    )
    with full_disk(harness):
        gate.touch()
        wait_until(lambda: refusals(harness), lambda count: count > 0, "a dispatch is refused")

    assert harness.ended(run_id)["outcome"] == "succeeded"
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_a_shim_lost_on_a_full_disk_is_recorded_later(harness: DaemonHarness) -> None:
    """The loss of a shim that could not be recorded on a full disk is recorded when there is room again."""
    harness.allow(Catalogue.SHIM_LOST)
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    with full_disk(harness):
        os.kill(shim, signal.SIGKILL)
        wait_until(lambda: refusals(harness), lambda count: count > 0, "the loss is refused")

    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("interrupted", "shim_lost")


def test_a_stop_that_a_stopped_shim_ignores_is_a_fault(build: Build) -> None:
    """If a stopped shim does not stop its run, the run is FAULT (unkillable), with its slots, until the shim
    acts."""
    harness = build(timeouts={"unkillable_s": 0.5})
    harness.allow(Catalogue.RUN_UNKILLABLE, Catalogue.SHIM_STUCK)
    run_id = harness.submit("sleep", "60", grace_s=0.1)
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    os.kill(shim, signal.SIGSTOP)
    harness.call("run.stop", run_id=run_id)
    run = harness.until(run_id, "FAULT")
    assert run["cause"]["kind"] == "unkillable"
    wait_until(lambda: harness.logged(Catalogue.RUN_UNKILLABLE, run_id), bool, "it is logged")
    assert harness.call("daemon.health")["ready"]

    os.kill(shim, signal.SIGCONT)
    assert harness.ended(run_id)["cause"]["kind"] == "unkillable"
    assert harness.pids(run_id) == []


def test_a_shim_lost_before_it_registers_again_is_noticed(harness: DaemonHarness) -> None:
    """A restarted daemon also watches shims that have not registered with it yet."""
    harness.allow(Catalogue.SHIM_LOST)
    run_id = harness.submit("sleep", "60")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    os.kill(shim, signal.SIGSTOP)
    harness.restart()
    assert harness.get(run_id)["state"] == "EXEC"
    os.kill(shim, signal.SIGKILL)

    run = harness.ended(run_id)
    assert (run["outcome"], run["cause"]["kind"]) == ("interrupted", "shim_lost")
    assert harness.pids(run_id) == []


EXITS = [
    '{"exit_code": 0, "finished_at": NaN, "metrics": {"a": NaN}, "error": "\\ud800"}',
    '{"exit_code": 0, "finished_at": 1e999, "active_s": -Infinity}',
    json.dumps({"exit_code": 0, "finished_at": 10**400, "active_s": 10**400, "steps": 10**400}),
    '{"exit_code": 0, "stop": "by_user", "finished_at": "today"}',
    '{"exit_code": 3, "stop": {"kind": []}, "released": true}',
    "[" * 200_000,
    "{}",
    "\0\0\0",
    "",
]


def test_no_exit_record_prevents_the_start(build: Build) -> None:
    """Whatever a user writes into exit.json, the daemon starts and every such run ends."""
    harness = build(cpus={"slots": len(EXITS)})
    harness.allow(Catalogue.SHIM_LOST, Catalogue.RECORD_TORN, Catalogue.RECORD_UNREADABLE)
    runs = [harness.submit("sleep", "60") for _ in EXITS]
    for run_id in runs:
        harness.until(run_id, "EXEC")
    shims = harness.shims()
    assert len(shims) == len(EXITS)
    harness.kill()
    for pid in shims:
        os.kill(pid, signal.SIGKILL)
    for run_id, text in zip(runs, EXITS, strict=True):
        (harness.attempt(run_id) / "exit.json").write_text(text)
    harness.start()

    outcomes = [harness.ended(run_id)["outcome"] for run_id in runs]
    assert outcomes[:3] == ["succeeded"] * 3 and set(outcomes[3:]) <= {"succeeded", "failed", "interrupted"}
    assert len(harness.call("run.list")["runs"]) == len(EXITS)


class FalseShim:
    """A user's own shim: it has the launch secret and sends any facts it likes."""

    def __init__(self, harness: DaemonHarness, run_id: str) -> None:
        self.run_id = run_id
        self.launch = json.loads((harness.attempt(run_id) / "launch.json").read_text())
        key = (harness.state_dir / "launch.key").read_bytes()
        message = f"{run_id}\0{self.launch['attempt']}\0{self.launch['nonce']}".encode()
        self._secret = hmac.new(key, message, hashlib.sha256).hexdigest()
        self.client: Client = harness.client()
        self.token = ""

    def register(self, **changes: Any) -> dict[str, Any]:
        """Register and keep the token; return the reply."""
        params = {
            "run_id": self.run_id, "attempt": self.launch["attempt"], "secret": self._secret,
            "worker_id": "w", "worker_kind": "command", "proto_version": 1, "schema_version": 1,
            "schema_id": "mosaic.telemetry",
            "supports_pause": False, "supports_checkpoint": False, "shim_pid": self.launch["shim_pid"],
            "shim_start_ticks": self.launch["shim_started_at"], "status": {}, **changes,
        }  # fmt: skip
        reply: dict[str, Any] = self.client.call("worker.register", params)
        self.token = reply["session_token"]
        return reply

    def send_facts(self, *facts: dict[str, Any]) -> dict[str, Any]:
        """Send facts; return the reply."""
        params = {"run_id": self.run_id, "session_token": self.token, "facts": list(facts)}
        reply: dict[str, Any] = self.client.call("worker.fact", params)
        return reply


@contextmanager
def false_shim(harness: DaemonHarness, run_id: str) -> Iterator[FalseShim]:
    """Stop the run's shim with SIGSTOP and take its place meanwhile."""
    [real] = harness.shims()
    os.kill(real, signal.SIGSTOP)
    shim = FalseShim(harness, run_id)
    try:
        yield shim
    finally:
        shim.client.close()
        os.kill(real, signal.SIGCONT)


FACTS: list[dict[str, Any]] = [
    {"fact": "exited", "at": 10**400, "exit_code": 0},
    {"fact": "exited", "at": 1.0, "exit_code": 10**30},
    {"fact": "exited", "at": 1.0, "stop": {"kind": "nonsense"}},
    {"fact": ["exited"], "at": 1.0},
    {"fact": "paused", "at": 1.0, "mode": {}},
    {"fact": "dispatched", "at": 1.0, "slots": [0]},
    {"fact": "spawned", "at": 1.0, "pid": -(10**30)},
    {"fact": "limit_reached", "at": 1.0, "kind": []},
    {},
]


def test_false_facts_change_no_run(harness: DaemonHarness) -> None:
    """False facts from a shim are answered and change neither its run nor the daemon."""
    harness.allow(Catalogue.FACT_REFUSED)
    run_id = harness.submit("sleep", "60")
    before = harness.until(run_id, "EXEC")
    with false_shim(harness, run_id) as shim:
        shim.register()
        for fact in FACTS:
            assert shim.send_facts(fact)["accepted"] in (0, 1)
        for pid in (0, -1, 2**31, 2**62):
            shim.register(shim_pid=pid)
        after = harness.get(run_id)
        assert (after["state"], after["pid"], after["exit_code"]) == ("EXEC", before["pid"], None)
    harness.call("run.stop", run_id=run_id)
    assert harness.ended(run_id)["outcome"] == "cancelled"


def test_an_exit_with_out_of_range_numbers_ends_the_run(harness: DaemonHarness) -> None:
    """Out-of-range numbers in an exit fact are left out of the record; the run ends and can be listed."""
    run_id = harness.submit("sleep", "60")
    worker = harness.until(run_id, "EXEC")["pid"]
    with false_shim(harness, run_id) as shim:
        shim.register()
        shim.send_facts({
            "fact": "exited", "at": 1.0, "exit_code": 4, "finished_at": 10**400, "active_s": 10**400,
            "steps": -(10**400), "signal": None, "released": True, "metrics": {"a": 10**400},
        })  # fmt: skip
        os.kill(worker, signal.SIGKILL)
        run = harness.ended(run_id)
    assert (run["outcome"], run["exit_code"], run["metrics"]) == ("failed", 4, {})
    assert [run["run_id"] for run in harness.call("run.list")["runs"]] == [run_id]


def test_the_session_token_of_an_ended_attempt_is_refused(build: Build) -> None:
    """A late shim of attempt 1 is refused while the run waits for attempt 2, and during attempt 2."""
    harness = build(retries={"backoff_s": 0.5, "backoff_max_s": 0.5})
    run_id = harness.python("import time; time.sleep(60)", retries=1, retry_on=["exit_code"])
    worker = harness.until(run_id, "EXEC")["pid"]
    with false_shim(harness, run_id) as late:
        late.register()
        late.send_facts({"fact": "exited", "at": time.time(), "exit_code": 4})
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: harness.get(run_id)["retries_used"], lambda used: used == 1, "attempt 1 has ended")
        with pytest.raises(MosaicError) as refused:
            late.send_facts({"fact": "exited", "at": time.time(), "exit_code": 0})
        assert refused.value.name == "unauthenticated"
        wait_until(lambda: harness.get(run_id)["attempt"], lambda attempt: attempt == 2, "attempt 2 starts")
        with pytest.raises(MosaicError):
            late.send_facts({"fact": "exited", "at": time.time(), "exit_code": 0})
        with pytest.raises(MosaicError):
            late.register()
    assert harness.until(run_id, "EXEC")["attempt"] == 2
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["outcome"] == "cancelled"


#: The last argument is $0 of the shell. Because it is a --config, mosaicd adds none.
MUTE = ["-c", "exec sleep 60", "--config=none"]


def worker_config(**config: Any) -> dict[str, Any]:
    """Return the TrainRunConfig of a worker that prints nothing."""
    return {
        "run_name": "mute", "entry_point": "x", "arguments": [], "environment": {}, "artifacts": {},
        "resources": {"cpus": 1, "memory_mb": 512, "gpus": {"requested": 0}},
        "metadata": {"worker": {"script": "/bin/sh", "arguments": MUTE, "config": config}},
    }  # fmt: skip


def test_concurrent_submits_of_one_id_are_one_run(harness: DaemonHarness) -> None:
    """Concurrent submits with the same run id and config all get the same run, and no conflict."""
    config = worker_config(run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: harness.submit_config(config), range(8)))
    assert {run["run_id"] for run in runs} == {"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    assert sorted(run["duplicate"] for run in runs) == [False] + [True] * 7
    assert harness.call("run.stop", run_id=runs[0]["run_id"], grace_s=0)["want"] == "stop"


def test_a_release_before_any_work_ends_the_run(harness: DaemonHarness) -> None:
    """If a worker that never began reports `released`, its run ends; the daemon does not crash."""
    run_id = harness.submit_config(worker_config())["run_id"]
    run = wait_until(lambda: harness.get(run_id), lambda run: run["pid"], "the worker has started")
    assert run["state"] == "RDY"
    with false_shim(harness, run_id) as shim:
        shim.register()
        shim.send_facts({"fact": "exited", "at": time.time(), "exit_code": 0, "released": True})
        os.kill(run["pid"], signal.SIGKILL)
        assert harness.ended(run_id)["outcome"] == "succeeded"
