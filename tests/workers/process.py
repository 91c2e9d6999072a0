"""A real worker process: its lines are read and checked, it gets control lines over a socket pair."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import mosaic_tabular
import mosaic_worker

from tests.harness.waiting import wait_until
from tests.workers.lines import Line, checked

DEADLINE_S = 20.0
MOSAIC_VARIABLES = ("MOSAIC_", "WORKER_ID", "RUN_ID")


def environment(**extra: str) -> dict[str, str]:
    """Return an environment in which both packages are found, without variables of a surrounding mosaicd."""
    paths = [*mosaic_worker.__path__, *mosaic_tabular.__path__]
    parents = [str(Path(path).parent) for path in paths]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(MOSAIC_VARIABLES)}
    kept.pop("PYTHONUNBUFFERED", None)
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(parents)), **extra}


class Worker:
    """`python -m mosaic_tabular` in `directory` with `config`; a context manager."""

    def __init__(
        self, directory: Path, config: dict[str, Any], *flags: str, has_control: bool = False, **extra: str
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config))
        variables = environment(**extra)
        self.control: socket.socket | None = None
        worker_end: socket.socket | None = None
        if has_control:
            self.control, worker_end = socket.socketpair()
            variables["MOSAIC_CONTROL_FD"] = str(worker_end.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mosaic_tabular", "--config", "config.json", *flags],
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[worker_end.fileno()] if worker_end is not None else [],
        )
        if worker_end is not None:
            worker_end.close()
        self.lines: list[Line] = []
        self.stderr = b""
        self.failure: AssertionError | None = None
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_lines),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def send(self, order: str, **fields: Any) -> None:
        """Send one control line."""
        assert self.control is not None
        self.control.sendall(json.dumps({"control": order, **fields}).encode() + b"\n")

    def wait_for(self, is_wanted: Callable[[Line], bool], after: int = 0) -> int:
        """Wait for the first line from `after` on for which `is_wanted` is true; return its index."""

        def first_wanted() -> int | None:
            index = next((n for n in range(after, len(self.lines)) if is_wanted(self.lines[n])), None)
            if index is None:
                assert self.process.poll() is None or self._readers[0].is_alive(), self.tail()
            return index

        with self._news:
            index = wait_until(
                first_wanted,
                lambda index: index is not None,
                "a wanted line",
                DEADLINE_S,
                pause=lambda: self._news.wait(0.1),
                shown=self.tail,
            )
        assert index is not None
        return index

    def wait_for_event(self, name: str, after: int = 0) -> int:
        """Wait for the first lifecycle line called `name` from `after` on; return its index."""
        return self.wait_for(lambda line: line.get("event") == name, after)

    def wait_for_episode(self, index: int) -> int:
        """Wait for the line of episode `index` or a later one; return the index of the line."""
        return self.wait_for(lambda line: line.get("type") == "episode" and line["episode_index"] >= index)

    def finish(self) -> int:
        """Wait for the end and return the exit code; fail if a line broke the protocol."""
        code = self.process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        if self.failure is not None:
            raise self.failure
        return code

    def events(self) -> list[str]:
        """Return the names of the lifecycle lines, without heartbeats."""
        return [line["event"] for line in self.lines if line.get("event", "heartbeat") != "heartbeat"]

    def episodes(self) -> list[Line]:
        """Return the episode lines without their times."""
        return [
            {key: value for key, value in line.items() if key != "ts_unix_ns"}
            for line in self.lines
            if line.get("type") == "episode"
        ]

    def last(self) -> Line:
        """Return the payload of the last lifecycle line."""
        payload: Line = next(line["payload"] for line in reversed(self.lines) if "event" in line)
        return payload

    def tail(self) -> str:
        """Return the last lines and errors of the worker, for a failure message."""
        return f"lines: {self.lines[-3:]}\nstderr: {self.stderr.decode()[-2000:]}\n{self.failure}"

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        if self.control is not None:
            self.control.close()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            try:
                line = checked(raw)
            except AssertionError as error:
                self.failure = self.failure or error
                continue
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()


def run_to_end(directory: Path, config: dict[str, Any], *flags: str, **extra: str) -> Worker:
    """Run a worker until it ends, fail unless it exits 0, and return it."""
    with Worker(directory, config, *flags, has_control=False, **extra) as worker:
        assert worker.finish() == 0, worker.tail()
        return worker
