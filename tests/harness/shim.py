"""A real launcher with real shims, and a peer that stands for the daemon.

Each process of a test has the marker of a run, or is a launcher or a shim with a known pid.
`close` kills remaining processes and fails the test.
"""

import array
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mosaicd import launcher, procfs
from mosaicd.protocol import Json, rundir
from mosaicd.shim import process_table
from tests.shim.peer import Peer

PYTHON = sys.executable
#: Timeout of every wait of a test; shorter than a shim waits for an answer of the daemon.
TIMEOUT_S = 25.0


class Run:
    """A run that was ordered from the launcher, with its attempt directory."""

    def __init__(self, harness: "ShimHarness", run_id: str, order: Json) -> None:
        self.harness = harness
        self.run_id = run_id
        self.order = order
        self.dir = Path(order["attempt_dir"])
        self.shim_pid = 0
        self.shim_start = 0

    def json(self, name: str) -> Json:
        content: Json = json.loads((self.dir / name).read_text())
        return content

    def has(self, name: str) -> bool:
        return (self.dir / name).exists()

    def exit(self, timeout_s: float = TIMEOUT_S) -> Json:
        """Wait for the fact `exited` and return exit.json."""
        self.harness.peer.until(lambda: self.facts("exited"), timeout_s, lambda: self.facts())
        return self.json("exit.json")

    def facts(self, name: str | None = None) -> list[Json]:
        return self.harness.peer.facts_of(self.run_id, name)

    def fact(self, name: str, timeout_s: float = TIMEOUT_S, count: int = 1) -> Json:
        self.harness.peer.until(lambda: len(self.facts(name)) >= count, timeout_s, lambda: self.facts())
        return self.facts(name)[count - 1]

    def wait_until_tree_is_empty(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the shim has reported an empty tree and exited; check that the tree is empty."""
        self.harness.peer.until(
            lambda: self.facts("emptied") or any(fact["swept"] for fact in self.facts("exited")), timeout_s,
            lambda: self.facts(),
        )  # fmt: skip
        assert self.members() == []
        self.wait_until_shim_exits()

    def telemetry(self) -> list[Json]:
        return [json.loads(line) for line in (self.dir / "telemetry.jsonl").read_bytes().splitlines()]

    def segments(self, name: str) -> dict[int, bytes]:
        """Return the segments of a log by their offset."""
        found = {}
        for path in self.dir.iterdir():
            start = rundir.segment_offset(name, path.name)
            if start is not None:
                found[start] = path.read_bytes()
        return found

    def control(self, word: str, **params: Any) -> None:
        self.harness.peer.control(self.run_id, word, **params)

    def wait_for_output(self, text: str, timeout_s: float = TIMEOUT_S, log: str = "stdout.log") -> None:
        """Wait until the log contains `text`."""
        path = self.dir / log
        self.harness.peer.until(
            lambda: path.exists() and text.encode() in path.read_bytes(), timeout_s,
            lambda: path.read_bytes()[-500:] if path.exists() else "no log",
        )  # fmt: skip

    def has_shim_exited(self) -> bool:
        return procfs.read_start_ticks(self.shim_pid) != self.shim_start or self._is_zombie()

    def _is_zombie(self) -> bool:
        process = procfs.read_process(self.shim_pid)
        return process is not None and not process.is_alive

    def wait_until_shim_exits(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the shim has exited."""
        self.harness.peer.until(self.has_shim_exited, timeout_s, lambda: f"shim {self.shim_pid} lives")

    def members(self) -> list[int]:
        """Return the living processes below the shim or with the run's marker."""
        table = process_table.survey()
        below = process_table.descendants(table, [self.shim_pid])
        found = below + process_table.marked(table, self.run_id, [p.pid for p in below])
        return [process.pid for process in found if process.is_alive]


class Gate:
    """A FIFO at which a worker waits (`read x < gate`) until the test opens it."""

    def __init__(self, harness: "ShimHarness", path: Path) -> None:
        self._harness = harness
        self._path = path
        os.mkfifo(path)

    def open(self) -> None:
        """Wait for the reader and let it continue."""

        def try_to_write() -> bool:
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return False
            os.write(fd, b"go\n")
            os.close(fd)
            return True

        self._harness.peer.until(try_to_write)


class ShimHarness:
    """A launcher, a peer, and the runs of one test."""

    def __init__(self, root: Path, containment: str = "process-group") -> None:
        self.root = root
        self.containment = containment
        self.peer = Peer(str(root / "sock"))
        self.runs: list[Run] = []
        self.messages: list[Json] = []
        self.orders: socket.socket | None = None
        self._ids = 0
        self._stamp = f"{os.getpid():x}{time.monotonic_ns():x}"
        self.start_launcher()

    def start_launcher(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.fileno()
        self.launcher = subprocess.Popen(
            launcher.command(fd, self.containment), pass_fds=(fd,), stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/", env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        theirs.close()
        ours.setblocking(False)
        self.close_orders()
        self.orders = ours
        self.peer.wake_for(ours)

    def close_orders(self) -> None:
        """Close the socket of the launcher."""
        if self.orders:
            self.peer.forget(self.orders)
            self.orders.close()
            self.orders = None

    def make(self, argv: list[str], **changes: Any) -> Run:
        """Return a new run with its order, which is not sent."""
        run_id = f"run-{self._stamp}-{len(self.runs)}"
        run_dir = self.root / run_id
        limits = {
            "time_limit_s": None, "max_steps": None, "grace_s": 20.0, "handshake_timeout_s": 30.0,
            "pause_ack_timeout_s": 20.0, "stdout_limit_bytes": 1 << 30, "stderr_limit_bytes": 1 << 30,
        }  # fmt: skip
        limits |= changes.pop("limits", {})
        environment = {"PATH": os.environ["PATH"], "MOSAIC_RUN_ID": run_id, "WORKER_ID": run_id}
        environment |= changes.pop("environment", {})
        order = {
            "order": "launch", "run_id": run_id, "attempt": 1, "nonce": "n1", "secret": "s1",
            "socket": self.peer.path, "run_dir": str(run_dir), "attempt_dir": str(run_dir / "attempt-1"),
            "files_dir": str(run_dir / "files"), "kind": "command", "argv": argv, "cwd": str(self.root),
            "environment": environment, "worker_config": None, "config_flag": False, "cooperative": False,
            "slots": [], "cpus": 1, "uid": os.getuid(), "limits": limits, **changes,
        }  # fmt: skip
        run = Run(self, run_id, order)
        self.runs.append(run)
        return run

    def launch(self, argv: list[str], **changes: Any) -> Run:
        """Order a new run, and return it when its shim is forked."""
        run = self.make(argv, **changes)
        self.send(run)
        return run

    def python(self, code: str, **changes: Any) -> Run:
        """Launch a Python worker with unbuffered output."""
        return self.launch([PYTHON, "-u", "-c", code], **changes)

    def send(self, run: Run) -> None:
        reply = self.send_order({"order": "launch", "run_id": run.run_id, "attempt": 1}, run.order)
        assert reply["reply"] == "launched", reply
        run.shim_pid, run.shim_start = reply["pid"], reply["start_ticks"]

    def teardown(self, run: Run, grace_s: float = 0.3) -> Json:
        """Order a teardown shim for `run` and return the fact that it has ended."""
        started = run.json("started.json") if run.has("started.json") else {}
        order = {
            "order": "teardown", "run_id": run.run_id, "attempt": 1, "nonce": "n1",
            "attempt_dir": str(run.dir), "limits": {"grace_s": grace_s},
            "pid": started.get("pid"), "start_ticks": started.get("start_ticks"),
        }  # fmt: skip
        reply = self.send_order({"order": "teardown", "run_id": run.run_id, "attempt": 1}, order)
        return self.receive(lambda m: m.get("fact") == "reaped" and m["pid"] == reply["pid"])

    def signal(self, pid: int, number: int) -> None:
        psutil.Process(pid).send_signal(number)

    def context_switches(self, pid: int) -> int:
        """Return the number of voluntary context switches of a process."""
        return int(psutil.Process(pid).num_ctx_switches().voluntary)

    def cpu_s(self, pid: int) -> float:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)

    def limit_file_size(self, pid: int, size_bytes: int) -> None:
        """Limit the size of files that a process can write, like a full disk."""
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    def gate(self, name: str = "gate") -> "Gate":
        """Make a gate in the working directory of the runs."""
        return Gate(self, self.root / name)

    def is_empty(self, run: Run) -> Json:
        question = {"order": "is_empty", "run_id": run.run_id, "attempt": 1, "shim_pid": run.shim_pid}
        return self.send_order({**question, "shim_start": run.shim_start})

    def send_order(self, packet: Json, content: Json | None = None) -> Json:
        """Send an order, with `content` in a descriptor, and return its reply."""
        self._ids += 1
        packet = {**packet, "id": self._ids}
        ancillary = []
        fd = None
        if content is not None:
            fd = os.memfd_create("order")
            os.write(fd, json.dumps(content).encode())
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        assert self.orders
        self.orders.sendmsg([json.dumps(packet).encode()], ancillary)
        if fd is not None:
            os.close(fd)
        return self.receive(lambda message: message.get("id") == packet["id"])

    def receive(self, wanted: Callable[[Json], bool], timeout_s: float = TIMEOUT_S) -> Json:
        """Wait for the first message of the launcher that is `wanted`, and return it."""

        orders = self.orders
        assert orders

        def try_receive() -> Json | None:
            try:
                while data := orders.recv(4096):
                    self.messages.append(json.loads(data))
            except BlockingIOError:
                pass
            return next((message for message in self.messages if wanted(message)), None)

        found = self.peer.until(try_receive, timeout_s, lambda: self.messages)
        assert found is not None
        return found

    def leaked_processes(self) -> list[str]:
        """Return a description of every living process of the test's runs."""
        table = process_table.survey()
        found = []
        for run in self.runs:
            found += [f"{p.pid} of {run.run_id}" for p in process_table.marked(table, run.run_id)]
            if run.shim_pid and not run.has_shim_exited():
                found.append(f"{run.shim_pid}, the shim of {run.run_id}")
        return found

    def close(self) -> None:
        """Stop the launcher and the peer; fail if a process remains."""
        deadline = time.monotonic() + TIMEOUT_S
        while (leaked := self.leaked_processes()) and time.monotonic() < deadline:
            self.peer.pump()
        self.close_orders()
        self.launcher.wait(TIMEOUT_S)
        self.peer.close()
        for entry in leaked:
            psutil.Process(int(entry.split()[0].rstrip(","))).send_signal(signal.SIGKILL)
        assert not leaked, f"leaked processes: {leaked}"
        crashes = [path.read_text() for path in self.root.rglob("shim-crash.txt")]
        assert not crashes, crashes[0]
