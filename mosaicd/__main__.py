"""The command `mosaicd`: settings, locks, socket, then the service, until a signal.

Only the imports of `--help` are at the top; everything else is imported when it is used.
Note: a signal stops the daemon and no run; runs live in their shims.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mosaicd import __version__

if TYPE_CHECKING:
    from socket import socket

    from mosaicd.clock import Clock
    from mosaicd.config import Settings
    from mosaicd.host.lock import Locks
    from mosaicd.host.reexec import Succession

EXIT_USAGE = 2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; every flag of it is in mosaicd(8)."""
    parser = argparse.ArgumentParser(
        prog="mosaicd",
        description="Share one GPU workstation between long training runs. Runs survive the daemon.",
        epilog="See mosaicd(8) and mosaicd.toml(5).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--system", action="store_true", help="serve every user of this machine (not implemented yet)"
    )
    parser.add_argument("--config", metavar="FILE", help="read settings from FILE instead of the default one")
    parser.add_argument("--state-dir", metavar="DIR", help="keep registry and runs in DIR")
    parser.add_argument("--socket", metavar="PATH", help="listen on PATH")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument("--print-config", action="store_true", help="print the effective settings and exit")
    parser.add_argument(
        "--check", action="store_true", help="inspect registry and state directory, print JSON and exit"
    )
    parser.add_argument("--fix", action="store_true", help="with --check: make the safe repairs")
    parser.add_argument(
        "--restore",
        metavar="FILE",
        help="put a copy of the registry in its place and exit (the daemon must be stopped)",
    )
    parser.add_argument(
        "--version", action="version", version=f"mosaicd {__version__}", help="print the version and exit"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit code (2: usage, settings, another daemon; 3: the registry)."""
    options = build_parser().parse_args(argv)
    if options.system:
        return _refuse(
            "--system, one daemon for all users, is not implemented yet; without it mosaicd serves you alone"
        )

    from mosaicd import config
    from mosaicd.host import lock

    try:
        settings = config.load(
            config.Overrides(options.config, options.state_dir, options.socket, options.log_level)
        )
        if options.print_config:
            print(config.to_toml(settings), end="")
            return 0
        if options.check or options.restore:
            return _offline(settings, options)
        return serve(settings)
    except config.ConfigError as error:
        return _refuse(str(error))
    except lock.CannotServe as error:
        return _refuse(str(error), error.exit_code)


def _offline(settings: "Settings", options: argparse.Namespace) -> int:
    from mosaicd import crash_points
    from mosaicd.recovery import offline

    if options.check:
        return offline.check(settings, fix=options.fix)
    crash_points.arm_for_daemon(settings.crash_at)
    return offline.restore(settings, Path(options.restore).absolute())


def serve(settings: "Settings") -> int:
    """Lock, listen and serve until a signal; raise CannotServe if another daemon or a file prevents it."""
    from mosaicd import crash_points, log
    from mosaicd.clock import Clock
    from mosaicd.host import lock

    log.setup(settings.log.level, settings.supervisor.journal_stream)
    crash_points.arm_for_daemon(settings.crash_at)
    clock = Clock()
    settings, listening, locks, succession = _take_socket_and_locks(settings, clock)
    try:
        log.event(
            log.Catalogue.DAEMON_STARTED, version=__version__, pid=locks.holder.pid,
            socket=settings.socket, state_dir=settings.state_dir,
        )  # fmt: skip
        try:
            with listening:
                code = _serve_on(settings, listening, locks, clock, succession)
        except lock.CannotServe:
            _remove_socket(settings, locks, succession)
            raise
        _remove_socket(settings, locks, succession)
        log.event(log.Catalogue.DAEMON_STOPPED)
        return code
    finally:
        locks.close()


def _remove_socket(settings: "Settings", locks: "Locks", succession: "Succession") -> None:
    from mosaicd.host import lock

    if not succession.is_passed:
        lock.remove(settings.socket, locks)


def _serve_on(
    settings: "Settings", listening: "socket", locks: "Locks", clock: "Clock", succession: "Succession"
) -> int:
    """Serve until a stop; after a reexec request, become the program that is installed now."""
    import asyncio

    from mosaicd import config, log
    from mosaicd.host import descriptors, reexec

    while True:
        descriptors.raise_soft_limit()
        with listening.dup() as served:  # the service closes what it serves
            code = asyncio.run(_until_signal(settings, served, clock, succession))
        if not succession.is_asked:
            return code
        log.event(log.Catalogue.DAEMON_REPLACED)
        descriptors.set_soft_limit(settings.soft_limit_descriptors)
        error = reexec.replace(
            reexec.Takeover(
                locks.holder.pid, str(settings.state_dir), str(settings.socket), listening.fileno(),
                locks.fds, succession.is_passed,
            ),
            config.process_environment(),
        )  # fmt: skip
        log.event(log.Catalogue.REPLACE_FAILED, why=error, version=__version__)
        succession.is_asked = False


def _take_socket_and_locks(
    settings: "Settings", clock: "Clock"
) -> "tuple[Settings, socket, Locks, Succession]":
    """Return listening socket and locks: those from before an exec, the socket of systemd, or new ones."""
    from mosaicd import config
    from mosaicd.host import lock, reexec, systemd

    environ = config.process_environment()
    taken = reexec.take(environ)
    if taken is not None:
        listening = reexec.listener(taken)
        settings = config.with_socket(settings, Path(taken.socket))
        locks = lock.inherit(taken.lock_fds, settings.state_dir, settings.socket, started_at=clock.wall())
        return settings, listening, locks, reexec.Succession(taken.is_passed)
    try:
        passed = systemd.listen_fds(environ)
    except ValueError as error:
        raise lock.CannotServe(str(error)) from error
    if passed:
        listening, path = lock.adopt(passed)
        settings = config.with_socket(settings, path)
    locks = lock.acquire(settings.state_dir, settings.socket, started_at=clock.wall())
    if not passed:
        try:
            listening = lock.bind(settings.socket, locks)
        except BaseException:
            locks.close()
            raise
    return settings, listening, locks, reexec.Succession(bool(passed))


async def _until_signal(
    settings: "Settings", listening: "socket", clock: "Clock", succession: "Succession"
) -> int:
    """Run the service until it ends; the first SIGTERM, SIGINT or SIGHUP stops it, later ones do nothing.

    If the service is already stopping for a replacement, the signal drops the replacement and that stop goes
    on: the daemon ends.  If the daemon is replaced,
    signals between its end and the start of the next program wait for that program.
    """
    import asyncio
    import signal

    from mosaicd import log
    from mosaicd.service import run

    serving = asyncio.ensure_future(run(settings, listening, clock, succession))
    received: list[str] = []

    def stop(name: str) -> None:
        if not received:
            received.append(name)
            log.event(log.Catalogue.DAEMON_STOPPING, reason=name)
            if not succession.forbid():  # a stop for a replacement must not be interrupted
                serving.cancel()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            asyncio.get_running_loop().add_signal_handler(number, stop, number.name)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        return await serving
    except asyncio.CancelledError:
        if not received:
            raise
        return 0
    finally:
        if succession.is_asked:
            signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _refuse(sentence: str, code: int = EXIT_USAGE) -> int:
    lines = "".join(f"mosaicd: {line}\n" for line in sentence.splitlines())
    with contextlib.suppress(OSError):  # if stderr is closed, the exit code still reports the error
        os.write(2, lines.encode())  # a buffer that cannot be flushed would change the exit code
    return code


if __name__ == "__main__":
    sys.exit(main())
