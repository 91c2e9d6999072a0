"""The worker's end of the control channel: pause, resume, checkpoint, stop; and SIGTERM.

The working loop calls `checkpoint_point()` whenever its state is consistent.  Without an order, the call only
reads the clock.  It blocks while the run is paused, and returns True if the worker should stop.  Note: there
is no thread.  Orders are read from the socket only in these calls, and a signal only sets a flag, so an order
never interrupts an update.

Every order that takes effect is answered: `paused`, `resumed`, or the output of `save`.  If the channel
closes while the worker is paused, this counts as a stop, because no resume can follow.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, Callable

from mosaic_worker.environment import forget_control_fd
from mosaic_worker.telemetry import TelemetryEmitter

POLL_INTERVAL_S = 0.01
LINE_LIMIT_BYTES = 65536
#: `poll` counts whole milliseconds, up to some 24 days.
_POLL_STEP_S = 0.001
_POLL_MOST_S = 86400.0

Save = Callable[[], Any]
Describe = Callable[[], Mapping[str, Any]]


class Control:
    """Orders to one worker; to be used from one thread."""

    def __init__(
        self, emitter: TelemetryEmitter, fd: int | None = None, poll_interval_s: float = POLL_INTERVAL_S
    ) -> None:
        """Take over the stream socket `fd`; without one only signals are heard."""
        self.is_paused = False
        self.stop_reason: str | None = None
        self.stop_grace_s: float | None = None
        self.stop_signal: int | None = None
        self._emitter = emitter
        self._poll_interval_s = poll_interval_s
        self._next_poll_mono = 0.0
        self._wants_pause = False
        self._wants_checkpoint = False
        self._answers: list[str] = []
        self._buffer = b""
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._socket = _adopt(fd)

    @property
    def stop_requested(self) -> bool:
        """True once a stop was asked, by signal or order; it never becomes False again."""
        return self.stop_reason is not None

    def install_signals(self) -> None:
        """Make SIGTERM and SIGINT ask for a stop; a second SIGINT interrupts at once.  Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)

    def checkpoint_point(self, save: Save | None = None, describe: Describe | None = None) -> bool:
        """Carry out what was asked; block while paused; return True when the worker should stop.

        `save` writes a checkpoint and says so; `describe` gives the payload of `paused` and `resumed`.
        """
        if not self._is_called() and time.monotonic() < self._next_poll_mono:
            return False
        if self._poll():
            self._attend(save, describe)
        return self.stop_reason is not None

    def is_called(self) -> bool:
        """True when an order or a signal waits for the next `checkpoint_point`: a cue to get there soon."""
        if time.monotonic() < self._next_poll_mono:
            return self._is_called()
        return self._poll()

    def sleep(self, seconds: float) -> bool:
        """Sleep; return True, early, when something waits for the next `checkpoint_point`."""
        deadline = time.monotonic() + seconds
        while not self._poll():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._wait(left_s)
        return True

    def close(self) -> None:
        """Give the signals and descriptors back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._wake_read >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attend(self, save: Save | None, describe: Describe | None) -> None:
        while True:
            if self._wants_checkpoint:
                self._wants_checkpoint = False
                if save is not None:
                    save()
            answers, self._answers = self._answers, []
            if answers and self.stop_reason is None:
                self.is_paused = answers[-1] == "paused"
                self._emitter.event(answers[-1], describe() if describe is not None else {})
            if not self.is_paused or self.stop_reason is not None:
                self.is_paused = False
                return
            self._wait(None)
            self._poll()

    def _poll(self) -> bool:
        self._next_poll_mono = time.monotonic() + self._poll_interval_s
        while self._socket is not None:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                self._hung_up()
                break
            self._take(data)
        return self._is_called()

    def _is_called(self) -> bool:
        return self.stop_reason is not None or self._wants_checkpoint or bool(self._answers)

    def _hung_up(self) -> None:
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        if self._wants_pause:
            self._stop("control_closed")

    def _take(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > LINE_LIMIT_BYTES:
            _note("a control line is longer than the limit; it is dropped")
            self._buffer = b""
        for line in lines:
            if line.strip():
                self._obey(line)

    def _obey(self, line: bytes) -> None:
        try:
            order = json.loads(line)
        except ValueError:
            order = None
        name = order.get("control") if isinstance(order, dict) else None
        if name == "pause":
            self._wants_pause = True
            self._answers.append("paused")
        elif name == "resume":
            self._wants_pause = False
            self._answers.append("resumed")
        elif name == "checkpoint":
            self._wants_checkpoint = True
        elif name == "stop":
            grace_s = order.get("grace_s")
            self.stop_grace_s = float(grace_s) if isinstance(grace_s, (int, float)) else None
            self._stop("control")
        else:
            _note(f"an unknown control line is ignored: {line[:200]!r}")

    def _stop(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for an order or a signal; return early rather than late."""
        if timeout_s is not None and timeout_s < _POLL_STEP_S:
            time.sleep(timeout_s)
            return
        poll = select.poll()  # select would refuse descriptors above 1023
        poll.register(self._wake_read, select.POLLIN)
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else int(min(timeout_s, _POLL_MOST_S) / _POLL_STEP_S))
        if any(descriptor == self._wake_read for descriptor, _ in ready):
            os.read(self._wake_read, 512)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child must die of its signal as ever
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT and self.stop_signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_signal = number
        self._stop(signal.Signals(number).name)
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already


def _adopt(fd: int | None) -> socket.socket | None:
    """Return the inherited socket, closed on exec and non-blocking; None when `fd` is no stream socket."""
    if fd is None:
        return None
    forget_control_fd()
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        _note(f"MOSAIC_CONTROL_FD={fd} is no socket; there is no control channel")
        return None
    os.set_inheritable(fd, False)
    channel = socket.socket(fileno=fd)
    channel.setblocking(False)
    return channel


def _note(text: str) -> None:
    print(f"mosaic_worker: {text}", file=sys.stderr)
