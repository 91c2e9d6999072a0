"""The shim's poll loop: it waits for pipes, daemon and signals, and passes each event to the attempt.

After a small read the loop leaves the pipes alone for 2 ms, so that one wake-up reads many lines; the pipes
hold far more than arrives in that time.
"""

import select
import time

from mosaicd import crash_points
from mosaicd.shim.attempt import Attempt
from mosaicd.shim.signal_pipe import SignalPipe

_GATHER_S = 0.002
_GATHER_BELOW_BYTES = 64 << 10
_DISK_RETRY_S = 1.0


class Loop:
    """The loop of one attempt."""

    def __init__(self, attempt: Attempt, signals: SignalPipe) -> None:
        self._attempt = attempt
        self._signals = signals
        self._gather_until = 0.0

    def run(self) -> None:
        """Run until the shim leaves."""
        attempt = self._attempt
        attempt.tick(time.monotonic())
        attempt.prepare()
        while not attempt.is_over:
            self._wait(time.monotonic())
            attempt.tick(time.monotonic())
        attempt.finish()
        crash_points.reach("shim.leaving")

    def _wait(self, now: float) -> None:
        attempt, link = self._attempt, self._attempt.link
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        link_fd = link.fd
        if link_fd is not None:
            poll.register(link_fd, select.POLLIN | (select.POLLOUT if link.has_backlog else 0))
        pipes = attempt.spool.open_fds if attempt.spool and now >= self._gather_until else []
        for fd in pipes:
            poll.register(fd, select.POLLIN)
        ready = dict(poll.poll(self._timeout_ms(now)))
        now = time.monotonic()
        if self._signals.fd in ready:
            self._signals.drain()
            if self._signals.take_term():
                attempt.terminate(now)
            attempt.reap(now)
        self._read([fd for fd in pipes if fd in ready], now)
        if link_fd is not None and link_fd in ready:
            link.flush()
            if ready[link_fd] & ~select.POLLOUT:
                attempt.dialogue.receive(now)

    def _timeout_ms(self, now: float) -> float | None:
        moments = [self._attempt.next_at()]
        if self._gather_until > now:
            moments.append(self._gather_until)
        if self._attempt.spool and self._attempt.spool.telemetry_file.is_waiting:
            moments.append(now + _DISK_RETRY_S)
        due = min((moment for moment in moments if moment is not None), default=None)
        return None if due is None else max(0.0, (due - now) * 1000)

    def _read(self, fds: list[int], now: float) -> None:
        spool = self._attempt.spool
        if spool is None:
            return
        before = spool.read_bytes
        for fd in fds:
            spool.read(fd)
        spool.telemetry_file.flush()
        size = spool.read_bytes - before
        if size:
            self._attempt.note_output()
            if size < _GATHER_BELOW_BYTES:
                self._gather_until = now + _GATHER_S
