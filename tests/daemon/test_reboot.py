"""After a reboot, and on a state directory from another machine, pids mean nothing: who ran was interrupted,
waiting runs start, and no process of another program is touched."""

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
    """End daemon, shims and runs as a power cut does, and let their files be of another boot."""
    harness.kill()
    for shim in harness.shims():
        end(shim)
    for run_id in run_ids:
        for process in harness.pids(run_id):
            end(process)
        wait_until(lambda: [*harness.shims(), *harness.pids(run_id)], lambda left: not left, "all is gone")  # noqa: B023
        for name in ("launch.json", "started.json"):
            rewrite(harness.attempt(run_id) / name, pid, ticks)


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it had its end before it, and has left
        os.kill(pid, signal.SIGKILL)


def rewrite(path: Path, pid: int | None, ticks: int | None) -> None:
    record = json.loads(path.read_text())
    record["boot_id"] = OTHER_BOOT
    if pid is not None:
        record["shim_pid" if "nonce" in record else "pid"] = pid
        record["shim_started_at" if "nonce" in record else "start_ticks"] = ticks
    path.write_text(json.dumps(record))


def test_what_ran_is_interrupted_and_what_waited_starts(harness: DaemonHarness) -> None:
    """Cause rebooted; retried only where the policy has retries; waiting runs keep their place."""
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


def test_an_end_that_was_recorded_before_the_reboot_stands(harness: DaemonHarness) -> None:
    """exit.json is durable: who ended before the power went has its exact end, not `rebooted`."""
    harness.allow(Catalogue.SHIM_LOST)
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    harness.until(run_id, "EXEC")
    harness.kill()
    gate.touch()
    wait_until((harness.attempt(run_id) / "exit.json").exists, bool, "it ends while the daemon is down")
    reboot(harness, run_id)
    harness.start()
    assert harness.ended(run_id)["exit_code"] == 7


def test_a_pid_of_another_boot_is_nobody_of_ours(harness: DaemonHarness) -> None:
    """A process that has, by chance, pid and start time of a worker from before the reboot is left alone."""
    harness.allow(Catalogue.SHIM_LOST, Catalogue.REGISTRY_REBUILT)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])
        run_id = harness.program("ticker", str(harness.home / "gate"))
        harness.until(run_id, "EXEC")
        reboot(harness, run_id, pid=stranger.pid, ticks=ticks)
        for part in ("", "-wal", "-shm"):  # what is known of the worker is what the files say
            (harness.state_dir / f"registry.sqlite3{part}").unlink(missing_ok=True)
        harness.start()
        ended = harness.ended(run_id)
        assert (ended["outcome"], ended["cause"]["kind"]) == ("interrupted", "rebooted")
        assert stranger.poll() is None
        stranger.kill()


def test_a_state_directory_from_another_machine(harness: DaemonHarness) -> None:
    """Copied elsewhere with everything in it, its history is there and its live runs are interrupted."""
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
