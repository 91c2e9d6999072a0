"""The shims of live runs: order a shim, send notifications to it, and watch its connection and its process.

A shim is known by the connection on which it registered, and without one by its process (pid and start time).
A lost connection is not a dead shim: a living shim registers again.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mosaicd import crash_points, procfs
from mosaicd.protocol.records.attempt import Launch
from mosaicd.protocol.records.orders import LaunchOrder, TeardownOrder
from mosaicd.shims.launcher_client import LauncherClient


class Connection(Protocol):
    """The connection of a shim to the socket server."""

    def notify(self, method: str, params: Mapping[str, Any]) -> bool: ...

    def on_close(self, callback: Callable[[], None]) -> None: ...

    def abort(self) -> None: ...


@dataclass(slots=True)
class _Shim:
    """The shim of a run: its process (pid, start time), its connection, and its silent checks in a row."""

    attempt: int
    process: tuple[int, int]
    connection: Connection | None = None
    pidfd: int | None = None
    has_ended: bool = False
    is_teardown: bool = False
    is_given_up: bool = False
    silent_checks: int = 0


class Shims:
    """The shims of all live runs, at most one for each run.

    `on_ended(run_id)` is called on the loop when the process of a run's shim has ended and its connection is
    closed.
    """

    def __init__(self, launcher: LauncherClient, on_ended: Callable[[str], None]) -> None:
        self._launcher = launcher
        self._on_ended = on_ended
        self._shims: dict[str, _Shim] = {}
        launcher.on_reaped = self._note_reaped

    def close(self) -> None:
        """Stop watching processes; the shims stay alive."""
        for shim in self._shims.values():
            _drop_pidfd(shim)
        self._shims.clear()

    # --- orders ------------------------------------------------------------------------------------

    async def launch(self, order: LaunchOrder) -> None:
        """Order a shim for an attempt; may be repeated.  Raises LaunchFailed or NoProcess."""
        await self._fork(order)

    async def teardown(self, order: TeardownOrder) -> None:
        """Order a teardown shim for a process tree without a shim; `on_ended` follows at its end."""
        await self._fork(order)

    async def _fork(self, order: LaunchOrder | TeardownOrder) -> None:
        run_id, attempt = order.run_id, order.attempt
        process = await self._launcher.fork_shim(order)
        shim = self._shims.get(run_id)
        if shim is None or shim.attempt != attempt or shim.connection is None:
            self.watch(run_id, attempt, *process)
            self._shims[run_id].is_teardown = isinstance(order, TeardownOrder)
        crash_points.reach("order.answered")

    def notify(self, run_id: str, method: str, params: Mapping[str, Any]) -> bool:
        """Send the run's shim a control notification; return False if the shim is not connected."""
        shim = self._shims.get(run_id)
        return bool(shim and shim.connection and shim.connection.notify(method, params))

    # --- connection and process --------------------------------------------------------------------

    def attach(self, run_id: str, attempt: int, connection: Connection, pid: int, start_ticks: int) -> None:
        """Set the connection of the run's shim, and close the former one."""
        stale = self._shims[run_id].connection if run_id in self._shims else None
        self.watch(run_id, attempt, pid, start_ticks)
        shim = self._shims[run_id]
        shim.connection, shim.silent_checks = connection, 0
        if stale is not None and stale is not connection:
            stale.abort()

        def handle_close() -> None:
            if shim.connection is connection:
                shim.connection = None
                if shim.has_ended and self._shims.get(run_id) is shim:
                    self._on_ended(run_id)

        connection.on_close(handle_close)

    def watch(self, run_id: str, attempt: int, pid: int, start_ticks: int) -> None:
        """Watch this process (pid, start time) as the run's shim; a missing process has ended."""
        known = self._shims.get(run_id)
        if known is not None and known.process == (pid, start_ticks) and known.attempt == attempt:
            return
        if known is not None:
            _drop_pidfd(known)
        shim = self._shims[run_id] = _Shim(attempt, (pid, start_ticks))
        loop = asyncio.get_running_loop()
        shim.pidfd = procfs.open_pidfd(pid, start_ticks)
        if shim.pidfd is None:
            loop.call_soon(self._note_ended, run_id, shim)
        else:
            loop.add_reader(shim.pidfd, self._note_ended, run_id, shim)

    def watch_recorded(self, run_id: str, attempt: int, launch: Launch | None) -> None:
        """Watch the shim that launch.json names; a shim that is not named there registers by itself."""
        if launch is not None and launch.shim_pid and launch.shim_started_at is not None:
            self.watch(run_id, attempt, launch.shim_pid, launch.shim_started_at)

    def forget(self, run_id: str) -> None:
        """Drop the shim of a run that has ended."""
        shim = self._shims.pop(run_id, None)
        if shim is not None:
            _drop_pidfd(shim)

    def _note_reaped(self, run_id: str, pid: int) -> None:
        shim = self._shims.get(run_id)
        if shim is not None and shim.process[0] == pid:
            self._note_ended(run_id, shim)

    def _note_ended(self, run_id: str, shim: _Shim) -> None:
        if shim.has_ended:
            return
        shim.has_ended = True
        _drop_pidfd(shim)
        if self._shims.get(run_id) is shim:
            self._on_ended(run_id)

    # --- queries -----------------------------------------------------------------------------------

    def has_process(self, pid: int) -> bool:
        """Return whether the process is a shim that was launched or has registered."""
        return any(shim.process[0] == pid for shim in self._shims.values())

    def is_attached(self, run_id: str, attempt: int) -> bool:
        """Return whether the attempt's shim is connected."""
        shim = self._shims.get(run_id)
        return shim is not None and shim.attempt == attempt and shim.connection is not None

    def is_alive(self, run_id: str, attempt: int) -> bool:
        """Return whether the attempt's shim or teardown shim is known to run: its process, or connected."""
        shim = self._shims.get(run_id)
        if shim is None or shim.attempt != attempt:
            return False
        return not shim.has_ended or shim.connection is not None

    # --- silence -----------------------------------------------------------------------------------

    def note_message(self, run_id: str) -> None:
        """Note that the run's shim has sent a message: its count of silent checks restarts."""
        if run_id in self._shims:
            self._shims[run_id].silent_checks = 0

    def count_silent_check(self, run_id: str, attempt: int) -> int:
        """Return the number of silent checks in a row of the attempt's living shim, and count one.

        0 after a message, without such a shim, and for a teardown shim, which never sends a message.
        """
        shim = self._shims.get(run_id)
        if shim is None or shim.is_teardown or not self.is_alive(run_id, attempt):
            return 0
        silent_checks = shim.silent_checks
        shim.silent_checks += 1
        return silent_checks

    def give_up(self, run_id: str) -> None:
        """Treat a living shim as ended and close its connection; the next teardown shim ends it first."""
        shim = self._shims.get(run_id)
        if shim is not None:
            _drop_pidfd(shim)
            shim.has_ended = shim.is_given_up = True
            connection, shim.connection = shim.connection, None
            if connection is not None:
                connection.abort()

    def given_up_shim(self, run_id: str) -> tuple[int, int] | None:
        """Return the process (pid, start time) of a shim that was given up and still lives, or None."""
        shim = self._shims.get(run_id)
        return shim.process if shim is not None and shim.is_given_up else None


def _drop_pidfd(shim: _Shim) -> None:
    if shim.pidfd is not None:
        asyncio.get_running_loop().remove_reader(shim.pidfd)
        os.close(shim.pidfd)
        shim.pidfd = None
