"""Replacing the daemon by the program that is installed now, in the same process: checks and handover.

The pid stays, for the service manager.  The listening socket never closes, so a client that connects
meanwhile waits in its queue.  The locks are never released, so no other daemon can start in between.
Everything else is created again.  Note: descriptors become inheritable at the last moment, when no other
child is forked any more.
"""

import asyncio
import json
import os
import socket as sockets
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mosaicd import __version__
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict

#: The variable that passes the descriptors to the next program; internal.
VARIABLE = "MOSAICD_TAKEOVER"
CHECK_TIMEOUT_S = 60.0
#: The most characters of the installed program's error output in an error.
_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Takeover:
    """Descriptors from before the exec.  `is_passed`: the socket is the service manager's."""

    pid: int
    state_dir: str
    socket: str
    listening_fd: int
    lock_fds: tuple[int, ...]
    is_passed: bool


@dataclass
class Succession:
    """The request to replace this daemon in place; `on_asked` stops the service."""

    is_passed: bool
    is_asked: bool = False
    is_forbidden: bool = False
    on_asked: Callable[[], None] | None = None

    def begin(self) -> None:
        """Stop the service once; its caller then calls `replace`.  Does nothing after `forbid`."""
        if self.is_asked or self.is_forbidden:
            return
        self.is_asked = True
        if self.on_asked is not None:
            self.on_asked()

    def forbid(self) -> bool:
        """Drop a requested replacement and allow no other one: the daemon stops when its service has stopped.

        Return whether the service is stopping already because a replacement was requested.
        """
        was_asked, self.is_asked, self.is_forbidden = self.is_asked, False, True
        return was_asked


def take(environ: MutableMapping[str, str]) -> Takeover | None:
    """Return the descriptors from before an exec; None if this process has just started.

    The variable is removed from `environ`, so that no child uses it.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        values = json.loads(text)
        taken = Takeover(**{**values, "lock_fds": tuple(map(int, values["lock_fds"]))})
    except (ValueError, TypeError, KeyError):
        return None
    return taken if taken.pid == os.getpid() else None


def listener(taken: Takeover) -> sockets.socket:
    """Return the listening socket from before the exec, close-on-exec again."""
    for fd in (taken.listening_fd, *taken.lock_fds):
        os.set_inheritable(fd, False)
    listening = sockets.socket(fileno=taken.listening_fd)
    listening.setblocking(False)
    return listening


def command() -> list[str]:
    """Return the command line of this process, including the interpreter."""
    return [sys.executable or sys.orig_argv[0], *sys.orig_argv[1:]]


async def check(state_dir: Path, socket: Path, *, is_passed: bool) -> str:
    """Return the version of the program that is installed now; raise Conflict if it must not replace this
    daemon.

    The program is run with `--check`: it must start, accept the settings, know the version of the registry,
    and use the same state directory and socket.  A socket that the service manager passes is not compared.
    """
    code, output, error_output = await _run_program([*command(), "--check"])
    try:
        report = json.loads(output) if code == 0 else None
    except ValueError:
        report = None
    if not isinstance(report, dict):
        why = " ".join(error_output.split())[-_ERROR_CHARACTERS:] or f"it exited with {code}"
        raise Conflict(f"the installed program does not start: {why}")
    _refuse_other_paths(report, state_dir, None if is_passed else socket)
    registry = report.get("registry") or {}
    version, known = registry.get("version"), registry.get("known_version")
    if isinstance(version, int) and isinstance(known, int) and version > known:
        raise Conflict(
            f"the registry has version {version}; the installed program knows versions up to {known}"
        )
    return str(report.get("version"))


def _refuse_other_paths(report: Json, state_dir: Path, socket: Path | None) -> None:
    """Raise Conflict if the installed program would use another state directory or socket."""
    for role, before, now in (
        ("state directory", str(state_dir), report.get("state_dir")),
        ("socket", None if socket is None else str(socket), report.get("socket")),
    ):
        if before is not None and now != before:
            raise Conflict(
                f"the {role} is {before}, and the settings now have {now}; stop the daemon and start it again"
            )


async def _run_program(argv: list[str]) -> tuple[int, str, str]:
    """Run a program and return its exit code, output and error output; raise Conflict if it does not end."""
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise Conflict(f"the installed program does not start: {argv[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            output, errors = await child.communicate()
    except TimeoutError:
        raise Conflict(f"the installed program did not answer within {CHECK_TIMEOUT_S:g} s") from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return child.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")


def replace(taken: Takeover, environ: MutableMapping[str, str]) -> OSError:
    """Become the program that is installed now; return only if that fails, with nothing changed."""
    fds = (taken.listening_fd, *taken.lock_fds)
    environ[VARIABLE] = json.dumps(asdict(taken))
    argv = command()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed, as in a daemon that was started without it
            with suppress(OSError):  # a log on a full disk must not prevent the replacement
                stream.flush()
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        for fd in fds:
            os.set_inheritable(fd, False)
        environ.pop(VARIABLE, None)
        return error


def answer(to_version: str) -> Json:
    """Return the result of daemon.reexec."""
    return {"pid": os.getpid(), "version": __version__, "to_version": to_version}
