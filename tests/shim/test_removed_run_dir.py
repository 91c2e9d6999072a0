"""The run directory is removed under a living shim: a deleted home, an uninstalled machine."""

import shutil
from pathlib import Path

from mosaicd.protocol import Json
from tests.harness.shim import Run, ShimHarness


def temp_dir(run: Run) -> Path:
    """Return the temporary directory of the run, which prints its path first."""
    run.wait_for_output("/")
    return Path((run.dir / "stdout.log").read_text().strip())


def remove_run_dir(run: Run) -> None:
    shutil.rmtree(run.dir.parent)


def test_a_shim_leaves_after_its_worker_has_ended(harness: ShimHarness) -> None:
    """Without run directory and daemon the shim leaves soon, and removes the temporary directory."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "echo $TMPDIR; touch $TMPDIR/x; read x < gate"])
    temporary = temp_dir(run)
    harness.peer.close()
    remove_run_dir(run)
    gate.open()
    run.wait_until_shim_exits()
    assert not temporary.exists()
    assert not run.dir.exists()


def test_the_daemon_still_gets_the_end(harness: ShimHarness) -> None:
    """Without a run directory the daemon gets the fact `exited`, and the shim leaves."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "echo $TMPDIR; read x < gate; exit 3"])
    temporary = temp_dir(run)
    remove_run_dir(run)
    gate.open()
    assert run.fact("exited")["exit_code"] == 3
    run.wait_until_shim_exits()
    assert not temporary.exists()


def test_a_living_worker_goes_on(harness: ShimHarness) -> None:
    """The worker runs on, and the daemon can pause, resume and stop it."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    remove_run_dir(run)
    run.control("pause", mode="freeze")
    run.fact("paused")
    run.control("resume")
    run.fact("continued")
    assert not run.has_shim_exited()
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_a_shim_that_the_daemon_never_accepts_leaves(harness: ShimHarness) -> None:
    """After the handshake timeout the shim leaves, though exit.json cannot be written."""
    later: Json = {"error": {"code": -32005, "message": "later"}}
    harness.peer.answer = lambda _: later
    run = harness.launch(["touch", "made"], limits={"handshake_timeout_s": 2.0})
    harness.peer.until(lambda: len(harness.peer.registers) >= 2)
    remove_run_dir(run)
    run.wait_until_shim_exits()
    assert not (harness.root / "made").exists()
