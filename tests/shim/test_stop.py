"""Stop: TERM, CONT, grace, KILL, and nothing of the tree is left."""

import time

import pytest

from tests.harness.shim import PYTHON, Run, ShimHarness
from tests.shim import trees

GRACE_S = 0.5
#: Where something need not be waited for: far less than the grace, and than a stall of the machine is long.
SOON_S = 15.0


def stop(run: Run, grace_s: float, **more: object) -> float:
    """Ask for the end and return how long it took until the tree was reported empty."""
    asked = time.monotonic()
    run.control("stop", grace_s=grace_s, kind="by_user", who="ada", reason="enough", **more)
    run.wait_until_tree_is_empty()
    return time.monotonic() - asked


def test_a_plain_command_dies_of_term(harness: ShimHarness) -> None:
    """The record of a stop names who and why, and that nothing had to be forced."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    took_s = stop(run, 60.0)
    record = run.exit()
    assert (record["signal"], record["exit_code"]) == (15, None)
    assert record["stop"].pop("at") <= record["finished_at"]
    assert record["stop"] == {
        "kind": "by_user", "who": "ada", "reason": "enough", "forced": False, "grace_s": 60.0,
    }  # fmt: skip
    assert took_s < SOON_S
    run.wait_until_shim_exits()


@pytest.mark.parametrize("tree", ["STUBBORN", "DISGUISED"])
def test_a_stubborn_tree_is_gone_within_grace_plus_one_second(harness: ShimHarness, tree: str) -> None:
    """Own sessions, double forks, a cleared environment, TERM ignored: gone, and not reported before."""
    took_s = [_ended(harness, tree)]
    while took_s[-1] >= GRACE_S + 1 and len(took_s) < 5:  # the machine had other things to do: measured again
        took_s.append(_ended(harness, tree))
    assert GRACE_S <= min(took_s) < GRACE_S + 1, took_s


def _ended(harness: ShimHarness, tree: str) -> float:
    """How long it took until a tree was gone for certain."""
    run = harness.launch(["sh", "-c", getattr(trees, tree)])
    run.wait_for_output("ready")
    harness.peer.until(lambda: len(run.members()) >= 5, shown=run.members)
    assert harness.is_empty(run)["empty"] is False
    took_s = stop(run, GRACE_S)
    record = run.exit()
    assert (record["signal"], record["stop"]["forced"]) == (9, True)
    assert harness.is_empty(run) | {"id": 0} == {
        "reply": "empty", "id": 0, "run_id": run.run_id, "empty": True, "pids": [],
    }  # fmt: skip
    run.wait_until_shim_exits()
    return took_s


@pytest.mark.parametrize("tree", ["REPAIRING", "BOMB", "COMET"])
def test_trees_that_outrun_a_survey(harness: ShimHarness, tree: str) -> None:
    """What repairs itself, multiplies, or changes its pid all the time ends too."""
    run = harness.launch([PYTHON, "-S", "-c", getattr(trees, tree)])
    run.wait_for_output("ready")
    if tree == "BOMB":
        harness.peer.until(lambda: len(run.members()) > 100, shown=lambda: len(run.members()))
    took_s = stop(run, 0.2)
    assert took_s < 0.2 + SOON_S
    run.wait_until_shim_exits()


def test_a_grace_of_zero_kills_at_once(harness: ShimHarness) -> None:
    """`grace_s` 0 is legal."""
    run = harness.launch(["sh", "-c", trees.STUBBORN])
    run.wait_for_output("ready")
    assert stop(run, 0.0) < SOON_S
    run.wait_until_shim_exits()


def test_a_second_stop_may_only_shorten_the_grace(harness: ShimHarness) -> None:
    """The first stop stays on the record; a longer grace afterwards changes nothing."""
    run = harness.launch(["sh", "-c", trees.STUBBORN])
    run.wait_for_output("ready")
    run.control("stop", grace_s=60, kind="by_user", who="ada", reason="first")
    run.control("stop", grace_s=0.2, kind="by_user", who="bob", reason="second")
    assert stop(run, 60) < SOON_S
    assert run.exit()["stop"]["reason"] == "first"
    run.wait_until_shim_exits()


def test_a_worker_may_clean_up(harness: ShimHarness) -> None:
    """TERM reaches a MOSAIC worker's leader alone, which ends in its own way with its children's help."""
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


def test_a_cooperative_worker_is_told_before_term(harness: ShimHarness) -> None:
    """`stop` with its grace arrives on the control line."""
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


def test_a_stop_before_the_start(harness: ShimHarness) -> None:
    """An order `stop` at the register means that nothing is ever started, and says so on the disk."""
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


def test_term_to_the_shim_stops_its_run(harness: ShimHarness) -> None:
    """A user may end a run with a plain kill of its shim; the record says how it came."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    harness.signal(run.shim_pid, 15)
    record = run.exit()
    assert record["signal"] == 15
    assert (record["stop"]["kind"], record["stop"]["reason"]) == ("by_user", "the shim received SIGTERM")
    run.wait_until_shim_exits()


@pytest.mark.parametrize("number", [1, 2, 13])
def test_other_signals_do_nothing_to_the_shim(harness: ShimHarness, number: int) -> None:
    """A hang-up, a Ctrl-C in the daemon's terminal and a broken pipe are not the run's end."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "read x < gate; exit 4"])
    run.fact("started")
    harness.signal(run.shim_pid, number)
    gate.open()
    assert run.exit()["exit_code"] == 4
    run.wait_until_shim_exits()
