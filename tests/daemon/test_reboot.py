"""After a reboot, and on a state directory from another machine, recorded pids mean nothing.

Live runs are interrupted, waiting runs start, and no process of another program is signalled.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from mosaicd.log import Catalogue
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def reboot(harness: DaemonHarness, *run_ids: str, pid: int | None = None, ticks: int | None = None) -> None:
    """Kill daemon, shims and workers, as a power failure does, and give their files another boot id."""
    harness.kill()
    for shim in harness.shims():
        end(shim)
    for run_id in run_ids:
        for process in harness.pids(run_id):
            end(process)
        wait_until(lambda: [*harness.shims(), *harness.pids(run_id)], lambda pids: not pids, "all have ended")  # noqa: B023
        for name in ("launch.json", "started.json"):
            rewrite(harness.attempt(run_id) / name, pid, ticks)


def end(pid: int) -> None:
    """Kill a process, if it still exists."""
    with contextlib.suppress(ProcessLookupError):  # the process has already exited
        os.kill(pid, signal.SIGKILL)


def rewrite(path: Path, pid: int | None, ticks: int | None) -> None:
    """Replace the boot id of a record and, if given, its pid and start time."""
    record = json.loads(path.read_text())
    record["boot_id"] = OTHER_BOOT
    if pid is not None:
        record["shim_pid" if "nonce" in record else "pid"] = pid
        record["shim_started_at" if "nonce" in record else "start_ticks"] = ticks
    path.write_text(json.dumps(record))


def test_a_reboot_interrupts_live_runs_and_starts_waiting_ones(harness: DaemonHarness) -> None:
    """After a reboot live runs end with cause `rebooted` and are retried if they have retries; waiting runs
    start."""
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    single = harness.program("ticker", str(gate))
    again = harness.program("ticker", str(gate), retries=1)
    for run_id in (single, again):
        harness.until(run_id, "EXEC")
    waiting = harness.submit("sh", "-c", "echo late")
    reboot(harness, single, again)
    harness.start()

    ended = harness.ended(single)
    assert (ended["outcome"], ended["cause"]["kind"], ended["attempt"]) == ("interrupted", "rebooted", 1)
    second = wait_until(
        lambda: harness.get(again),
        lambda run: (run["attempt"], run["state"]) == (2, "EXEC"),
        "a second attempt",
    )
    assert second["retries_used"] == 1
    gate.touch()
    assert harness.ended(again)["exit_code"] == 7
    assert harness.ended(waiting)["outcome"] == "succeeded"


def test_an_end_recorded_before_the_reboot_is_kept(harness: DaemonHarness) -> None:
    """A run whose exit.json was written before the reboot has its exact end, not `rebooted`."""
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    harness.kill()
    gate.touch()
    wait_until((harness.attempt(run_id) / "exit.json").exists, bool, "the run ends while the daemon is down")
    reboot(harness, run_id)
    harness.start()
    assert harness.ended(run_id)["exit_code"] == 7


def test_a_pid_of_another_boot_is_not_signalled(harness: DaemonHarness) -> None:
    """A process that has the pid and start time of a worker from before the reboot is not signalled."""
    harness.allow(Catalogue.SHIM_LOST, Catalogue.REGISTRY_REBUILT)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])
        run_id = harness.program("ticker", str(harness.home / "gate"))
        harness.until(run_id, "EXEC")
        reboot(harness, run_id, pid=stranger.pid, ticks=ticks)
        for part in ("", "-wal", "-shm"):  # then only the files describe the worker
            (harness.state_dir / f"registry.sqlite3{part}").unlink(missing_ok=True)
        harness.start()
        ended = harness.ended(run_id)
        assert (ended["outcome"], ended["cause"]["kind"]) == ("interrupted", "rebooted")
        assert stranger.poll() is None
        stranger.kill()


def test_a_state_directory_copied_from_another_machine(harness: DaemonHarness) -> None:
    """A state directory that is copied to another machine keeps its history; its live runs are
    interrupted."""
    harness.allow(Catalogue.SHIM_LOST)
    done = harness.ended(harness.submit("sh", "-c", "exit 3"))
    run_id = harness.program("ticker", str(harness.home / "gate"))
    harness.until(run_id, "EXEC")
    harness.kill()
    copy = harness.home / "copy"
    shutil.copytree(harness.state_dir, copy, copy_function=shutil.copy2)
    harness.start()
    harness.call("run.stop", run_id=run_id, grace_s=0)
    harness.ended(run_id)
    assert harness.stop() == 0
    harness.state_dir.rename(harness.home / "original")
    copy.rename(harness.state_dir)
    for name in ("launch.json", "started.json"):
        rewrite(harness.attempt(run_id) / name, 1, 1)
    harness.start()
    assert harness.ended(run_id)["cause"]["kind"] == "rebooted"
    assert harness.get(done["run_id"])["exit_code"] == 3
