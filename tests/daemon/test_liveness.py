"""Liveness: each limit has its own cause, and a post-mortem is written before the run is killed."""

import os
import signal
import sys
import time
from typing import Any

import pytest

from mosaicd.protocol.errors import InvalidParams
from tests.daemon.workshop import config_of, idle, post_mortem, workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

#: Timeouts that do not pass during a test.
PATIENT = {"heartbeat_timeout_s": 60, "start_timeout_s": 60}
#: A limit that a slow machine alone does not reach; the steps take longer than it, all together.
LIMIT_S = 3.5
STEPS, STEP_S = 12, 0.4
#: For a program that ends by itself after SIGTERM.
GRACE_S = 15.0


def wait_for_seconds(seconds: float) -> None:
    """Wait until `seconds` have passed."""
    end = time.monotonic() + seconds
    wait_until(time.monotonic, lambda now: now > end, f"{seconds} s pass")


def cause_of(harness: DaemonHarness, run_id: str) -> dict[str, Any]:
    """Return the cause of a run that ends as failed."""
    run = harness.ended(run_id)
    assert run["outcome"] == "failed", run
    cause: dict[str, Any] = run["cause"]
    return cause


def test_each_liveness_limit_has_its_cause(build: Build) -> None:
    """A worker without steps is stuck, one without output has lost its heartbeat, one that never begins
    exceeds the start timeout.

    Each cause has the limit and a post-mortem; the post-mortem has Python stacks if the worker can write
    them.
    """
    harness = workshop(build, cpus={"slots": 4}, timeouts={"post_mortem_s": 20.0})
    stuck = idle(harness, {**PATIENT, "stall_s": LIMIT_S}, steps=STEPS, step_s=STEP_S, hang=True)
    silent = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S}, beat_s=60, hang=True)
    unborn = idle(harness, {**PATIENT, "start_timeout_s": LIMIT_S}, start_delay_s=60)

    cause = cause_of(harness, stuck)
    assert (cause["kind"], cause["after_s"], cause["steps"]) == ("stuck", LIMIT_S, STEPS)
    assert cause["post_mortem"]["file"] == "post-mortem.txt"
    assert cause["post_mortem"]["python"].startswith("idler.py:")
    assert cause["post_mortem"]["python"].endswith(" in hang")
    run = harness.get(stuck)
    assert run["progress"]["steps"] == STEPS and run["finished_at"] - run["started_at"] > LIMIT_S
    text = post_mortem(harness, stuck)
    for heading in ("== process", "waits in", "pipe:[", "stdout.log", "== Python stacks", "in hang"):
        assert heading in text, text

    cause = cause_of(harness, silent)
    assert (cause["kind"], cause["after_s"]) == ("heartbeat_lost", LIMIT_S)
    assert "in hang" in cause["post_mortem"]["python"]

    cause = cause_of(harness, unborn)
    assert (cause["kind"], cause["after_s"]) == ("start_timeout", LIMIT_S)
    assert "python" not in cause["post_mortem"] and cause["post_mortem"]["processes"] >= 1


@pytest.mark.slow
def test_a_worker_without_steps_lives_if_stall_s_is_off(build: Build) -> None:
    """`stall_s` is off by default: a worker that sends heartbeats and makes no step is not ended."""
    harness = workshop(build)
    gate = harness.home / "go"
    run_id = idle(harness, PATIENT, hang=True, hang_until=str(gate))
    harness.until(run_id, "EXEC")
    seq = harness.get(run_id)["progress"]["telemetry_seq"]
    wait_until(
        lambda: harness.get(run_id)["progress"]["telemetry_seq"],
        lambda now: now > seq + 10,
        "heartbeats arrive",
    )
    assert harness.get(run_id)["state"] == "EXEC" and harness.get(run_id)["stall_s"] is None
    gate.touch()
    assert harness.ended(run_id)["outcome"] == "succeeded"


def test_stall_s_comes_from_the_settings_or_the_run(build: Build) -> None:
    """`timeouts.stall_s` is the default of workers; a run can set its own, and 0 turns it off; commands have
    none."""
    harness = workshop(build, timeouts={"stall_s": 7.0}, cpus={"slots": 4})
    held: dict[str, Any] = {**PATIENT, "hold": True}
    runs = [idle(harness, held), idle(harness, {**held, "stall_s": 0}), idle(harness, {**held, "stall_s": 2})]
    runs += [harness.submit("true", hold=True), harness.submit("true", hold=True, stall_s=3)]
    assert [harness.get(run_id)["stall_s"] for run_id in runs] == [7.0, None, 2.0, None, 3.0]


def test_the_config_of_a_run_sets_its_limits(build: Build) -> None:
    """metadata.worker.liveness overrides the settings; the parameters of the submit override both.

    The run object has the resulting limits, and they are enforced: the run ends as stuck.
    """
    harness = workshop(build, timeouts={"stall_s": 7.0}, cpus={"slots": 2})
    config = config_of("idler", steps=5, step_s=0.1, hang=True)
    limits = {"stall_s": 0.7, "heartbeat_timeout_s": 55, "start_timeout_s": 56, "handshake_timeout_s": 57}
    config["metadata"]["worker"]["liveness"] = limits
    held = harness.submit_config(config, dedup="new", hold=True, stall_s=9, handshake_timeout_s=58)
    assert {key: held[key] for key in limits} == limits | {"stall_s": 9.0, "handshake_timeout_s": 58}
    run = harness.submit_config(config, dedup="new")
    assert {key: run[key] for key in limits} == limits
    assert run["digest"] == held["digest"]
    cause = cause_of(harness, run["run_id"])
    assert (cause["kind"], cause["after_s"]) == ("stuck", 0.7)


def test_any_output_resets_the_heartbeat_timeout(harness: DaemonHarness) -> None:
    """Any output resets the heartbeat timeout of a command; when the output stops, the heartbeat is lost."""
    code = f"import time\nfor n in range({STEPS}): print(n, flush=True); time.sleep({STEP_S})\ntime.sleep(60)"
    run_id = harness.python(code, heartbeat_timeout_s=LIMIT_S)
    cause = cause_of(harness, run_id)
    run = harness.get(run_id)
    assert cause["kind"] == "heartbeat_lost"
    assert harness.stdout(run_id).split() == [b"%d" % n for n in range(STEPS)]
    assert run["finished_at"] - run["started_at"] > (STEPS - 1) * STEP_S + LIMIT_S
    assert f"\n{STEPS - 1}\n" in post_mortem(harness, run_id)


def test_a_command_has_no_heartbeat_timeout_by_default(harness: DaemonHarness) -> None:
    """A command has no heartbeat timeout by default."""
    assert harness.ended(harness.submit("sleep", "1.5"))["outcome"] == "succeeded"


def test_no_signal_for_stacks_without_an_announcement(harness: DaemonHarness) -> None:
    """A program that announced no stacks gets no SIGUSR1, which would kill it; it gets SIGTERM, as for any
    stop."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('SIGTERM', flush=True), sys.exit(3)))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    cause = cause_of(harness, harness.python(code, heartbeat_timeout_s=LIMIT_S, grace_s=GRACE_S))
    assert (cause["kind"], cause["exit_code"]) == ("heartbeat_lost", 3)


def test_a_false_announcement_of_stacks_kills_no_process(harness: DaemonHarness) -> None:
    """An announced process without a handler, or of no run, gets no signal for stacks."""
    code = (
        "import os, signal, sys, time\n"
        "line = 'mosaic-stacks pid=%d signal=%d\\n'\n"
        f"false = line % (os.getpid(), 10) + line % ({os.getpid()}, 10) + line % (os.getpid(), 9)\n"
        "open(os.environ['MOSAIC_STACKS_FILE'], 'w').write(false)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    cause = cause_of(harness, harness.python(code, heartbeat_timeout_s=LIMIT_S, grace_s=GRACE_S))
    assert (cause["kind"], cause["exit_code"]) == ("heartbeat_lost", 3)


def test_a_post_mortem_waits_for_all_stacks(build: Build) -> None:
    """If a worker pauses between two threads of its stacks, the kill waits for the stack of the main
    thread."""
    harness = build(timeouts={"post_mortem_s": 20.0})
    cause = cause_of(harness, harness.program("slow_stacks", heartbeat_timeout_s=LIMIT_S))
    assert cause["post_mortem"]["python"] == "train.py:7 in step"


@pytest.mark.slow
def test_a_post_mortem_has_a_time_limit(build: Build) -> None:
    """A stopped worker cannot write its stacks; it is killed after timeouts.post_mortem_s."""
    harness = workshop(build, timeouts={"post_mortem_s": 0.5})
    run_id = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S, "grace_s": 0.5}, beat_s=60, hang=True)
    pid = harness.until(run_id, "EXEC")["pid"]
    os.kill(pid, signal.SIGSTOP)
    cause = cause_of(harness, run_id)
    assert cause["kind"] == "heartbeat_lost" and cause["post_mortem"]["state"] == "T"


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_post_mortem(build: Build) -> None:
    """A stop by the owner ends the run immediately, also while the daemon waits for stacks."""
    harness = workshop(build, timeouts={"post_mortem_s": 60})
    run_id = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S}, beat_s=60, hang=True)
    os.kill(harness.until(run_id, "EXEC")["pid"], signal.SIGSTOP)
    harness.until(run_id, "FAULT")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["cause"]["kind"] == "heartbeat_lost"


def test_downtime_of_the_daemon_counts_towards_no_limit(build: Build) -> None:
    """Time while the daemon is down does not count towards a limit."""
    harness = workshop(build)
    gate = harness.home / "go"
    run_id = idle(harness, {**PATIENT, "stall_s": LIMIT_S}, steps=1, hang=True, hang_until=str(gate))
    harness.until(run_id, "EXEC")
    harness.kill()
    wait_for_seconds(1.1 * LIMIT_S)
    harness.start()
    assert harness.get(run_id)["state"] == "EXEC"
    gate.touch()
    assert harness.ended(run_id)["outcome"] == "succeeded"


def test_no_run_times_out_because_the_machine_was_suspended(build: Build) -> None:
    """If all processes are suspended for longer than the limit, the heartbeats that waited are read first,
    and no run times out."""
    harness = workshop(build)
    gate = harness.home / "go"
    run_id = idle(
        harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S}, steps=1, hang=True, hang_until=str(gate)
    )
    harness.until(run_id, "EXEC")
    assert harness.process is not None
    pids = [harness.process.pid, harness.launcher_pid(), *harness.shims(), *harness.pids(run_id)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_for_seconds(1.5 * LIMIT_S)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    seq = harness.get(run_id)["progress"]["telemetry_seq"]
    wait_until(
        lambda: harness.get(run_id)["progress"]["telemetry_seq"],
        lambda now: now > seq + 5,
        "heartbeats arrive",
    )
    assert harness.get(run_id)["state"] == "EXEC"
    gate.touch()
    assert harness.ended(run_id)["outcome"] == "succeeded"


@pytest.mark.parametrize(
    "params", [{"stall_s": -1}, {"heartbeat_timeout_s": 0}, {"start_timeout_s": 0}, {"stall_s": 1e300}]
)
def test_limits_out_of_range_are_refused(harness: DaemonHarness, params: dict[str, Any]) -> None:
    """A limit outside its range is an error that names the parameter; no run is made."""
    with pytest.raises(InvalidParams) as caught:
        harness.submit("true", **params)
    assert caught.value.data["errors"][0]["path"] == next(iter(params))


def test_submit_has_flags_for_the_limits(harness: DaemonHarness) -> None:
    """--heartbeat, --start-timeout and --stall are sent in seconds; `show` and `logs --post-mortem` explain
    the end."""
    done = harness.ctl(
        "-o", "name", "submit", "--heartbeat", "0.5s", "--start-timeout", "2m", "--stall", "1h",
        "--", sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)",
    )  # fmt: skip
    run_id = done.stdout.strip()
    harness.run_ids.add(run_id)
    run = harness.get(run_id)
    assert (run["heartbeat_timeout_s"], run["stall_s"]) == (0.5, 3600.0)
    harness.ended(run_id)
    shown = harness.ctl("show", run_id).stdout
    assert "heartbeat lost" in shown and "post-mortem" in shown and "mosaicctl logs --post-mortem" in shown
    assert "== process" in harness.ctl("logs", "--post-mortem", run_id).stdout
