"""The daemon of the kill drill: a zygote forks it, it may crash at a crash point, its disk may be small.

Note: the state directory may be a mount that only this process and its children see. So `keep` copies it to a
directory that the user can read after a failure.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import cast

from mosaicd.log import Catalogue
from mosaicd.protocol.rundir import temporary_path
from mosaicd.shim import cgroup
from tests.containment.groups import hierarchies
from tests.faults import squeeze
from tests.faults.clients import WORKER
from tests.faults.drill_plan import FailingWrites
from tests.faults.squeeze import ElasticDisk
from tests.faults.zygote import Zygote
from tests.harness import processes
from tests.harness.daemon import DaemonHarness, Settings
from tests.harness.places import ROOT
from tests.harness.waiting import wait_until

CPUS, GPUS = 6, 2
SETTINGS: Settings = {
    "cpus": {"slots": CPUS},
    "gpus": {"static": GPUS},
    "timeouts": {"grace_s": 0.3, "handshake_s": 10.0, "empty_retry_s": 0.02, "pause_ack_s": 0.5},
    "retries": {"backoff_s": 0.01, "backoff_max_s": 0.05},
    "registry": {"checkpoint_interval_s": 0.2},
    "limits": {"connections_per_user": 2000},
}
_MODULE = "tests.faults.drill_worker"
_ANSWER = {
    "workers": [
        {
            "kind": WORKER, "module": _MODULE, "metadata": {"name": WORKER, "version": "1"},
            "config_schema": None,
            "capabilities": {
                "worker_type": WORKER, "supports_checkpointing": True, "supports_pause_resume": True,
            },
        }
    ]
}  # fmt: skip
#: Discovery answers immediately from a file, because the drill does not test discovery.
_PYTHON = """#!/bin/sh
case $1 in */discovery.py) exec cat {answer} ;; esac
PYTHONPATH={path} exec {python} -S "$@"
"""


def memory_dir() -> str | None:
    """Return a directory in memory for state directories, or None; kills do not need a real disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Journal(threading.Thread):
    """A thread that copies the daemons' log from a pipe, so that file size limits do not stop the log."""

    def __init__(self, path: Path, log: Path) -> None:
        super().__init__(name="journal", daemon=True)
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)  # open for writing too, so that a read never returns end of file
        self._log = log
        self._is_over = False
        self.start()

    def run(self) -> None:
        """Append to the log what the daemons write into the pipe."""
        with open(self._log, "ab", buffering=0) as log:
            while not self._is_over:
                log.write(os.read(self._fd, 1 << 16))

    def close(self) -> None:
        """Copy the rest and stop; no daemon may be alive."""
        if not self._is_over:
            self._is_over = True
            os.write(self._fd, b"\n")
            self.join()
            os.close(self._fd)


class DrillHarness(DaemonHarness):
    """A harness whose daemon is killed and whose writes may fail for a while."""

    def __init__(self, zygote: Zygote, on_small_disk: bool = False) -> None:
        home = Path(tempfile.mkdtemp(prefix="mosaic-drill-", dir=memory_dir()))
        super().__init__(home, {**SETTINGS, f"workers.{WORKER}": self._install_worker(home)})
        self._zygote = zygote
        self._journal = Journal(home / "journal", self.log)
        self._squeezed: set[int] = set()
        self._was_limited = False
        self.disk: ElasticDisk | None = squeeze.try_mount(self.state_dir) if on_small_disk else None

    @staticmethod
    def _install_worker(home: Path) -> dict[str, str]:
        answer, python = home / "workers.json", home / "python"
        answer.write_text(json.dumps(_ANSWER))
        path = os.pathsep.join(map(str, (ROOT, ROOT / "workers/sdk")))
        python.write_text(_PYTHON.format(answer=answer, path=path, python=sys.executable))
        python.chmod(0o755)
        return {"python": str(python), "module": _MODULE}

    # --- the daemon ----------------------------------------------------------------------------------

    def begin(self, crash_at: str | None = None) -> None:
        """Start the daemon without waiting for it; it crashes at the crash point `crash_at`, if given."""
        forked = self._zygote.start(self.arguments, self._journal.path, self.home, crash_at)
        self.process = cast("subprocess.Popen[bytes]", forked)  # it has the same interface

    def log_text(self) -> str:
        """Return the daemons' log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def seen_killed(self) -> dict[str, int]:
        """Return how many shims and launchers were killed with SIGKILL, as the daemons logged it."""
        return {
            "shim": len(self.logged(Catalogue.SHIM_ENDED, "signal 9")),
            "launcher": len(self.logged(Catalogue.LAUNCHER_LOST, "status -9")),
        }

    def stop(self) -> int:
        """Stop the daemon gracefully and complete its log; return its exit code."""
        code = super().stop()
        self._journal.close()
        return code

    # --- writes that fail ----------------------------------------------------------------------------

    def squeeze(self, failing_writes: FailingWrites) -> str | None:
        """Let writes fail; return of which process, or "disk", or None if there is no such process."""
        assert self.process is not None
        whose = failing_writes.whose
        if whose == "disk" and self.disk is not None:
            self.disk.shrink(failing_writes.leave_bytes)
            return "disk"
        try:
            pids = {"launcher": self._launchers, "shim": self.shims_only}.get(whose, self._daemons)()
        except (AssertionError, OSError):  # the process has just ended
            return None
        if not pids:
            return None
        pid = pids[int(failing_writes.pick * len(pids))]
        self._squeezed.add(pid)
        self._was_limited = True
        return whose if squeeze.try_limit(pid, failing_writes.leave_bytes) else None

    def _daemons(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid] if self.process.poll() is None else []

    def shims_only(self) -> list[int]:
        """Return the sorted pids of the shims, without the daemon and workers that have not called exec."""
        pids = {*self.shims()}
        return sorted(pids - {child for pid in pids for child in processes.children(pid)})

    def _launchers(self) -> list[int]:
        return [self.launcher_pid()]

    @property
    def is_squeezed(self) -> bool:
        """Return whether writes may fail now."""
        return bool(self._squeezed) or (self.disk is not None and self.disk.is_small)

    def lift(self, *, again: bool = False) -> None:
        """Remove all limits.

        `again`: also the limits of shims that the launcher forked under a limit and that appeared later.
        """
        if self.disk is not None and self.disk.is_small:
            self.disk.grow()
        if self._squeezed or (again and self._was_limited):
            squeeze.lift({*self._squeezed, *self.shims()})
            self._squeezed.clear()

    # --- the end -------------------------------------------------------------------------------------

    def end_all(self) -> None:
        """Kill the daemon, the launcher, the shims and the runs, and remove their control groups."""
        self.lift()
        runs = {path.name for path in self.state_dir.glob("runs/*")}
        wait_until(self._kill_found, lambda pids: not pids, "no process is left")
        for path in {path for directory in hierarchies() for path in cgroup.tree(directory)}:
            if (name := Path(path).name).startswith("run-") and name[4:].rpartition("-")[0] in runs:
                cgroup.remove(path)

    def _kill_found(self) -> set[int]:
        """Kill and return all processes of the drill; daemons and launchers are found by their stderr."""
        pids = {pid for pid in processes.all_pids() if self._logs_to_journal(pid)}
        pids |= {
            *self.shims(),
            *processes.pids_with_marker(*(path.name for path in self.state_dir.glob("runs/*"))),
        }
        for pid in pids:
            processes.kill(pid)
        return pids

    def _logs_to_journal(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/2") == str(self._journal.path)
        except OSError:
            return False

    def keep(self) -> Path:
        """Return a directory with the state that other processes can read; copy the state if necessary."""
        kept = self.home / "state-kept"
        if self.disk is not None and not kept.exists():
            shutil.copytree(self.state_dir, kept, symlinks=True)
        return kept if self.disk is not None else self.state_dir

    def remove(self, keeps_files: bool = False) -> None:
        """Unmount the disk and remove the directory, unless the files are kept."""
        self._journal.close()
        for attempt in self.state_dir.glob("runs/*/attempt-*"):  # remain if launcher and shim died together
            run_id, number = attempt.parent.name, attempt.name.rpartition("-")[2]
            shutil.rmtree(temporary_path(run_id, int(number)), ignore_errors=True)
        if self.disk is not None:
            self.disk.close()
        if not keeps_files:
            shutil.rmtree(self.home, ignore_errors=True)
