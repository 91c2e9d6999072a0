"""After a reboot, and on a state directory from another machine, pids mean nothing: who ran was interrupted,
what waited starts, and nobody else's process is touched."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.daemon.house import House, eventually

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def reboot(house: House, *run_ids: str, pid: int | None = None, ticks: int | None = None) -> None:
    """End daemon, shims and runs as a power cut does, and let their files be of another boot."""
    house.kill()
    for shim in house.shims():
        end(shim)
    for run_id in run_ids:
        for process in house.pids(run_id):
            end(process)
        eventually(lambda: [*house.shims(), *house.pids(run_id)], lambda left: not left, "all is gone")  # noqa: B023
        for name in ("launch.json", "started.json"):
            rewrite(house.attempt(run_id) / name, pid, ticks)


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


def test_what_ran_is_interrupted_and_what_waited_starts(house: House) -> None:
    """Cause rebooted; retried only where the policy has retries; waiting runs keep their place."""
    house.allowed_warnings.append("is gone")
    gate = house.home / "gate"
    single = house.program("ticker", str(gate))
    again = house.program("ticker", str(gate), retries=1)
    for run_id in (single, again):
        house.until(run_id, "EXEC")
    waiting = house.submit("sh", "-c", "echo late")
    reboot(house, single, again)
    house.start()

    ended = house.ended(single)
    assert (ended["outcome"], ended["cause"]["kind"], ended["attempt"]) == ("interrupted", "rebooted", 1)
    second = eventually(
        lambda: house.get(again),
        lambda run: (run["attempt"], run["state"]) == (2, "EXEC"),
        "a second attempt",
    )
    assert second["retries_used"] == 1
    gate.touch()
    assert house.ended(again)["exit_code"] == 7
    assert house.ended(waiting)["outcome"] == "succeeded"


def test_an_end_that_was_recorded_before_the_reboot_stands(house: House) -> None:
    """exit.json is durable: who ended before the power went has its exact end, not `rebooted`."""
    house.allowed_warnings.append("is gone")
    gate = house.home / "gate"
    run_id = house.program("ticker", str(gate))
    house.until(run_id, "EXEC")
    house.kill()
    gate.touch()
    eventually((house.attempt(run_id) / "exit.json").exists, bool, "it ends while the daemon is down")
    reboot(house, run_id)
    house.start()
    assert house.ended(run_id)["exit_code"] == 7


def test_a_pid_of_another_boot_is_nobody_of_ours(house: House) -> None:
    """A process that has, by chance, pid and start time of a worker from before the reboot is left alone."""
    house.allowed_warnings += ["is gone", "gone or empty"]
    with subprocess.Popen(["sleep", "600"]) as stranger:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])
        run_id = house.program("ticker", str(house.home / "gate"))
        house.until(run_id, "EXEC")
        reboot(house, run_id, pid=stranger.pid, ticks=ticks)
        for part in ("", "-wal", "-shm"):  # what is known of the worker is what the files say
            (house.state_dir / f"registry.sqlite3{part}").unlink(missing_ok=True)
        house.start()
        ended = house.ended(run_id)
        assert (ended["outcome"], ended["cause"]["kind"]) == ("interrupted", "rebooted")
        assert stranger.poll() is None
        stranger.kill()


def test_a_state_directory_from_another_machine(house: House) -> None:
    """Copied elsewhere with everything in it, its history is there and its live runs are interrupted."""
    house.allowed_warnings.append("is gone")
    done = house.ended(house.submit("sh", "-c", "exit 3"))
    run_id = house.program("ticker", str(house.home / "gate"))
    house.until(run_id, "EXEC")
    house.kill()
    copy = house.home / "copy"
    shutil.copytree(house.state_dir, copy, copy_function=shutil.copy2)
    house.start()
    house.call("run.stop", run_id=run_id, grace_s=0)
    house.ended(run_id)
    assert house.stop() == 0
    house.state_dir.rename(house.home / "original")
    copy.rename(house.state_dir)
    for name in ("launch.json", "started.json"):
        rewrite(house.attempt(run_id) / name, 1, 1)
    house.start()
    assert house.ended(run_id)["cause"]["kind"] == "rebooted"
    assert house.get(done["run_id"])["exit_code"] == 3
