"""A full or failing disk: requests are refused with the path, runs continue, acknowledged data is kept."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.errors import MosaicError
from tests.faults.smalldisk import Disk
from tests.harness.building import Build, Builder, builder
from tests.harness.daemon import DaemonHarness, Settings
from tests.harness.waiting import wait_until

SIZE_KIB = 48 << 10  # the write-ahead log of the registry needs up to 16 MiB
ALLOWED = (
    Catalogue.COMMIT_RETRIED, Catalogue.RUN_NOT_RECORDED, Catalogue.CHECKPOINT_FAILED, Catalogue.PRUNE_FAILED,
    Catalogue.LAUNCH_FAILED, Catalogue.LAUNCH_DELAYED, Catalogue.TEARDOWN_FAILED, Catalogue.ENVIRONMENT_LEFT,
    Catalogue.SHIM_CRASHED, Catalogue.RECORD_TORN,
)  # fmt: skip


class SmallDiskHarness(DaemonHarness):
    """A harness whose state directory is a mounted small disk."""

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        super().__init__(home, settings)
        self.disk = Disk(self.state_dir, SIZE_KIB)
        self.allow(*ALLOWED)

    def close(self) -> list[str]:
        """Free the disk space, stop all processes and return the faults that were found."""
        self.disk.release()
        return super().close()

    def remove(self) -> None:
        """Unmount the disk and remove the directory."""
        self.disk.close()
        super().remove()


BuildSmall = Builder[SmallDiskHarness]


@pytest.fixture
def build_small() -> Iterator[BuildSmall]:
    """Yield a builder of harnesses on small disks; at the end each is checked for faults and removed."""
    with builder(SmallDiskHarness) as make:
        yield make


def test_an_input_on_a_full_disk_is_refused_and_leaves_nothing(build_small: BuildSmall) -> None:
    """If the disk is full before an input has arrived, the submit is refused, and nothing is left."""
    harness = build_small()
    path = harness.home / "input"
    path.write_bytes(bytes(4 << 20))
    harness.disk.fill(1 << 20)
    full = harness.disk.free_bytes
    done = harness.ctl("submit", "--stdin", str(path), "--", "cat")
    assert done.returncode == 69 and str(harness.state_dir / "uploads") in done.stderr
    wait_until(lambda: harness.disk.free_bytes, lambda free: free >= full - (64 << 10), "the space is free")
    harness.disk.release()
    assert not all_runs(harness) and not os.listdir(harness.state_dir / "uploads")
    done = harness.ctl("-o", "name", "submit", "--stdin", str(path), "--", "cat")
    assert harness.ended(done.stdout.strip())["outcome"] == "succeeded"


def all_runs(harness: DaemonHarness) -> dict[str, dict[str, Any]]:
    with harness.client() as client:
        runs: dict[str, dict[str, Any]] = {}
        cursor = None
        while True:
            page = client.call("run.list", {"cursor": cursor} if cursor else {})
            runs |= {run["run_id"]: run for run in page["runs"]}
            cursor = page["cursor"]
            if cursor is None:
                return runs


def test_submit_on_a_full_disk_is_accepted_or_refused_completely(build_small: BuildSmall) -> None:
    """With any amount of free space, a submit is accepted completely, or refused with the path."""
    harness = build_small()
    accepted, refused = [], []
    for leave_kib in range(0, 100, 8):
        harness.disk.fill(leave_kib << 10)
        try:
            accepted.append(harness.submit("sh", "-c", "exit 3", environment={"NOTE": "n" * 5000}))
        except MosaicError as error:
            assert error.name == "unavailable"
            assert str(harness.state_dir) in error.message, error.message
            refused.append(error.message)
        harness.disk.release()
        if leave_kib % 24 == 0:  # the next request succeeds
            accepted.append(harness.submit("sh", "-c", "exit 3"))
    assert accepted and refused
    assert any("runs" in text for text in refused)
    for run_id in accepted:
        run = harness.ended(run_id)
        assert (run["outcome"], run["exit_code"]) in (("failed", 3), ("failed", None)), run
        if run["exit_code"] is None:
            assert run["cause"]["kind"] == "disk_full", run["cause"]
    assert set(all_runs(harness)) == set(accepted)
    assert {path.name for path in (harness.state_dir / "runs").iterdir()} == set(accepted)


def test_run_survives_a_full_disk_and_its_end_is_exact(build_small: BuildSmall) -> None:
    """On a full disk output is shed and counted, exit.json is written, and the recorded end is exact."""
    harness = build_small()
    gate = harness.home / "gate"
    code = (
        "import os, sys, time\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        "sys.stdout.write('x' * 3_000_000); sys.stdout.flush()\n"
        "os._exit(7)\n"
    )
    run_id = harness.python(code)
    harness.until(run_id, "EXEC")
    harness.disk.fill()
    gate.touch()
    record = harness.attempt(run_id) / "exit.json"
    wait_until(record.exists, bool, "exit.json is written on a full disk")
    assert json.loads(record.read_text())["exit_code"] == 7
    with pytest.raises(MosaicError):
        harness.submit("true")
    harness.kill()
    harness.disk.release()
    harness.start()
    run = harness.ended(run_id)
    assert (run["outcome"], run["exit_code"], run["cause"]["kind"]) == ("failed", 7, "exit_code")
    exit_record = json.loads(record.read_text())
    assert exit_record["stdout_bytes"] == 3_000_000
    kept = sum(path.stat().st_size for path in record.parent.glob("stdout.log*"))
    assert kept + exit_record["shed"]["stdout_bytes"] == 3_000_000
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_run_that_cannot_start_on_a_full_disk_fails_with_disk_full(build_small: BuildSmall) -> None:
    """If no file of an attempt can be created, the run fails with the cause disk_full and is retried."""
    harness = build_small()
    run_id = harness.submit("true", hold=True, retries=1, cwd="/")
    harness.disk.fill_inodes()
    harness.call("run.release", run_id=run_id)
    events = harness.events(run_id)
    assert events[-1]["outcome"] == "failed"
    run = harness.get(run_id)
    assert run["cause"]["kind"] == "disk_full", run["cause"]
    assert "No space left on device" in run["cause"]["error"]
    assert run["retries_used"] == 1
    harness.disk.release()
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_shim_start_with_few_inodes_succeeds_or_fails_with_disk_full(build_small: BuildSmall) -> None:
    """With any number of free inodes, a run succeeds or fails with the cause disk_full."""
    harness = build_small()
    kinds = set()
    for leave_count in range(0, 12, 2):
        run_id = harness.submit("true", hold=True, cwd="/")
        harness.disk.fill_inodes(leave_count)
        harness.call("run.release", run_id=run_id)
        run = harness.ended(run_id)
        kinds.add((run["cause"] or {}).get("kind"))
        assert run["outcome"] == "succeeded" or run["cause"]["kind"] == "disk_full", run["cause"]
        harness.disk.release()
        harness.wait_until_cleaned_up(run_id)  # a later cleanup of this run must not free inodes for the next
    assert kinds == {None, "disk_full"}


def test_daemon_that_cannot_start_on_a_full_disk_exits_with_2_and_the_path(build_small: BuildSmall) -> None:
    """With little free space, the first start succeeds or exits with 2 and the path; a later start works."""
    harness = build_small(start=False)
    refused = 0
    for leave_kib in (0, 8, 40):
        harness.disk.fill(leave_kib << 10)
        try:
            harness.start()
        except AssertionError:
            assert harness.process is not None and harness.process.returncode == 2, harness.log.read_text()
            refused += 1
        else:
            assert harness.stop() == 0
        harness.disk.release()
    assert refused
    text = harness.log.read_text()
    assert "Traceback" not in text
    assert all(str(harness.state_dir) in line for line in text.splitlines() if line.startswith("mosaicd: "))
    harness.start()
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_wal_checkpoints_continue_after_a_full_disk(build_small: BuildSmall) -> None:
    """A WAL checkpoint that fails on a full disk is logged; when there is space, the next one succeeds."""
    harness = build_small(registry={"checkpoint_interval_s": 0.1})
    harness.allow(Catalogue.CHECKPOINT_FAILED)

    def has_failed() -> bool:
        harness.disk.release()
        for _ in range(10):  # new pages, so the database file has to grow
            harness.submit("true", hold=True, labels={"note": "n" * 200})
        harness.disk.fill()
        try:
            wait_until(lambda: harness.logged(Catalogue.CHECKPOINT_FAILED), bool, "a checkpoint fails", 2)
        except AssertionError:
            return False  # a checkpoint ran between the submits and left nothing to write
        return True

    wait_until(has_failed, bool, "a checkpoint fails", 60)
    failed_at = time.time()
    harness.disk.release()

    def has_succeeded() -> bool:
        wal = harness.call("daemon.health")["wal"]  # None if the very first checkpoint failed
        return wal is not None and wal["at"] > failed_at

    wait_until(has_succeeded, bool, "the next checkpoint succeeds")


class FailingCalls:
    """strace attached to a live process; system calls of the process fail until strace detaches."""

    def __init__(self, pid: int, *injections: str, paths: Sequence[Path] = ()) -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        expressions = [word for injection in injections for word in ("-e", f"inject={injection}")]
        traced = ",".join(injection.split(":")[0] for injection in injections)
        only = [word for path in paths for word in ("-P", str(path))]
        command = ["strace", "-f", "-q", "-e", f"trace={traced}", *expressions, *only, "-o", "/dev/null"]
        self._tracer = subprocess.Popen(
            [*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        expected = {self._tracer.pid}
        wait_until(lambda: self._tracers(pid), lambda pids: pids == expected, "strace is attached")

    @staticmethod
    def _tracers(pid: int) -> set[int]:
        tracers = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended
                status = (task / "status").read_text()
                tracers.add(int(status.split("TracerPid:")[1].split()[0]))
        return tracers

    def __enter__(self) -> "FailingCalls":
        return self

    def __exit__(self, *_: object) -> None:
        self._tracer.send_signal(signal.SIGINT)
        self._tracer.wait(60)


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync", "mkdir"])
def test_requests_are_refused_while_writes_fail_and_accepted_afterwards(call: str, build: Build) -> None:
    """While writes of the daemon return EIO, requests are refused with the path; later requests succeed."""
    harness = build()
    harness.allow(*ALLOWED)
    gate = harness.home / "gate"
    first = harness.submit("sh", "-c", f"while ! test -e {gate}; do sleep 0.02; done; exit 5")
    harness.until(first, "EXEC")
    assert harness.process is not None
    refused = []
    with FailingCalls(harness.process.pid, f"{call}:error=EIO"):
        gate.touch()
        for _ in range(3):
            with pytest.raises(MosaicError) as caught:
                harness.submit("true")
            refused.append(caught.value.message)
    assert all(str(harness.state_dir) in text for text in refused), refused
    run = harness.ended(first)
    assert run["exit_code"] == 5
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"
    assert len(all_runs(harness)) == 2


def test_exit_code_survives_failing_writes_of_the_shim(build: Build) -> None:
    """If the shim's writes return EIO, it sheds output, reports the exit code, and writes exit.json later."""
    harness = build()
    gate = harness.home / "gate"
    run_id = harness.submit("sh", "-c", f"while ! test -e {gate}; do sleep 0.02; done; echo lost; exit 9")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    attempt = harness.attempt(run_id)
    failing = [attempt / name for name in ("stdout.log", "exit.json.tmp", "telemetry.jsonl")]
    with FailingCalls(shim, "write:error=EIO", "fsync:error=EIO", paths=failing):
        gate.touch()
        run = harness.ended(run_id)
        assert (run["outcome"], run["exit_code"]) == ("failed", 9)
    wait_until(lambda: harness.shims(), lambda pids: not pids, "the shim exits")
    record = json.loads((harness.attempt(run_id) / "exit.json").read_text())
    assert record["exit_code"] == 9
    assert record["shed"]["stdout_bytes"] == 5
    assert os.path.getsize(harness.attempt(run_id) / "stdout.log") == 0
