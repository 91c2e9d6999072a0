"""A real daemon in its own directory, with real launcher, shims and workers, and requests to it.

The harness survives its daemon (`kill`, `start`), because most guarantees are about restarts.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicd.log import Catalogue, Entry
from mosaicd.protocol import rundir
from mosaicd.protocol.errors import MosaicError
from mosaicd.rundirs.attempt_files import held_attempts
from tests.harness import processes
from tests.harness.places import PROGRAMS, ROOT
from tests.harness.trouble import logged, loud_lines, replay_differs
from tests.harness.waiting import DEADLINE_S, wait_until

Settings = Mapping[str, Mapping[str, Any]]
Ended = subprocess.CompletedProcess[str]

#: Settings with short time limits.
SHORT_LIMITS: Settings = {
    "cpus": {"slots": 2},
    "gpus": {"static": 0},
    "timeouts": {"grace_s": 2.0, "handshake_s": 10.0, "pause_ack_s": 1.0},
    "retries": {"backoff_s": 0.05, "backoff_max_s": 0.2},
}


class DaemonHarness:
    """A state directory, a socket, and their daemon, which may run or not."""

    def __init__(
        self, home: Path, settings: Settings | None = None, defaults: Settings = SHORT_LIMITS
    ) -> None:
        self.home = home
        self.state_dir = home / "state"
        self.socket = home / "s"
        self.config = home / "mosaicd.toml"
        self.log = home / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.run_ids: set[str] = set()
        #: Warnings that may be in the log at the end; a failed attempt is normal in tests.
        self.allowed_warnings = {Catalogue.RUN_FAULTED}
        self._defaults = defaults
        self.configure(settings or {})

    # --- log ---------------------------------------------------------------------------------

    def allow(self, *entries: Entry) -> None:
        """Allow warnings of these entries in the log at the end of the test."""
        self.allowed_warnings.update(entries)

    def logged(self, entry: Entry, *words: str) -> list[str]:
        """Return the records of `entry` in the log that contain all `words`."""
        return logged(self.log, entry, *words)

    # --- the daemon ------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Write the config file: the defaults of this harness, overridden by `settings`."""
        sections = {
            name: {**self._defaults.get(name, {}), **settings.get(name, {})}
            for name in {*self._defaults, *settings}
        }
        lines = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def arguments(self) -> list[str]:
        """The command line of the daemon, after its program."""
        places = {"--state-dir": self.state_dir, "--socket": self.socket, "--config": self.config}
        return [*(str(word) for place in places.items() for word in place), "--log-level", "info"]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of daemon and client, with the product and its workers in PYTHONPATH."""
        packages = (ROOT, ROOT / "workers/sdk", ROOT / "workers/tabular")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))}
        environment.pop("PYTHONUNBUFFERED", None)
        return environment

    def begin(self) -> None:
        """Start the daemon without waiting until it is ready."""
        command = [sys.executable, "-m", "mosaicd", *self.arguments]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, cwd=self.home
            )

    def start(self) -> None:
        """Start the daemon and wait until it answers all clients."""
        self.begin()
        wait_until(
            self._ready,
            lambda answer: answer is True,
            f"the daemon is ready\n{self.log.read_text(errors='replace')[-2000:]}",
        )

    def _ready(self) -> Any:
        assert self.process is not None
        if self.process.poll() is not None:
            log = self.log.read_text(errors="replace")[-4000:]
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{log}")
        try:
            with connect(str(self.socket)) as client:
                return client.call("daemon.health", timeout_s=5)["ready"]
        except (NoDaemon, Disconnected, MosaicError, OSError) as error:
            return repr(error)

    def run_daemon(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        """Run a second daemon to its end, with further `arguments` and `environment`."""
        return subprocess.run(
            [sys.executable, "-m", "mosaicd", *self.arguments, *arguments],
            env={**self.environment, **(environment or {})}, cwd=self.home, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def stop(self) -> int:
        """Stop the daemon with SIGTERM and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def restart(self) -> None:
        """Kill the daemon with SIGKILL and start it again."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        """The pid of the daemon."""
        assert self.process is not None
        return self.process.pid

    def launcher_pid(self) -> int:
        """Return the pid of the daemon's launcher."""
        found = processes.children(self.pid)
        for child in found:
            with contextlib.suppress(OSError):  # for example a discovery that has just ended
                if b"launcher" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        raise AssertionError(f"no launcher among {found}")

    # --- requests ---------------------------------------------------------------------------------

    def client(self) -> Client:
        """Return a new connection."""
        return connect(str(self.socket))

    def call(self, method: str, timeout_s: float = 30.0, **params: Any) -> Any:
        """Call a method on a new connection and return its result."""
        with self.client() as client:
            return client.call(method, params, timeout_s)

    def submit(self, *command: str, **params: Any) -> str:
        """Submit a command that runs in the harness's directory, and return the run id."""
        run = self.call("run.submit", command=list(command), **{"cwd": str(self.home), **params})
        self.run_ids.add(run["run_id"])
        return str(run["run_id"])

    def python(self, code: str, *arguments: str, **params: Any) -> str:
        """Submit Python code and return the run id."""
        return self.submit(sys.executable, "-c", code, *arguments, **params)

    def program(self, name: str, *arguments: str, **params: Any) -> str:
        """Submit a program of PROGRAMS and return the run id."""
        return self.submit(sys.executable, str(PROGRAMS / f"{name}.py"), *arguments, **params)

    def submit_config(self, config: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Submit a TrainRunConfig and return the run."""
        run: dict[str, Any] = self.call("run.submit", config=config, **params)
        self.run_ids.add(run["run_id"])
        return run

    def get(self, run_id: str) -> dict[str, Any]:
        """Return the run as it is now."""
        found: dict[str, Any] = self.call("run.get", run_id=run_id)
        return found

    def until(self, run_id: str, state: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until the run is in `state`, and return it."""
        return wait_until(
            lambda: self.get(run_id),
            lambda run: run["state"] == state,
            f"run {run_id} reaches {state}",
            deadline_s,
        )

    def ended(self, run_id: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until the run is in TERM, and return it."""
        with self.client() as client:  # the daemon times out first
            params = {"run_id": run_id, "timeout_s": deadline_s}
            run: dict[str, Any] = client.call("run.wait", params, deadline_s + DEADLINE_S)
        assert run["state"] == "TERM", run
        return run

    def wait_until_cleaned_up(self, *run_ids: str) -> None:
        """Wait until the daemon has cleaned up after ended runs and their shims have exited."""
        for run_id in run_ids:
            directory = self.state_dir / "runs" / run_id
            environment = directory / rundir.ENVIRONMENT
            wait_until(
                environment.exists, lambda exists: not exists, f"the environment of {run_id} is removed"
            )
            held = partial(held_attempts, directory)
            wait_until(held, lambda attempts: not attempts, f"the shim of {run_id} exits")

    def ctl_command(self, *arguments: str) -> list[str]:
        """Return the command line of mosaicctl."""
        return [sys.executable, "-m", "mosaicctl", "--socket", str(self.socket), *arguments]

    def ctl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0) -> Ended:
        """Run mosaicctl and capture its output."""
        return subprocess.run(
            self.ctl_command(*arguments), input=stdin, env=self.environment, cwd=self.home,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the ledger of an ended run, as run.watch sends it."""
        events: list[dict[str, Any]] = []
        with self.client() as client:
            client.call("run.watch", {"since": 0, "run_id": run_id})
            while not events or events[-1]["state"] != "TERM":
                found = client.next_notification(DEADLINE_S)
                assert found is not None, f"the ledger of {run_id} stops after {events}"
                events.append(found[1])
        return events

    # --- files and processes -----------------------------------------------------------------------

    def attempt(self, run_id: str, number: int = 1) -> Path:
        """Return the directory of an attempt."""
        return Path(rundir.attempt_dir(str(self.state_dir / "runs" / run_id), number))

    def stdout(self, run_id: str, number: int = 1) -> bytes:
        """Return the stdout of an attempt."""
        return (self.attempt(run_id, number) / rundir.STDOUT).read_bytes()

    def telemetry(self, run_id: str, number: int = 1) -> list[dict[str, Any]]:
        """Return the telemetry records of an attempt."""
        return [
            json.loads(line)
            for line in (self.attempt(run_id, number) / rundir.TELEMETRY).read_bytes().splitlines()
        ]

    def pids(self, run_id: str) -> list[int]:
        """Return the living processes that carry the run's marker."""
        return processes.pids_with_marker(run_id)

    def shims(self) -> list[int]:
        """Return the shims of this state directory."""
        return processes.shims(self.state_dir, self.process.pid if self.process is not None else None)

    # --- end: trouble that no test asserts on ---------------------------------------------------

    def close(self) -> list[str]:
        """Stop all runs and the daemon; return a sentence for each problem."""
        trouble = []
        if self.process is not None and self.process.poll() is None:
            try:
                self._stop_all_runs()
                self._remaining_shims()  # wait: a shim that outlives the launcher is not cleaned up after
            except (AssertionError, MosaicError, NoDaemon, Disconnected, OSError) as error:
                trouble.append(f"runs cannot be stopped: {error!r}")
            if self.stop() != 0:
                trouble.append(f"the daemon exited with {self.process.returncode}")
        for run_id in self.run_ids:
            for pid in self.pids(run_id):
                trouble.append(f"process {pid} of run {run_id} remains")
                processes.kill(pid)
        for pid in self._remaining_shims():
            trouble.append(f"shim {pid} remains")
            processes.kill(pid)
        self._remove_temp_dirs()
        registry = self.state_dir / "registry.sqlite3"
        return trouble + loud_lines(self.log, self.allowed_warnings) + replay_differs(registry)

    def _stop_all_runs(self) -> None:
        stopped: set[str] = set()
        with self.client() as client:

            def stop_live() -> list[str]:
                live = [str(run["run_id"]) for run in client.call("run.list", {"live": True})["runs"]]
                for run_id in {*live} - stopped:
                    client.call("run.stop", {"run_id": run_id, "grace_s": 0})
                    stopped.add(run_id)
                return live

            wait_until(stop_live, lambda live: not live, "every run ends", 2 * DEADLINE_S)
        self.run_ids |= stopped

    def _remove_temp_dirs(self) -> None:
        """Remove the temporary directories of runs whose shims a test killed."""
        runs = self.state_dir / "runs"
        tails = {path.name[-rundir.TAIL_LENGTH :] for path in (runs.iterdir() if runs.is_dir() else ())}
        for path in Path(rundir.TEMPORARY_BASE).glob("mosaic-*"):
            if (found := rundir.parse_temporary_name(path.name)) and found[0] in tails:
                shutil.rmtree(path, ignore_errors=True)

    def _remaining_shims(self) -> list[int]:
        """Wait until no shim remains; return the shims that remain at the deadline."""
        with contextlib.suppress(AssertionError):
            wait_until(self.shims, lambda remaining: not remaining, "the shims exit")
        return self.shims()

    def remove(self) -> None:
        """Remove the directory with everything in it."""
        shutil.rmtree(self.home, ignore_errors=True)
