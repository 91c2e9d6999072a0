"""Runs survive the daemon: restart, kill -9 and the watchdog, each with a live run."""

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
    """A started service, and one run in EXEC that ends with 7 when told."""
    service.install()
    service.systemctl("start", "mosaicd")
    return LiveRun(service)


@pytest.fixture
def watched(service: UserService) -> "LiveRun":
    """The same with a quick watchdog, though not so quick that it bites where the machine stalls."""
    service.install(WatchdogSec="5s", TimeoutAbortSec="1s")
    service.systemctl("start", "mosaicd")
    return LiveRun(service)


class LiveRun:
    """One run, what it was when it was first seen in EXEC, and how it must end."""

    def __init__(self, service: UserService) -> None:
        self.service = service
        script = f"echo begun; until [ -e {GO} ]; do sleep 0.02; done; echo ended; exit 7"
        self.run_id = service.submit("--", "sh", "-c", script)
        self.first = service.wait_state(self.run_id, "EXEC")
        self.daemon = service.main_pid

    def back(self) -> dict[str, Any]:
        """Wait until another daemon serves, and return the run as it knows it."""
        wait_until(
            lambda: self.service.main_pid, lambda pid: pid not in (0, self.daemon), "another daemon", 60
        )
        return self.service.run_object(self.run_id)

    def check_undisturbed(self) -> None:
        """The same process is still in EXEC, in its first attempt."""
        now = self.back()
        assert {key: now[key] for key in ("state", "pid", "attempt", "want")} == {
            key: self.first[key] for key in ("state", "pid", "attempt", "want")
        }

    def wait_for_watchdog(self) -> None:
        """Wait until systemd has said that the daemon missed its watchdog."""
        wait_until(
            self.service.messages,
            lambda said: any("Watchdog timeout" in text for text in said),
            "systemd reports the missed watchdog",
            60,
        )

    def check_end(self) -> None:
        """Told to end, it ends with its own exit code and with all of its output."""
        self.service.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {GO}")
        assert self.service.ctl("wait", self.run_id).returncode == 7
        ended = self.service.run_object(self.run_id)
        assert (ended["state"], ended["exit_code"], ended["cause"]["kind"]) == ("TERM", 7, "exit_code")
        log = self.service.machine.run("cat", f"{ended['run_dir']}/attempt-1/stdout.log").stdout
        assert log == "begun\nended\n"


def wedge(tid: int, calls: str) -> subprocess.Popen[bytes]:
    """Hold one thread in a system call, as a bug in a library would; strace delays it until it is killed."""
    argv = ["strace", "-qq", "-o", os.devnull, "-p", str(tid)]
    argv += ["-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter=120000000"]
    tracer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{tid}/status")
    wait_until(status.read_text, lambda text: f"TracerPid:\t{tracer.pid}\n" in text, "it is traced", 60)
    return tracer


@contextmanager
def wedged(tids: list[int], calls: str) -> Iterator[None]:
    """Hold threads of a process while the block runs."""
    tracers: list[subprocess.Popen[bytes]] = []
    try:
        tracers += [wedge(tid, calls) for tid in tids]
        yield
    finally:
        for tracer in tracers:
            tracer.kill()
            tracer.wait()


def test_restart(live: LiveRun) -> None:
    """`systemctl --user restart` leaves the run alone: same process, same state, its exact code."""
    live.service.systemctl("restart", "mosaicd")
    live.check_undisturbed()
    live.check_end()


def test_stop_leaves_runs_alive(live: LiveRun) -> None:
    """Stopping the service is not stopping the runs: KillMode=process, and the next start finds them."""
    live.service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    assert [line for line in live.service.processes() if line.split()[0] == str(live.first["pid"])]
    live.service.systemctl("start", "mosaicd")
    live.check_undisturbed()
    live.check_end()


def test_a_run_that_ends_during_the_restart(live: LiveRun) -> None:
    """A run whose last moment falls between two daemons has its exact code."""
    live.service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    live.service.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {GO}")
    wait_until(
        live.service.processes,
        lambda left: str(live.first["pid"]) not in [line.split()[0] for line in left],
        "the worker ends",
        60,
    )
    live.service.systemctl("start", "mosaicd")
    live.check_end()


def test_kill_9(live: LiveRun) -> None:
    """A daemon that is killed comes back by itself, and the run was not disturbed."""
    live.service.machine.run("kill", "-9", str(live.daemon))
    live.check_undisturbed()
    assert live.service.show("NRestarts") == "1"
    live.check_end()


def test_a_stopped_daemon_is_replaced(watched: LiveRun) -> None:
    """The watchdog ends a daemon that does nothing at all (SIGSTOP) and another takes over."""
    watched.service.machine.run("kill", "-STOP", str(watched.daemon))
    watched.wait_for_watchdog()
    watched.check_undisturbed()
    watched.check_end()


def test_a_wedged_loop_is_replaced(watched: LiveRun) -> None:
    """The watchdog sees that the event loop does not turn, though the process's other threads live on."""
    outer = watched.service.machine.outer_pid(watched.daemon)
    with wedged([outer], "epoll_wait,epoll_pwait"):
        watched.wait_for_watchdog()
    watched.check_undisturbed()
    watched.check_end()


def test_a_wedged_writer_is_replaced(watched: LiveRun) -> None:
    """The heartbeat means that the registry's writer commits, too: the loop alone does not make one, and a
    submit that was never answered was never accepted."""
    outer = watched.service.machine.outer_pid(watched.daemon)
    threads = [int(path.name) for path in Path(f"/proc/{outer}/task").iterdir()]
    with wedged([tid for tid in threads if tid != outer], "pwrite64,fdatasync,fsync"):
        refused = subprocess.Popen(watched.service.ctl_argv("submit", "--", "true"), stderr=subprocess.PIPE)
        watched.wait_for_watchdog()
    refused.communicate(timeout=60)
    watched.check_undisturbed()
    watched.check_end()


def test_nobody_is_turned_away_during_a_restart(live: LiveRun) -> None:
    """Clients that connect at any moment of a restart are served; none is refused, none has to ask again."""
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
        said = [(client.communicate(timeout=60), client.returncode) for client in clients]
        assert restart.wait(60) == 0
        assert [code for _, code in said] == [0] * len(clients), said
        assert all(live.run_id in out for (out, _), _ in said)
    live.check_undisturbed()
    live.check_end()


def test_the_socket_brings_it_back(live: LiveRun) -> None:
    """With the socket up, stopping the service is no rest: a client, or a live run's shim, starts it."""
    live.service.systemctl("stop", "mosaicd.service")
    assert live.service.show("ActiveState", "mosaicd.socket") == "active"
    live.check_undisturbed()
    live.check_end()


def test_a_run_can_be_stopped_after_a_restart(live: LiveRun) -> None:
    """The shim that outlived its daemon obeys the next one."""
    live.service.systemctl("restart", "mosaicd")
    live.check_undisturbed()
    live.service.ctl("stop", live.run_id)
    ended = live.service.wait_state(live.run_id, "TERM")
    assert ended["outcome"] == "cancelled"
    assert ended["signal"] == signal.SIGTERM
