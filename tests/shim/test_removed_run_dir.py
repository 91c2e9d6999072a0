"""The run directory is removed while the shim lives, for example with the home directory."""

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


def test_a_shim_without_run_dir_and_daemon_exits_after_its_worker(harness: ShimHarness) -> None:
    """The shim removes the temporary directory and exits soon after its worker."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "echo $TMPDIR; touch $TMPDIR/x; read x < gate"])
    temporary = temp_dir(run)
    harness.peer.close()
    remove_run_dir(run)
    gate.open()
    run.wait_until_shim_exits()
    assert not temporary.exists()
    assert not run.dir.exists()


def test_the_end_is_reported_without_a_run_dir(harness: ShimHarness) -> None:
    """The daemon gets the fact `exited`, and the shim exits."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "echo $TMPDIR; read x < gate; exit 3"])
    temporary = temp_dir(run)
    remove_run_dir(run)
    gate.open()
    assert run.fact("exited")["exit_code"] == 3
    run.wait_until_shim_exits()
    assert not temporary.exists()


def test_a_run_without_run_dir_can_be_paused_resumed_and_stopped(harness: ShimHarness) -> None:
    """The worker continues, and the daemon can control it."""
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


def test_the_handshake_timeout_ends_a_shim_without_run_dir(harness: ShimHarness) -> None:
    """After the handshake timeout the shim exits, although exit.json cannot be written."""
    later: Json = {"error": {"code": -32005, "message": "later"}}
    harness.peer.answer = lambda _: later
    run = harness.launch(["touch", "made"], limits={"handshake_timeout_s": 2.0})
    harness.peer.until(lambda: len(harness.peer.registers) >= 2)
    remove_run_dir(run)
    run.wait_until_shim_exits()
    assert not (harness.root / "made").exists()
