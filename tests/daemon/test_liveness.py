"""Liveness: each way to stand still has its own limit and cause, and is written down before the kill."""

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

#: The run's own timeouts are far away unless a test says otherwise.
PATIENT = {"heartbeat_timeout_s": 60, "start_timeout_s": 60}
#: A limit that no worker passes because the machine stood still, and steps that take longer together.
LIMIT_S = 3.5
STEPS, STEP_S = 12, 0.4
#: For a program that ends by itself when it is asked to.
GRACE_S = 15.0


def has_passed(seconds: float) -> None:
    """Return when a limit of so many seconds has passed."""
    end = time.monotonic() + seconds
    wait_until(time.monotonic, lambda now: now > end, "time passes")


def cause_of(harness: DaemonHarness, run_id: str) -> dict[str, Any]:
    """The cause of the end of a run that failed."""
    run = harness.ended(run_id)
    assert run["outcome"] == "failed", run
    cause: dict[str, Any] = run["cause"]
    return cause


def test_each_way_to_stand_still_has_its_cause(build: Build) -> None:
    """Stuck: it beats, but makes no step; silent: it prints nothing; never begun.  Each limit has its cause,
    says how long it was, and leaves a post-mortem: with stacks, where the worker can tell them."""
    harness = workshop(build, cpus={"slots": 4}, timeouts={"post_mortem_s": 20.0})
    stuck = idle(harness, {**PATIENT, "stall_s": LIMIT_S}, steps=STEPS, step_s=STEP_S, hang=True)
    silent = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S}, beat_s=60, hang=True)
    unborn = idle(harness, {**PATIENT, "start_timeout_s": LIMIT_S}, late_s=60)

    cause = cause_of(harness, stuck)
    assert (cause["kind"], cause["after_s"], cause["steps"]) == ("stuck", LIMIT_S, STEPS)
    assert cause["post_mortem"]["file"] == "post-mortem.txt"
    assert cause["post_mortem"]["python"].startswith("idler.py:")
    assert cause["post_mortem"]["python"].endswith(" in stand_still")
    run = harness.get(stuck)
    assert run["progress"]["steps"] == STEPS and run["finished_at"] - run["started_at"] > LIMIT_S
    text = post_mortem(harness, stuck)
    for words in ("== process", "waits in", "pipe:[", "stdout.log", "== Python stacks", "stand_still"):
        assert words in text, text

    cause = cause_of(harness, silent)
    assert (cause["kind"], cause["after_s"]) == ("heartbeat_lost", LIMIT_S)
    assert "stand_still" in cause["post_mortem"]["python"]

    cause = cause_of(harness, unborn)
    assert (cause["kind"], cause["after_s"]) == ("start_timeout", LIMIT_S)
    assert "python" not in cause["post_mortem"] and cause["post_mortem"]["processes"] >= 1


@pytest.mark.slow
def test_it_does_not_matter_without_the_limit(build: Build) -> None:
    """`stall_s` is off by default: a worker may beat for as long as it likes."""
    harness = workshop(build)
    gate = harness.home / "go"
    run_id = idle(harness, PATIENT, hang=True, go_on=str(gate))
    harness.until(run_id, "EXEC")
    seq = harness.get(run_id)["progress"]["telemetry_seq"]
    wait_until(
        lambda: harness.get(run_id)["progress"]["telemetry_seq"], lambda now: now > seq + 10, "it beats"
    )
    assert harness.get(run_id)["state"] == "EXEC" and harness.get(run_id)["stall_s"] is None
    gate.touch()
    assert harness.ended(run_id)["outcome"] == "succeeded"


def test_a_setting_gives_workers_a_limit_and_a_run_its_own(build: Build) -> None:
    """`timeouts.stall_s` is for workers that say nothing else; 0 turns it off for a run; commands: none."""
    harness = workshop(build, timeouts={"stall_s": 7.0}, cpus={"slots": 4})
    held: dict[str, Any] = {**PATIENT, "hold": True}
    runs = [idle(harness, held), idle(harness, {**held, "stall_s": 0}), idle(harness, {**held, "stall_s": 2})]
    runs += [harness.submit("true", hold=True), harness.submit("true", hold=True, stall_s=3)]
    assert [harness.get(run_id)["stall_s"] for run_id in runs] == [7.0, None, 2.0, None, 3.0]


def test_a_config_gives_its_run_a_limit(build: Build) -> None:
    """metadata.worker.liveness is the run's own word: over the settings, and under the submit's parameters.
    The run object says what came of it, and the limit holds: the run ends as stuck."""
    harness = workshop(build, timeouts={"stall_s": 7.0}, cpus={"slots": 2})
    config = config_of("idler", steps=5, step_s=0.1, hang=True)
    patience = {"stall_s": 0.7, "heartbeat_timeout_s": 55, "start_timeout_s": 56, "handshake_timeout_s": 57}
    config["metadata"]["worker"]["liveness"] = patience
    held = harness.submit_config(config, dedup="new", hold=True, stall_s=9, handshake_timeout_s=58)
    assert {key: held[key] for key in patience} == patience | {"stall_s": 9.0, "handshake_timeout_s": 58}
    run = harness.submit_config(config, dedup="new")
    assert {key: run[key] for key in patience} == patience
    assert run["digest"] == held["digest"]
    cause = cause_of(harness, run["run_id"])
    assert (cause["kind"], cause["after_s"]) == ("stuck", 0.7)


def test_any_output_is_a_sign_of_life(harness: DaemonHarness) -> None:
    """A command with a limit lives as long as it prints, be it no telemetry; then it is silent, and lost."""
    code = f"import time\nfor n in range({STEPS}): print(n, flush=True); time.sleep({STEP_S})\ntime.sleep(60)"
    run_id = harness.python(code, heartbeat_timeout_s=LIMIT_S)
    cause = cause_of(harness, run_id)
    run = harness.get(run_id)
    assert cause["kind"] == "heartbeat_lost"
    assert harness.stdout(run_id).split() == [b"%d" % n for n in range(STEPS)]
    assert run["finished_at"] - run["started_at"] > (STEPS - 1) * STEP_S + LIMIT_S
    assert f"\n{STEPS - 1}\n" in post_mortem(harness, run_id)


def test_a_command_is_silent_for_as_long_as_it_likes(harness: DaemonHarness) -> None:
    """Nothing is expected of a plain command that did not ask for it."""
    assert harness.ended(harness.submit("sleep", "1.5"))["outcome"] == "succeeded"


def test_who_did_not_announce_is_not_asked(harness: DaemonHarness) -> None:
    """SIGUSR1 would kill a plain program: it gets TERM, as any stopped run, and nothing else before."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked to end', flush=True), sys.exit(3)))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    cause = cause_of(harness, harness.python(code, heartbeat_timeout_s=LIMIT_S, grace_s=GRACE_S))
    assert (cause["kind"], cause["exit_code"]) == ("heartbeat_lost", 3)


def test_a_false_announcement_kills_nobody(harness: DaemonHarness) -> None:
    """A process that is announced but has no handler, or is none of the run's, is not signalled."""
    code = (
        "import os, signal, sys, time\n"
        "say = 'mosaic-stacks pid=%d signal=%d\\n'\n"
        f"lie = say % (os.getpid(), 10) + say % ({os.getpid()}, 10) + say % (os.getpid(), 9)\n"
        "open(os.environ['MOSAIC_STACKS_FILE'], 'w').write(lie)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    cause = cause_of(harness, harness.python(code, heartbeat_timeout_s=LIMIT_S, grace_s=GRACE_S))
    assert (cause["kind"], cause["exit_code"]) == ("heartbeat_lost", 3)


def test_stacks_that_are_half_told_are_waited_for(build: Build) -> None:
    """A worker that is held up between two threads of its stacks is not killed before it told of its own."""
    harness = build(timeouts={"post_mortem_s": 20.0})
    cause = cause_of(harness, harness.program("half_told", heartbeat_timeout_s=LIMIT_S))
    assert cause["post_mortem"]["python"] == "train.py:7 in step"


@pytest.mark.slow
def test_stacks_are_not_waited_for_too_long(build: Build) -> None:
    """A worker that cannot answer (it is stopped) is killed when the post-mortem's time is up."""
    harness = workshop(build, timeouts={"post_mortem_s": 0.5})
    run_id = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S, "grace_s": 0.5}, beat_s=60, hang=True)
    pid = harness.until(run_id, "EXEC")["pid"]
    os.kill(pid, signal.SIGSTOP)
    cause = cause_of(harness, run_id)
    assert cause["kind"] == "heartbeat_lost" and cause["post_mortem"]["state"] == "T"


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_post_mortem(build: Build) -> None:
    """A stop by its owner while stacks are awaited ends the run at once."""
    harness = workshop(build, timeouts={"post_mortem_s": 60})
    run_id = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S}, beat_s=60, hang=True)
    os.kill(harness.until(run_id, "EXEC")["pid"], signal.SIGSTOP)
    harness.until(run_id, "FAULT")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["cause"]["kind"] == "heartbeat_lost"


def test_deadlines_start_anew_with_the_daemon(build: Build) -> None:
    """The silence of a worker while the daemon was down does not count."""
    harness = workshop(build)
    gate = harness.home / "go"
    run_id = idle(harness, {**PATIENT, "stall_s": LIMIT_S}, steps=1, hang=True, go_on=str(gate))
    harness.until(run_id, "EXEC")
    harness.kill()
    has_passed(1.1 * LIMIT_S)
    harness.start()
    assert harness.get(run_id)["state"] == "EXEC"
    gate.touch()
    assert harness.ended(run_id)["outcome"] == "succeeded"


def test_a_machine_that_stood_still_faults_nobody(build: Build) -> None:
    """Everything stopped for longer than the limit and then on again: beats that waited are read first."""
    harness = workshop(build)
    gate = harness.home / "go"
    run_id = idle(harness, {**PATIENT, "heartbeat_timeout_s": LIMIT_S}, steps=1, hang=True, go_on=str(gate))
    harness.until(run_id, "EXEC")
    assert harness.process is not None
    everybody = [harness.process.pid, harness.launcher_pid(), *harness.shims(), *harness.pids(run_id)]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    has_passed(1.5 * LIMIT_S)
    for pid in reversed(everybody):
        os.kill(pid, signal.SIGCONT)
    seq = harness.get(run_id)["progress"]["telemetry_seq"]
    wait_until(
        lambda: harness.get(run_id)["progress"]["telemetry_seq"], lambda now: now > seq + 5, "it beats"
    )
    assert harness.get(run_id)["state"] == "EXEC"
    gate.touch()
    assert harness.ended(run_id)["outcome"] == "succeeded"


@pytest.mark.parametrize(
    "params", [{"stall_s": -1}, {"heartbeat_timeout_s": 0}, {"start_timeout_s": 0}, {"stall_s": 1e300}]
)
def test_limits_without_sense_are_refused(harness: DaemonHarness, params: dict[str, Any]) -> None:
    """A limit out of its range is an error that names it, and no run."""
    with pytest.raises(InvalidParams) as caught:
        harness.submit("true", **params)
    assert caught.value.data["errors"][0]["path"] == next(iter(params))


def test_the_client_has_a_flag_for_each(harness: DaemonHarness) -> None:
    """--heartbeat, --start-timeout and --stall are sent as seconds; `show` and `logs` tell of the end."""
    done = harness.ctl(
        "-o", "name", "submit", "--heartbeat", "0.5", "--start-timeout", "2m", "--stall", "1h",
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
