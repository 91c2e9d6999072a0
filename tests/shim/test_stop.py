"""Stop: TERM, CONT, grace period, KILL, and an empty process tree."""

import time

import pytest

from tests.harness.shim import PYTHON, Run, ShimHarness
from tests.shim import trees

GRACE_S = 0.5
#: Bound for a stop that needs no wait: far below the grace period, above a short hang of the machine.
SOON_S = 15.0


def stop(run: Run, grace_s: float, **more: object) -> float:
    """Stop the run and return the seconds until its tree was reported empty."""
    asked_mono = time.monotonic()
    run.control("stop", grace_s=grace_s, kind="by_user", who="ada", reason="enough", **more)
    run.wait_until_tree_is_empty()
    return time.monotonic() - asked_mono


def test_a_plain_command_ends_with_sigterm(harness: ShimHarness) -> None:
    """exit.json has user, reason and grace period of the stop, and that it was not forced."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    elapsed_s = stop(run, 60.0)
    record = run.exit()
    assert (record["signal"], record["exit_code"]) == (15, None)
    assert record["stop"].pop("at") <= record["finished_at"]
    assert record["stop"] == {
        "kind": "by_user", "who": "ada", "reason": "enough", "forced": False, "grace_s": 60.0,
    }  # fmt: skip
    assert elapsed_s < SOON_S
    run.wait_until_shim_exits()


@pytest.mark.parametrize("tree", ["STUBBORN", "DISGUISED"])
def test_a_tree_that_ignores_term_is_empty_one_second_after_the_grace_period(
    harness: ShimHarness, tree: str
) -> None:
    """Trees with own sessions, double forks or an empty environment are ended by KILL and reported empty."""
    elapsed_s = [_seconds_to_end(harness, tree)]
    while elapsed_s[-1] >= GRACE_S + 1 and len(elapsed_s) < 5:  # other load on the machine: measure again
        elapsed_s.append(_seconds_to_end(harness, tree))
    assert GRACE_S <= min(elapsed_s) < GRACE_S + 1, elapsed_s


def _seconds_to_end(harness: ShimHarness, tree: str) -> float:
    """Run a tree, stop it, check that it is empty, and return the seconds of the stop."""
    run = harness.launch(["sh", "-c", getattr(trees, tree)])
    run.wait_for_output("ready")
    harness.peer.until(lambda: len(run.members()) >= 5, shown=run.members)
    assert harness.is_empty(run)["empty"] is False
    elapsed_s = stop(run, GRACE_S)
    record = run.exit()
    assert (record["signal"], record["stop"]["forced"]) == (9, True)
    assert harness.is_empty(run) | {"id": 0} == {
        "reply": "empty", "id": 0, "run_id": run.run_id, "empty": True, "pids": [],
    }  # fmt: skip
    run.wait_until_shim_exits()
    return elapsed_s


@pytest.mark.parametrize("tree", ["REPAIRING", "BOMB", "COMET"])
def test_trees_that_fork_all_the_time_are_ended(harness: ShimHarness, tree: str) -> None:
    """Trees that restart processes, multiply, or change their pid all the time are ended too."""
    run = harness.launch([PYTHON, "-S", "-c", getattr(trees, tree)])
    run.wait_for_output("ready")
    if tree == "BOMB":
        harness.peer.until(lambda: len(run.members()) > 100, shown=lambda: len(run.members()))
    elapsed_s = stop(run, 0.2)
    assert elapsed_s < 0.2 + SOON_S
    run.wait_until_shim_exits()


def test_a_grace_period_of_zero_kills_at_once(harness: ShimHarness) -> None:
    """With `grace_s` 0 the tree is killed without waiting."""
    run = harness.launch(["sh", "-c", trees.STUBBORN])
    run.wait_for_output("ready")
    assert stop(run, 0.0) < SOON_S
    run.wait_until_shim_exits()


def test_a_second_stop_can_only_shorten_the_grace_period(harness: ShimHarness) -> None:
    """exit.json has the reason of the first stop; a later stop with a longer grace period changes nothing."""
    run = harness.launch(["sh", "-c", trees.STUBBORN])
    run.wait_for_output("ready")
    run.control("stop", grace_s=60, kind="by_user", who="ada", reason="first")
    run.control("stop", grace_s=0.2, kind="by_user", who="bob", reason="second")
    assert stop(run, 60) < SOON_S
    assert run.exit()["stop"]["reason"] == "first"
    run.wait_until_shim_exits()


def test_a_worker_can_clean_up_after_term(harness: ShimHarness) -> None:
    """The leader receives TERM first, so its children can help with the clean-up."""
    code = """
import subprocess, signal, sys
def end(*_):
    print('{"event": "run_cancelled", "payload": {"helper": %s}}' % (str(helper.poll() is None).lower()))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
helper = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)"])
signal.pause()
"""
    run = harness.python(code, kind="worker")
    run.wait_for_output("up")
    run.control("stop", grace_s=30, kind="by_user", who="ada", reason=None)
    record = run.exit()
    assert (record["exit_code"], record["last_word"]) == (0, "run_cancelled")
    assert run.telemetry()[0]["data"]["payload"] == {"helper": True}
    assert record["stop"]["forced"] is False
    run.fact("emptied")
    run.wait_until_shim_exits()


def test_a_cooperative_worker_receives_stop_on_its_control_channel(harness: ShimHarness) -> None:
    """The message `stop` has the grace period."""
    code = """
import os, socket, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
line = socket.socket(fileno=int(os.environ["MOSAIC_CONTROL_FD"]))
print("ready")
print(line.recv(100).decode())
"""
    run = harness.python(code, kind="worker", cooperative=True)
    run.wait_for_output("ready")
    run.control("stop", grace_s=40, kind="by_user", who="ada", reason=None)
    assert run.exit()["exit_code"] == 0
    assert '{"control": "stop", "grace_s": 40.0}' in (run.dir / "stdout.log").read_text()
    run.wait_until_shim_exits()


def test_a_stop_before_the_start_starts_no_worker(harness: ShimHarness) -> None:
    """If the reply to the register is `stop`, the shim writes exit.json and starts no worker."""
    harness.peer.answer = lambda _: {
        "order": "stop", "want": "stop", "pause_mode": None, "grace_s": 1,
        "stop": {"kind": "by_user", "who": "ada", "reason": "no"},
    }  # fmt: skip
    run = harness.launch(["touch", "made"])
    record = run.exit()
    assert (record["exit_code"], record["signal"], record["started_at"]) == (None, None, None)
    assert record["stop"]["who"] == "ada"
    assert not run.has("started.json")
    run.wait_until_shim_exits()
    assert not (harness.root / "made").exists()


def test_sigterm_to_the_shim_stops_its_run(harness: ShimHarness) -> None:
    """A `kill` of the shim stops the run; exit.json has the reason."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    harness.signal(run.shim_pid, 15)
    record = run.exit()
    assert record["signal"] == 15
    assert (record["stop"]["kind"], record["stop"]["reason"]) == ("by_user", "the shim received SIGTERM")
    run.wait_until_shim_exits()


@pytest.mark.parametrize("number", [1, 2, 13])
def test_the_shim_ignores_other_signals(harness: ShimHarness, number: int) -> None:
    """SIGHUP, SIGINT and SIGPIPE do not end the run."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "read x < gate; exit 4"])
    run.fact("started")
    harness.signal(run.shim_pid, number)
    gate.open()
    assert run.exit()["exit_code"] == 4
    run.wait_until_shim_exits()
