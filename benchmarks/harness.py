"""A private daemon in a temporary directory, and what a benchmark asks of it.

Leaving the `with` block stops every run, ends the daemon and removes the directory, whatever happened
inside.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicd.protocol import rundir
from mosaicd.protocol.errors import MosaicError

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 120.0
#: What `mosaicctl` does, without the few imports of the script that pip writes.
CTL = "import sys; from mosaicctl.__main__ import main; sys.exit(main())"


class Failed(Exception):
    """The daemon did not do what a benchmark needs of it."""


def wait_until(is_true: Callable[[], bool], what: str, pause_s: float = 0.002) -> None:
    """Return when `is_true`; Failed after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not is_true():
        if time.monotonic() > end:
            raise Failed(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(pause_s)


class DaemonHarness:
    """One daemon with so many CPU slots; use it in a `with`."""

    def __init__(self, slots: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="mosaic-bench-"))
        self.state_dir = self.home / "state"
        self._socket = self.home / "s"
        self._log = self.home / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        (self.home / "mosaicd.toml").write_text(f"[cpus]\nslots = {slots}\n[gpus]\nstatic = 0\n")
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "MOSAICD_SOCKET": str(self._socket)}
        self.environment.pop("PYTHONUNBUFFERED", None)

    def __enter__(self) -> "DaemonHarness":
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    # --- the daemon ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon and return when it is ready; Failed when it ends instead."""
        command = [sys.executable, "-m", "mosaicd", "--state-dir", str(self.state_dir)]
        command += ["--socket", str(self._socket), "--config", str(self.home / "mosaicd.toml")]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.home
            )
        wait_until(self._is_ready, "the daemon is ready", 0.01)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Failed(f"the daemon ended:\n{self._log.read_text(errors='replace')[-2000:]}")
        try:
            with self.client() as client:
                return bool(client.call("daemon.health")["ready"])
        except (NoDaemon, Disconnected, MosaicError):
            return False

    def stop(self) -> None:
        """End the daemon in good order; its runs would live on."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _end(self) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                self._stop_runs()
        except (NoDaemon, Disconnected, MosaicError) as error:
            sys.stderr.write(f"benchmarks: some runs may be left: {error}\n")
        finally:
            self.stop()
            shutil.rmtree(self.home, ignore_errors=True)

    def _stop_runs(self) -> None:
        with self.client() as client:
            while live := client.call("run.list", {"live": True})["runs"]:
                for run in live:
                    client.call("run.stop", {"run_id": run["run_id"], "grace_s": 0})
                for run in live:
                    client.call("run.wait", {"run_id": run["run_id"], "timeout_s": DEADLINE_S}, DEADLINE_S)

    @property
    def pid(self) -> int:
        """The daemon's pid."""
        assert self._process is not None
        return self._process.pid

    def launcher_pid(self) -> int:
        """The pid of the daemon's launcher."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().startswith("mosaic"):
                return int(child)
        raise Failed(f"no launcher among the daemon's children {children}")

    # --- runs ------------------------------------------------------------------------------------

    def client(self) -> Client:
        """A connection."""
        return connect(str(self._socket))

    def submit(self, client: Client, *command: str) -> str:
        """Submit a command and return the run's id."""
        return str(client.call("run.submit", {"command": list(command), "cwd": str(self.home)})["run_id"])

    def ended(self, client: Client, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run that must succeed."""
        run: dict[str, Any] = client.call(
            "run.wait", {"run_id": run_id, "timeout_s": DEADLINE_S}, DEADLINE_S + 5
        )
        if run["outcome"] != "succeeded":
            raise Failed(f"a run of the benchmark ended {run['outcome']}: {run['cause']}")
        return run

    def all_ended(self, client: Client) -> None:
        """Wait until no run is live; asks seldom, because asking takes from what is measured."""
        still = {"live": True, "limit": 1}
        wait_until(lambda: not client.call("run.list", still)["runs"], "all runs ended", 0.02)

    def attempt(self, run_id: str) -> Path:
        """The directory of a run's first attempt."""
        return Path(rundir.attempt_dir(str(self.state_dir / "runs" / run_id), 1))

    def stdout(self, run_id: str) -> bytes:
        """What a run printed."""
        return (self.attempt(run_id) / rundir.STDOUT).read_bytes()

    def record(self, run_id: str, name: str) -> dict[str, Any]:
        """One of the attempt's small records, by its file name."""
        found: dict[str, Any] = json.loads((self.attempt(run_id) / name).read_bytes())
        return found
