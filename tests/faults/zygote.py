"""The zygote forks daemons from a process that has imported all modules: a start takes 60 ms instead of 300.

The forked process runs the real daemon from `main` on; only the imports are done before.
Note: the zygote is a separate process, because a fork of a test process with threads is unsafe.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from mosaicd.crash_points import VARIABLE
from tests.harness.places import ROOT


class Forked:
    """A daemon that the zygote has forked, with the interface of subprocess.Popen."""

    def __init__(self, zygote: "Zygote", pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return the exit code of the daemon, or None while it is alive."""
        return self._exit_code_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the daemon; return its exit code, or raise TimeoutExpired."""
        code = self._exit_code_within(-1 if timeout is None else timeout)
        if code is None:
            raise subprocess.TimeoutExpired("mosaicd", timeout or 0)
        return code

    def _exit_code_within(self, timeout_s: float) -> int | None:
        if self.returncode is None and self._pidfd >= 0:
            ready = select.poll()
            ready.register(self._pidfd, select.POLLIN)
            if ready.poll(timeout_s if timeout_s < 0 else timeout_s * 1000):
                os.close(self._pidfd)
                self._pidfd = -1
                self.returncode = self._zygote.reap(self.pid)
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL to the daemon."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM to the daemon."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Zygote:
    """The process that forks daemons; one thread uses it."""

    def __init__(self) -> None:
        parent_end, child_end = socket.socketpair()
        with child_end:
            path = os.pathsep.join(map(str, (ROOT, ROOT / "workers/sdk")))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.zygote", str(child_end.fileno())],
                pass_fds=(child_end.fileno(),), cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
                process_group=0,  # Ctrl-C goes to the drill, which ends the zygote after its cleanup
            )  # fmt: skip
        self._lines = parent_end.makefile("rw")
        parent_end.close()

    def start(self, argv: list[str], log: Path, cwd: Path, crash_at: str | None = None) -> Forked:
        """Fork a daemon."""
        return Forked(self, self._ask(start=argv, log=str(log), cwd=str(cwd), crash_at=crash_at))

    def reap(self, pid: int) -> int:
        """Return the exit code of a daemon that has ended."""
        return self._ask(reap=pid)

    def _ask(self, **order: Any) -> int:
        self._lines.write(json.dumps(order) + "\n")
        self._lines.flush()
        return int(self._lines.readline())

    def close(self) -> None:
        """End the zygote; the caller must end the daemons."""
        self._lines.close()
        self._process.wait(60)


def _become_daemon(order: dict[str, Any]) -> int:
    from mosaicd.__main__ import main

    os.setsid()
    os.chdir(order["cwd"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.pop(VARIABLE, None)
    if order["crash_at"]:
        os.environ[VARIABLE] = order["crash_at"]
    return main(order["start"])


def _run_daemon(order: dict[str, Any], fd: int) -> NoReturn:
    status = 70
    try:
        os.close(fd)
        status = _become_daemon(order)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def _serve(fd: int) -> None:
    import mosaicd.host.lock
    import mosaicd.host.systemd
    import mosaicd.service  # noqa: F401 -- the modules that main would import in each daemon
    from mosaicd.rpc import handlers

    handlers.load_handlers()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=fd) as link, link.makefile("rw") as lines:
        for line in lines:
            order = json.loads(line)
            if "reap" in order:
                answer = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
            else:
                answer = os.fork()
                if answer == 0:
                    _run_daemon(order, fd)
            lines.write(f"{answer}\n")
            lines.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
