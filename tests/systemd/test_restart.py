"""A run survives each kind of restart of the daemon: restart, kill -9 and watchdog."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.waiting import wait_until
from tests.systemd.machine import HOME, UserService

pytestmark = [pytest.mark.systemd, pytest.mark.root]

GO = f"{HOME}/work/go"


@pytest.fixture
def live(service: UserService) -> "LiveRun":
    """A started service, and one run in EXEC that ends with 7 when GO exists."""
    service.install()
    service.systemctl("start", "mosaicd")
    return LiveRun(service)


@pytest.fixture
def watched(service: UserService) -> "LiveRun":
    """The same with a short watchdog, but long enough for a slow machine."""
    service.install(WatchdogSec="5s", TimeoutAbortSec="1s")
    service.systemctl("start", "mosaicd")
    return LiveRun(service)


class LiveRun:
    """One run, its state when it entered EXEC, and the checks of its end."""

    def __init__(self, service: UserService) -> None:
        self.service = service
        script = f"echo begun; until [ -e {GO} ]; do sleep 0.02; done; echo ended; exit 7"
        self.run_id = service.submit("--", "sh", "-c", script)
        self.first = service.wait_state(self.run_id, "EXEC")
        self.daemon = service.main_pid

    def run_after_restart(self) -> dict[str, Any]:
        """Wait until another daemon serves; return the run as that daemon reports it."""
        wait_until(
            lambda: self.service.main_pid, lambda pid: pid not in (0, self.daemon), "another daemon", 60
        )
        return self.service.run_object(self.run_id)

    def check_undisturbed(self) -> None:
        """Check that the same process is still in EXEC, in its first attempt."""
        now = self.run_after_restart()
        assert {key: now[key] for key in ("state", "pid", "attempt", "want")} == {
            key: self.first[key] for key in ("state", "pid", "attempt", "want")
        }

    def wait_for_watchdog(self) -> None:
        """Wait until systemd reports that the daemon missed its watchdog."""
        wait_until(
            self.service.messages,
            lambda messages: any("Watchdog timeout" in text for text in messages),
            "systemd reports the missed watchdog",
            60,
        )

    def check_end(self) -> None:
        """End the run; check its exit code and that its output is complete."""
        self.service.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {GO}")
        assert self.service.ctl("wait", self.run_id).returncode == 7
        ended = self.service.run_object(self.run_id)
        assert (ended["state"], ended["exit_code"], ended["cause"]["kind"]) == ("TERM", 7, "exit_code")
        log = self.service.machine.run("cat", f"{ended['run_dir']}/attempt-1/stdout.log").stdout
        assert log == "begun\nended\n"


def hang_thread(tid: int, calls: str) -> subprocess.Popen[bytes]:
    """Hold one thread in a system call, as a bug in a library would; strace delays the call until it is
    killed."""
    argv = ["strace", "-qq", "-o", os.devnull, "-p", str(tid)]
    argv += ["-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter=120000000"]
    tracer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{tid}/status")
    wait_until(status.read_text, lambda text: f"TracerPid:\t{tracer.pid}\n" in text, "traced", 60)
    return tracer


@contextmanager
def hung_threads(tids: list[int], calls: str) -> Iterator[None]:
    """Hold threads of a process in system calls while the block runs."""
    tracers: list[subprocess.Popen[bytes]] = []
    try:
        tracers += [hang_thread(tid, calls) for tid in tids]
        yield
    finally:
        for tracer in tracers:
            tracer.kill()
            tracer.wait()


def test_restart(live: LiveRun) -> None:
    """After `systemctl --user restart` the run has the same process and state, and its exact exit code."""
    live.service.systemctl("restart", "mosaicd")
    live.check_undisturbed()
    live.check_end()


def test_stop_leaves_runs_alive(live: LiveRun) -> None:
    """Stopping the service stops no run (KillMode=process); the next start finds the runs."""
    live.service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    assert [line for line in live.service.processes() if line.split()[0] == str(live.first["pid"])]
    live.service.systemctl("start", "mosaicd")
    live.check_undisturbed()
    live.check_end()


def test_a_run_that_ends_during_the_restart(live: LiveRun) -> None:
    """A run that ends while no daemon runs has its exact exit code."""
    live.service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    live.service.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {GO}")
    wait_until(
        live.service.processes,
        lambda lines: str(live.first["pid"]) not in [line.split()[0] for line in lines],
        "the worker ends",
        60,
    )
    live.service.systemctl("start", "mosaicd")
    live.check_end()


def test_kill_9(live: LiveRun) -> None:
    """After kill -9 systemd restarts the daemon, and the run is unaffected."""
    live.service.machine.run("kill", "-9", str(live.daemon))
    live.check_undisturbed()
    assert live.service.show("NRestarts") == "1"
    live.check_end()


def test_a_stopped_daemon_is_replaced(watched: LiveRun) -> None:
    """The watchdog replaces a daemon that is stopped (SIGSTOP)."""
    watched.service.machine.run("kill", "-STOP", str(watched.daemon))
    watched.wait_for_watchdog()
    watched.check_undisturbed()
    watched.check_end()


def test_a_daemon_with_a_hung_event_loop_is_replaced(watched: LiveRun) -> None:
    """The watchdog replaces a daemon whose event loop hangs, although its other threads run."""
    outer = watched.service.machine.outer_pid(watched.daemon)
    with hung_threads([outer], "epoll_wait,epoll_pwait"):
        watched.wait_for_watchdog()
    watched.check_undisturbed()
    watched.check_end()


def test_a_daemon_with_a_hung_writer_is_replaced(watched: LiveRun) -> None:
    """The watchdog replaces a daemon whose registry writer hangs, although its event loop runs.

    A submit without a reply is not accepted.
    """
    outer = watched.service.machine.outer_pid(watched.daemon)
    threads = [int(path.name) for path in Path(f"/proc/{outer}/task").iterdir()]
    with hung_threads([tid for tid in threads if tid != outer], "pwrite64,fdatasync,fsync"):
        refused = subprocess.Popen(watched.service.ctl_argv("submit", "--", "true"), stderr=subprocess.PIPE)
        watched.wait_for_watchdog()
    refused.communicate(timeout=60)
    watched.check_undisturbed()
    watched.check_end()


def test_no_client_is_refused_during_a_restart(live: LiveRun) -> None:
    """Clients that connect at any moment of a restart are served without a retry."""
    for _ in range(3):
        clients = [
            subprocess.Popen(live.service.ctl_argv("-o", "name", "list"), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]  # fmt: skip
        restart = subprocess.Popen(live.service.machine.argv(["systemctl", "--user", "restart", "mosaicd"]))
        clients += [
            subprocess.Popen(live.service.ctl_argv("-o", "name", "list"), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
            for _ in range(5)
        ]  # fmt: skip
        results = [(client.communicate(timeout=60), client.returncode) for client in clients]
        assert restart.wait(60) == 0
        assert [code for _, code in results] == [0] * len(clients), results
        assert all(live.run_id in out for (out, _), _ in results)
    live.check_undisturbed()
    live.check_end()


def test_the_socket_starts_a_stopped_service(live: LiveRun) -> None:
    """If only the service is stopped, a client or the shim of a live run starts it again through the
    socket."""
    live.service.systemctl("stop", "mosaicd.service")
    assert live.service.show("ActiveState", "mosaicd.socket") == "active"
    live.check_undisturbed()
    live.check_end()


def test_a_run_can_be_stopped_after_a_restart(live: LiveRun) -> None:
    """A shim that outlived its daemon carries out a stop of the next one."""
    live.service.systemctl("restart", "mosaicd")
    live.check_undisturbed()
    live.service.ctl("stop", live.run_id)
    ended = live.service.wait_state(live.run_id, "TERM")
    assert ended["outcome"] == "cancelled"
    assert ended["signal"] == signal.SIGTERM
