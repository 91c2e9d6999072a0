"""The worker's side of the control channel: pause, resume, checkpoint, stop; and SIGTERM.

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
#: `poll` takes its time limit in milliseconds as a 32-bit integer.
_POLL_STEP_S = 0.001
_POLL_MAX_S = 86400.0

Save = Callable[[], Any]
Describe = Callable[[], Mapping[str, Any]]


class Control:
    """The orders of mosaicd to one worker; use it from one thread only."""

    def __init__(
        self, emitter: TelemetryEmitter, fd: int | None = None, poll_interval_s: float = POLL_INTERVAL_S
    ) -> None:
        """Use and own the stream socket `fd`; without it, only signals are received."""
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
        self._socket = _open_channel(fd)

    @property
    def stop_requested(self) -> bool:
        """Whether a signal or an order has requested a stop; never becomes False again."""
        return self.stop_reason is not None

    def install_signals(self) -> None:
        """Let SIGTERM and SIGINT request a stop; a second SIGINT interrupts.  Call in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)

    def checkpoint_point(self, save: Save | None = None, describe: Describe | None = None) -> bool:
        """Carry out all orders; block while paused; return True if the worker should stop.

        `save` writes a checkpoint and reports it; `describe` returns the payload of `paused` and `resumed`.
        """
        if not self._has_orders() and time.monotonic() < self._next_poll_mono:
            return False
        if self._receive_orders():
            self._carry_out_orders(save, describe)
        return self.stop_reason is not None

    def poll_orders(self) -> bool:
        """Receive orders; return whether an order or a signal waits for the next `checkpoint_point`."""
        if time.monotonic() < self._next_poll_mono:
            return self._has_orders()
        return self._receive_orders()

    def sleep(self, seconds: float) -> bool:
        """Sleep; return True early if an order or a signal waits for the next `checkpoint_point`."""
        deadline = time.monotonic() + seconds
        while not self._receive_orders():
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return False
            self._wait(remaining_s)
        return True

    def close(self) -> None:
        """Restore the signal handlers and close the descriptors."""
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

    def _carry_out_orders(self, save: Save | None, describe: Describe | None) -> None:
        """Save and answer as ordered; while paused, wait for further orders."""
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
            self._receive_orders()

    def _receive_orders(self) -> bool:
        """Read all available orders from the channel; return whether orders or a stop are pending."""
        self._next_poll_mono = time.monotonic() + self._poll_interval_s
        while self._socket is not None:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                self._on_channel_closed()
                break
            self._read_lines(data)
        return self._has_orders()

    def _has_orders(self) -> bool:
        return self.stop_reason is not None or self._wants_checkpoint or bool(self._answers)

    def _on_channel_closed(self) -> None:
        """Close the channel; request a stop if the worker is paused or has to pause."""
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        if self._wants_pause:
            self._request_stop("control_closed")

    def _read_lines(self, data: bytes) -> None:
        """Split received data into lines and read each complete line as an order."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > LINE_LIMIT_BYTES:
            _print_note("a control line is longer than the limit; it is dropped")
            self._buffer = b""
        for line in lines:
            if line.strip():
                self._read_order(line)

    def _read_order(self, line: bytes) -> None:
        """Store an order for `_carry_out_orders`; an unknown line is reported on stderr and ignored."""
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
            self._request_stop("control")
        else:
            _print_note(f"an unknown control line is ignored: {line[:200]!r}")

    def _request_stop(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for an order or a signal, at most `timeout_s`; may return up to a millisecond early."""
        if timeout_s is not None and timeout_s < _POLL_STEP_S:
            time.sleep(timeout_s)
            return
        poll = select.poll()  # select would refuse descriptors above 1023
        poll.register(self._wake_read, select.POLLIN)
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else int(min(timeout_s, _POLL_MAX_S) / _POLL_STEP_S))
        if any(descriptor == self._wake_read for descriptor, _ in ready):
            os.read(self._wake_read, 512)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child has no control channel: the signal ends it as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT and self.stop_signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_signal = number
        self._request_stop(signal.Signals(number).name)
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # the pipe is full, so the wait ends anyway


def _open_channel(fd: int | None) -> socket.socket | None:
    """Return the inherited socket, non-blocking and closed on exec; None if `fd` is not a socket."""
    if fd is None:
        return None
    forget_control_fd()
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        _print_note(f"MOSAIC_CONTROL_FD={fd} is not a socket; the worker runs without a control channel")
        return None
    os.set_inheritable(fd, False)
    channel = socket.socket(fileno=fd)
    channel.setblocking(False)
    return channel


def _print_note(text: str) -> None:
    print(f"mosaic_worker: {text}", file=sys.stderr)
