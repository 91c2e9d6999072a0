"""A stage on which mosaicctl is run for the golden files: a scripted daemon, one time, 80 columns.

What differs from run to run (directories, pids, times) is replaced in the text.
"""

import contextlib
import io
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mosaicctl.__main__ import main
from mosaicd.protocol.errors import MosaicError
from tests.ctl.scripted import Handler, Hangup, ScriptedDaemon

#: The time on the stage, in seconds since the epoch.
NOW = 1_100.0


class Terminal(io.TextIOWrapper):
    """An output stream that says of itself that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Stage:
    """Runs command lines and keeps what they print as text."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "daemon.sock"
        self.daemon = ScriptedDaemon(self.socket)
        self._blocks: list[str] = []

    def title(self, text: str) -> None:
        """Begin a section."""
        self._blocks.append(f"{'=' * 100}\n{text}\n{'=' * 100}\n")

    def note(self, text: str) -> None:
        """Add a line about what follows."""
        self._blocks.append(f"# {text}\n")

    def lines(self, lines: list[str]) -> None:
        """Add lines of text that no command line printed."""
        self._blocks.append("".join(f"{line}\n" for line in lines))

    def ctl(self, line: str, handlers: dict[str, Any] | None = None, on_terminal: bool = False) -> None:
        """Run `mosaicctl LINE` and add what it prints; `handlers` has results, errors or functions."""
        self.daemon.handlers = {
            "daemon.hello": _answering({"epoch": "e1", "last_seq": 10}),
            "run.leftovers": _answering({}),
            **{method: _answering(answer) for method, answer in (handlers or {}).items()},
        }
        code, out, err = self._run(shlex.split(line), Terminal if on_terminal else io.TextIOWrapper)
        self._blocks.append(f"$ mosaicctl {line}\n{_quoted('', out)}{_quoted('2> ', err)}exit code {code}\n")

    def text(self) -> str:
        """Return all that was added."""
        text = "\n".join(self._blocks).replace(str(self.socket), "SOCKET").replace(str(self.directory), "DIR")
        return text.replace(f"/run/user/{os.getuid()}", "/run/user/UID")

    def _run(self, argv: list[str], kind: type[io.TextIOWrapper]) -> tuple[int, str, str]:
        out, err = (kind(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with mock.patch.multiple(sys, stdout=out, stderr=err):
            try:
                code = main(argv)
            except SystemExit as exit:
                code = int(exit.code or 0)
        printed = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return code, printed[0], printed[1]


def _answering(answer: Any) -> Handler:
    if callable(answer) and not isinstance(answer, type):
        function: Handler = answer
        return function

    def answered(params: dict[str, Any], peer: object) -> Any:
        if isinstance(answer, MosaicError | Hangup | type):
            raise answer
        return answer

    return answered


def _quoted(prefix: str, text: str) -> str:
    return "".join(f"{prefix}{line}\n" for line in text.splitlines())


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage with a daemon; environment, time zone and time are the same on every machine."""
    with tempfile.TemporaryDirectory(prefix="mosaic-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        environment = {
            "PATH": os.environ["PATH"], "HOME": name, "COLUMNS": "80", "TZ": "UTC", "TERM": "dumb",
            "MOSAICD_SOCKET": str(directory / "daemon.sock"), "XDG_RUNTIME_DIR": name, "PWD": name,
        }  # fmt: skip
        stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        time.tzset()
        stack.enter_context(mock.patch("time.time", lambda: NOW))
        stack.enter_context(mock.patch("mosaicctl.client.RECONNECT_TIMEOUT_S", 0.05))
        built = Stage(directory)
        with built.daemon:
            yield built
    time.tzset()


def text_of(*sections: Callable[[Stage], None]) -> str:
    """Return what the sections print on one stage."""
    with stage() as built:
        for section in sections:
            section(built)
        return built.text()
