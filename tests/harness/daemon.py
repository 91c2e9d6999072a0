"""A real daemon in a directory of its own, and what a test asks of it.

Everything is real: process, socket, registry, launcher, shims, workers.
Note: the harness outlives its daemon on purpose (`kill`, `start`): most promises are about exactly that.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicd.log import Catalogue, Entry
from mosaicd.protocol import rundir
from mosaicd.protocol.errors import MosaicError
from mosaicd.rundirs.directories import held_attempts
from mosaicd.shim.containment import environment_of
from tests.harness.trouble import logged, loud_lines, replay_differs
from tests.harness.waiting import DEADLINE_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests/daemon/programs"

#: Time limits of the product, shortened.
SETTINGS: dict[str, dict[str, Any]] = {
    "cpus": {"slots": 2},
    "gpus": {"static": 0},
    "timeouts": {"grace_s": 1.0, "worker_grace_s": 2.0, "handshake_s": 10.0, "pause_ack_s": 1.0},
    "retries": {"backoff_s": 0.05, "backoff_max_s": 0.2},
}


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class DaemonHarness:
    """One state directory, one socket, and the daemon that serves them when it runs."""

    def __init__(self, home: Path, settings: dict[str, dict[str, Any]] | None = None) -> None:
        self.home = home
        self.state_dir = home / "state"
        self.socket = home / "s"
        self.config = home / "mosaicd.toml"
        self.log = home / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.run_ids: set[str] = set()
        #: Warnings that may be in the log at the end.  An attempt that fails is the fault of its program.
        self.allowed_warnings = {Catalogue.RUN_FAULTED}
        self.configure(settings or {})

    # --- its log ---------------------------------------------------------------------------------

    def allow(self, *entries: Entry) -> None:
        """Let warnings of these kinds be in the log at the end of the test."""
        self.allowed_warnings.update(entries)

    def logged(self, entry: Entry, *words: str) -> list[str]:
        """The records of `entry` in the log that have each of `words` in them."""
        return logged(self.log, entry, *words)

    # --- the daemon ------------------------------------------------------------------------------

    def configure(self, settings: dict[str, dict[str, Any]]) -> None:
        """Write the config file: the shortened limits, with `settings` over them."""
        sections = {
            name: {**SETTINGS.get(name, {}), **settings.get(name, {})} for name in {*SETTINGS, *settings}
        }
        lines = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start the daemon and return when it answers everybody."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), str(ROOT / "workers/sdk"), str(ROOT / "workers/tabular")]
            ),
        }
        environment.pop("PYTHONUNBUFFERED", None)
        command = [
            sys.executable,
            "-m",
            "mosaicd",
            "--state-dir",
            str(self.state_dir),
            "--socket",
            str(self.socket),
            "--config",
            str(self.config),
            "--log-level",
            "info",
        ]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=self.home
            )
        wait_until(
            self._ready, lambda answer: answer is True, f"the daemon is ready\n{self.log.read_text()[-2000:]}"
        )

    def _ready(self) -> Any:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(
                f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
            )
        try:
            with connect(str(self.socket)) as client:
                return client.call("daemon.health", timeout_s=5)["ready"]
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what was last seen
            return repr(error)

    def stop(self) -> int:
        """End the daemon in good order; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """kill -9 of the daemon."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def restart(self) -> None:
        """kill -9, and start again."""
        self.kill()
        self.start()

    def launcher_pid(self) -> int:
        """The pid of the daemon's launcher."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):  # an interpreter that was asked for its workers, and is gone
                if b"launcher" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        raise AssertionError(f"no launcher among {children}")

    # --- requests ---------------------------------------------------------------------------------

    def client(self) -> Client:
        """A connection."""
        return connect(str(self.socket))

    def call(self, method: str, timeout_s: float = 30.0, **params: Any) -> Any:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.call(method, params, timeout_s)

    def submit(self, *command: str, **params: Any) -> str:
        """Submit a command (in the harness's own directory) and return the run id."""
        run = self.call("run.submit", command=list(command), **{"cwd": str(self.home), **params})
        self.run_ids.add(run["run_id"])
        return str(run["run_id"])

    def python(self, code: str, *arguments: str, **params: Any) -> str:
        """Submit a Python program."""
        return self.submit(sys.executable, "-c", code, *arguments, **params)

    def program(self, name: str, *arguments: str, **params: Any) -> str:
        """Submit one of the programs beside the tests."""
        return self.submit(sys.executable, str(PROGRAMS / f"{name}.py"), *arguments, **params)

    def submit_config(self, config: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Submit a TrainRunConfig and return the run."""
        run: dict[str, Any] = self.call("run.submit", config=config, **params)
        self.run_ids.add(run["run_id"])
        return run

    def get(self, run_id: str) -> dict[str, Any]:
        """The run as it is now."""
        found: dict[str, Any] = self.call("run.get", run_id=run_id)
        return found

    def until(self, run_id: str, state: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until the run is seen in `state`."""
        return wait_until(
            lambda: self.get(run_id),
            lambda run: run["state"] == state,
            f"run {run_id} reaches {state}",
            deadline_s,
        )

    def ended(self, run_id: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait for TERM and return the run."""
        with self.client() as client:  # the daemon says in time where the run is; it is asked for longer
            asked = {"run_id": run_id, "timeout_s": deadline_s}
            run: dict[str, Any] = client.call("run.wait", asked, deadline_s + DEADLINE_S)
        assert run["state"] == "TERM", run
        return run

    def put_away(self, *run_ids: str) -> None:
        """Wait until ended runs have nothing left to do: their directories say so from then on, and no shim
        has them, which may still have to hear that its last word arrived."""
        for run_id in run_ids:
            directory = self.state_dir / "runs" / run_id
            environment = directory / rundir.ENVIRONMENT
            wait_until(environment.exists, lambda there: not there, f"{run_id} is put away")
            held = partial(held_attempts, directory)
            wait_until(held, lambda attempts: not attempts, f"the shim of {run_id} leaves")

    def ctl(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run mosaicctl as a user would, with its output captured."""
        command = [sys.executable, "-m", "mosaicctl", "--socket", str(self.socket), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            cwd=self.home,
            check=False,
        )

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The ledger of an ended run, as run.watch tells it."""
        told: list[dict[str, Any]] = []
        with self.client() as client:
            client.call("run.watch", {"since": 0, "run_id": run_id})
            while not told or told[-1]["state"] != "TERM":
                found = client.next_notification(DEADLINE_S)
                assert found is not None, f"the ledger of {run_id} stops after {told}"
                told.append(found[1])
        return told

    # --- files and processes -----------------------------------------------------------------------

    def attempt(self, run_id: str, number: int = 1) -> Path:
        """An attempt's directory."""
        return Path(rundir.attempt_dir(str(self.state_dir / "runs" / run_id), number))

    def stdout(self, run_id: str, number: int = 1) -> bytes:
        """What the attempt printed."""
        return (self.attempt(run_id, number) / rundir.STDOUT).read_bytes()

    def telemetry(self, run_id: str, number: int = 1) -> list[dict[str, Any]]:
        """The attempt's numbered records."""
        return [
            json.loads(line)
            for line in (self.attempt(run_id, number) / rundir.TELEMETRY).read_bytes().splitlines()
        ]

    def pids(self, run_id: str) -> list[int]:
        """Living processes that carry the run's marker."""
        marker = f"{rundir.MARKER}={run_id}".encode()
        everybody = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in everybody if marker in environment_of(pid).split(b"\0")]

    def shims(self) -> list[int]:
        """Shims that work for this harness: processes that hold one of its attempt directories open."""
        daemon = str(self.process.pid) if self.process is not None else None  # which looks into them, too
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and entry.name != daemon
            and self._holds_an_attempt(entry)
            and not self._is_marked(entry)
        ]

    def _holds_an_attempt(self, entry: Path) -> bool:
        root = f"{self.state_dir / 'runs'}/"
        try:
            links = list((entry / "fd").iterdir())
        except OSError:
            return False
        for link in links:
            with contextlib.suppress(OSError):  # closed meanwhile: not what a shim has for all its life
                target = os.readlink(link)
                if target.startswith(root) and rundir.ATTEMPT_PREFIX in target:
                    return True
        return False

    @staticmethod
    def _is_marked(entry: Path) -> bool:
        """Whether it is a worker's; who is gone meanwhile is at least no shim."""
        try:
            return rundir.MARKER.encode() in (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            return False

    # --- the end: trouble that nobody asserted on ---------------------------------------------------

    def close(self) -> list[str]:
        """End everything; return what was wrong."""
        trouble = []
        if self.process is not None and self.process.poll() is None:
            try:
                self._stop_runs()
                self._patient_shims()  # the last one would outlive the launcher, which clears up after it
            except (MosaicError, NoDaemon, Disconnected, OSError) as error:
                trouble.append(f"runs cannot be stopped: {error!r}")
            if self.stop() != 0:
                trouble.append(f"the daemon left with {self.process.returncode}")
        for run_id in self.run_ids:
            for pid in self.pids(run_id):
                trouble.append(f"process {pid} of run {run_id} was left")
                _end(pid)
        for pid in self._patient_shims():
            trouble.append(f"shim {pid} was left")
            _end(pid)
        self._remove_temporaries()
        registry = self.state_dir / "registry.sqlite3"
        return trouble + loud_lines(self.log, self.allowed_warnings) + replay_differs(registry)

    def _stop_runs(self) -> None:
        with self.client() as client:
            for run in client.call("run.list", {"live": True})["runs"]:
                self.run_ids.add(run["run_id"])
                client.call("run.stop", {"run_id": run["run_id"], "grace_s": 0})
            for run_id in self.run_ids:
                client.call("run.wait", {"run_id": run_id, "timeout_s": DEADLINE_S})

    def _remove_temporaries(self) -> None:
        """Remove TMPDIRs of runs whose shims a test killed: no daemon is left that would come to it."""
        runs = self.state_dir / "runs"
        tails = {path.name[-rundir.TAIL_LENGTH :] for path in (runs.iterdir() if runs.is_dir() else ())}
        for path in Path(rundir.TEMPORARY_BASE).glob("mosaic-*"):
            if (found := rundir.temporary_tail(path.name)) and found[0] in tails:
                shutil.rmtree(path, ignore_errors=True)

    def _patient_shims(self) -> list[int]:
        end = time.monotonic() + DEADLINE_S
        while (left := self.shims()) and time.monotonic() < end:
            time.sleep(0.01)
        return left
