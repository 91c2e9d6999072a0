"""A disk that is really full, or fails: requests are refused with its name, runs live, nothing is lost."""

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

SIZE_KIB = 48 << 10  # the log of the registry takes up to 16 MiB
ALLOWED = (
    Catalogue.COMMIT_RETRIED, Catalogue.RUN_NOT_RECORDED, Catalogue.CHECKPOINT_FAILED, Catalogue.PRUNE_FAILED,
    Catalogue.LAUNCH_FAILED, Catalogue.LAUNCH_DELAYED, Catalogue.TEARDOWN_FAILED, Catalogue.ENVIRONMENT_LEFT,
    Catalogue.SHIM_CRASHED, Catalogue.RECORD_TORN,
)  # fmt: skip


class SmallDiskHarness(DaemonHarness):
    """A harness whose state directory is a small disk."""

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        super().__init__(home, settings)
        self.disk = Disk(self.state_dir, SIZE_KIB)
        self.allow(*ALLOWED)

    def close(self) -> list[str]:
        """Give the space back, end everything and return what was wrong."""
        self.disk.release()
        return super().close()

    def remove(self) -> None:
        """Unmount the disk and remove the directory."""
        self.disk.close()
        super().remove()


BuildSmall = Builder[SmallDiskHarness]


@pytest.fixture
def build_small() -> Iterator[BuildSmall]:
    """Make harnesses on small disks; each is searched for trouble, unmounted and removed at the end."""
    with builder(SmallDiskHarness) as make:
        yield make


def ledger_of(harness: DaemonHarness) -> dict[str, dict[str, Any]]:
    with harness.client() as client:
        runs: dict[str, dict[str, Any]] = {}
        cursor = None
        while True:
            page = client.call("run.list", {"cursor": cursor} if cursor else {})
            runs |= {run["run_id"]: run for run in page["runs"]}
            cursor = page["cursor"]
            if cursor is None:
                return runs


def test_a_submit_meets_a_full_disk_at_every_write(build_small: BuildSmall) -> None:
    """However much room is left, a submit is done or refused in full, with a sentence that says where."""
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
    assert set(ledger_of(harness)) == set(accepted)
    assert {path.name for path in (harness.state_dir / "runs").iterdir()} == set(accepted)


def test_a_run_lives_through_a_full_disk_and_its_end_is_exact(build_small: BuildSmall) -> None:
    """Output is shed and counted, exit.json has its reserved block, and the ledger follows with the truth."""
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


def test_a_run_that_cannot_start_for_want_of_room_says_so(build_small: BuildSmall) -> None:
    """Where no directory or file of an attempt can be made, the cause is disk_full, and it is retried."""
    harness = build_small()
    run_id = harness.submit("true", hold=True, retries=1, cwd="/")
    harness.disk.fill_names()
    harness.call("run.release", run_id=run_id)
    told = harness.events(run_id)
    assert told[-1]["outcome"] == "failed"
    run = harness.get(run_id)
    assert run["cause"]["kind"] == "disk_full", run["cause"]
    assert "No space left on device" in run["cause"]["error"]
    assert run["retries_used"] == 1
    harness.disk.release()
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"


def test_a_shim_that_runs_out_of_room_while_it_begins_says_so(build_small: BuildSmall) -> None:
    """With any number of names left, a run ends with its own outcome or with disk_full, never otherwise."""
    harness = build_small()
    kinds = set()
    for leave in range(0, 12, 2):
        run_id = harness.submit("true", hold=True, cwd="/")
        harness.disk.fill_names(leave)
        harness.call("run.release", run_id=run_id)
        run = harness.ended(run_id)
        kinds.add((run["cause"] or {}).get("kind"))
        assert run["outcome"] == "succeeded" or run["cause"]["kind"] == "disk_full", run["cause"]
        harness.disk.release()
        harness.put_away(run_id)  # what gives names back later is not the next one's
    assert kinds == {None, "disk_full"}


def test_a_start_on_a_full_disk_is_refused_with_a_sentence(build_small: BuildSmall) -> None:
    """With any little room, the first start works or ends with 2 and a sentence, and harms nothing."""
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


def test_checkpoints_go_on_after_a_full_disk(build_small: BuildSmall) -> None:
    """A checkpoint that finds no room is said and is not the last: when there is room, the log is moved."""
    harness = build_small(registry={"checkpoint_interval_s": 0.1})
    harness.allow(Catalogue.CHECKPOINT_FAILED)

    def has_failed() -> bool:
        harness.disk.release()
        for _ in range(10):  # new pages, which the file has to grow for
            harness.submit("true", hold=True, labels={"note": "n" * 200})
        harness.disk.fill()
        try:
            wait_until(lambda: harness.logged(Catalogue.CHECKPOINT_FAILED), bool, "it failed", 2)
        except AssertionError:
            return False  # it came between the submits, and the next had nothing to do
        return True

    wait_until(has_failed, bool, "a checkpoint fails", 60)
    failed_at = time.time()
    harness.disk.release()

    def has_been() -> bool:
        wal = harness.call("daemon.health")["wal"]  # None where the first of all has failed
        return wal is not None and wal["at"] > failed_at

    wait_until(has_been, bool, "the next checkpoint")


class Injected:
    """strace on a living process, which makes its system calls fail until it is let go."""

    def __init__(self, pid: int, *injections: str, paths: Sequence[Path] = ()) -> None:
        if shutil.which("strace") is None:
            pytest.skip("there is no strace")
        expressions = [word for injection in injections for word in ("-e", f"inject={injection}")]
        traced = ",".join(injection.split(":")[0] for injection in injections)
        only = [word for path in paths for word in ("-P", str(path))]
        command = ["strace", "-f", "-q", "-e", f"trace={traced}", *expressions, *only, "-o", "/dev/null"]
        self._tracer = subprocess.Popen(
            [*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        mine = {self._tracer.pid}
        wait_until(lambda: self._tracers(pid), lambda found: found == mine, "strace is attached")

    @staticmethod
    def _tracers(pid: int) -> set[int]:
        found = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended
                status = (task / "status").read_text()
                found.add(int(status.split("TracerPid:")[1].split()[0]))
        return found

    def __enter__(self) -> "Injected":
        return self

    def __exit__(self, *_: object) -> None:
        self._tracer.send_signal(signal.SIGINT)
        self._tracer.wait(60)


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync", "mkdir"])
def test_a_failing_disk_refuses_requests_and_recovers(call: str, build: Build) -> None:
    """EIO from the daemon's writes and syncs: refusals that name the place, then work as before."""
    harness = build()
    harness.allow(*ALLOWED)
    gate = harness.home / "gate"
    first = harness.submit("sh", "-c", f"while ! test -e {gate}; do sleep 0.02; done; exit 5")
    harness.until(first, "EXEC")
    assert harness.process is not None
    refused = []
    with Injected(harness.process.pid, f"{call}:error=EIO"):
        gate.touch()
        for _ in range(3):
            with pytest.raises(MosaicError) as caught:
                harness.submit("true")
            refused.append(caught.value.message)
    assert all(str(harness.state_dir) in text for text in refused), refused
    run = harness.ended(first)
    assert run["exit_code"] == 5
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"
    assert len(ledger_of(harness)) == 2


def test_a_shim_on_a_failing_disk_keeps_its_run_and_its_exit(build: Build) -> None:
    """EIO in the shim's writes and syncs sheds output; the exit code is told, and written when it can be."""
    harness = build()
    gate = harness.home / "gate"
    run_id = harness.submit("sh", "-c", f"while ! test -e {gate}; do sleep 0.02; done; echo lost; exit 9")
    harness.until(run_id, "EXEC")
    [shim] = harness.shims()
    attempt = harness.attempt(run_id)
    failing = [attempt / name for name in ("stdout.log", "exit.json.tmp", "telemetry.jsonl")]
    with Injected(shim, "write:error=EIO", "fsync:error=EIO", paths=failing):
        gate.touch()
        run = harness.ended(run_id)
        assert (run["outcome"], run["exit_code"]) == ("failed", 9)
    wait_until(lambda: harness.shims(), lambda found: not found, "the shim leaves")
    record = json.loads((harness.attempt(run_id) / "exit.json").read_text())
    assert record["exit_code"] == 9
    assert record["shed"]["stdout_bytes"] == 5
    assert os.path.getsize(harness.attempt(run_id) / "stdout.log") == 0
