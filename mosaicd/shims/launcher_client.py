"""The launcher process: start it, send it orders, and replace it when it ends or hangs.

The launcher answers numbered orders over a packet socket.  Every order may be repeated: if a launcher ends,
the next launcher gets each order that has no answer yet.  The shims of a launcher outlive it.
"""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from mosaicd import crash_points, launcher, log
from mosaicd.core.launch import fork_error
from mosaicd.log import Catalogue
from mosaicd.protocol.backoff import Backoff
from mosaicd.protocol.records.orders import LaunchOrder, TeardownOrder
from mosaicd.protocol.records.packets import (
    CheckTree,
    ContainmentFound,
    ForkFailed,
    ForkShim,
    Launched,
    Message,
    Reaped,
    Reply,
    TreeChecked,
    read_message,
)

RESTART_DELAY_S, MOST_RESTART_DELAY_S = 0.2, 10.0
SEND_AGAIN_S = 0.01
LEAVE_S = 5.0  # the launcher has this time to carry out its last orders and exit
#: Silence is counted in checks and not by the clock: a suspended daemon has not read its messages yet.
MOST_SILENT_CHECKS = 6
PACKET_BYTES = 1 << 16
#: The launcher needs nothing of the daemon's environment; a worker's environment is part of its order.
LAUNCHER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(slots=True)
class _Order:
    """An order without an answer; `silent_checks` counts checks since the present launcher got it."""

    packet: ForkShim | CheckTree
    body: bytes | None
    reply: "asyncio.Future[Reply]"
    silent_checks: int = 0


@dataclass(slots=True)
class _Launcher:
    """A running launcher: its process, the daemon's end of the order socket, and the watch on its end."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    pidfd: int


@dataclass
class LauncherClient:
    """The daemon's client of the launcher, which forks shims and checks process trees.

    `mode` is the kind of containment, `soft_limit` the limit of open descriptors for launcher and runs.
    `on_reaped(run_id, pid)` is called on the loop when the launcher has reaped a shim.  `crash_at` arms a
    crash point in the first launcher or its shims.
    """

    mode: str = "auto"
    soft_limit: int | None = None
    silence_s: float = 30.0
    crash_at: str | None = None
    on_reaped: Callable[[str, int], None] | None = None
    restarts: int = 0
    #: Why the last launcher could not be started; None if one runs.
    start_error: str | None = None
    #: The kind of containment and the enforced limits, as the launcher has reported them.
    containment: dict[str, Any] = field(default_factory=dict)
    _launcher: _Launcher | None = None
    _orders: dict[int, _Order] = field(default_factory=dict)
    _next_id: int = 1
    _is_closing: bool = False
    _is_checking: bool = False
    _backoff: Backoff = field(default_factory=lambda: Backoff(RESTART_DELAY_S, MOST_RESTART_DELAY_S))

    # --- the process -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the launcher and send all orders without an answer; if that fails, try again later."""
        try:
            started = self._launch_process()
        except OSError as error:  # for example no free process or descriptor
            self.start_error = f"the launcher cannot be started: {error}"
            log.event(Catalogue.LAUNCHER_NOT_STARTED, why=error)
            self._restart_later()
            return
        self._launcher, self.start_error = started, None
        loop = asyncio.get_running_loop()
        loop.add_reader(started.socket.fileno(), self._read_packets)
        loop.add_reader(started.pidfd, self._replace_ended)
        log.event(Catalogue.LAUNCHER_STARTED, pid=started.process.pid)
        for order in list(self._orders.values()):
            order.silent_checks = 0
            self._send(order)

    def _launch_process(self) -> _Launcher:
        """Start a launcher process and return it; after an OSError no process of it remains."""
        with ExitStack() as undo:
            daemon_end, launcher_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(daemon_end.close)
            daemon_end.setblocking(False)
            with launcher_end:
                process = subprocess.Popen(
                    launcher.command(launcher_end.fileno(), self.mode, self.soft_limit),
                    pass_fds=(launcher_end.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True,
                    cwd="/", env=LAUNCHER_ENVIRONMENT | self._take_crash_point(),
                )  # fmt: skip
            undo.callback(_kill, process)
            pidfd = os.pidfd_open(process.pid)
            undo.pop_all()
        return _Launcher(process, daemon_end, pidfd)

    def _take_crash_point(self) -> dict[str, str]:
        """Return the environment that arms a crash point of launcher or shims, for the first launcher."""
        crash_at, self.crash_at = self.crash_at, None
        return {crash_points.VARIABLE: crash_at} if crash_at and crash_points.is_forked(crash_at) else {}

    async def close(self) -> None:
        """Let the launcher carry out its orders, and wait until it has exited; shims stay alive."""
        self._is_closing = True
        process = self._drop_launcher()
        if process is not None:
            late = asyncio.get_running_loop().call_later(LEAVE_S, self._kill_late, process)
            await asyncio.to_thread(process.wait)
            late.cancel()

    @staticmethod
    def _kill_late(process: "subprocess.Popen[bytes]") -> None:
        log.event(Catalogue.LAUNCHER_KILLED, limit_s=LEAVE_S)
        process.kill()

    def _drop_launcher(self) -> "subprocess.Popen[bytes] | None":
        """Close the socket to the launcher, if one runs; return its process, which the caller waits for."""
        dropped, self._launcher = self._launcher, None
        if dropped is None:
            return None
        loop = asyncio.get_running_loop()
        loop.remove_reader(dropped.socket.fileno())
        dropped.socket.close()
        loop.remove_reader(dropped.pidfd)
        os.close(dropped.pidfd)
        return dropped.process

    def _replace_ended(self) -> None:
        process = self._drop_launcher()
        if process is None or self._is_closing:
            return
        log.event(Catalogue.LAUNCHER_LOST, pid=process.pid, status=process.wait())
        self._restart_later()

    def _restart_later(self) -> None:
        """Start another launcher after a back-off, which is reset when a launcher answers an order."""
        self.restarts += 1
        asyncio.get_running_loop().call_later(self._backoff.next_s(), self._restart)

    def _restart(self) -> None:
        if not self._is_closing and self._launcher is None:
            self.start()

    # --- orders ------------------------------------------------------------------------------------

    async def fork_shim(self, order: LaunchOrder | TeardownOrder) -> tuple[int, int]:
        """Have the launcher fork a shim for the order; return its pid and start time.

        Raises LaunchFailed, or its subclass NoProcess if the machine has no free process at the moment.
        """
        crash_points.reach("order.made")
        packet = ForkShim(order=order.order, run_id=order.run_id, attempt=order.attempt, id=self._take_id())
        reply = await self._order(packet, json.dumps(order.to_json()).encode())
        if isinstance(reply, ForkFailed):
            raise fork_error(reply)
        assert isinstance(reply, Launched), reply
        return reply.pid, reply.start_ticks or 0  # 0 matches no process, so an unknown shim counts as ended

    async def check_tree(
        self, run_id: str, shim: tuple[int | None, int | None], attempt: int | None = None
    ) -> tuple[bool, list[int]]:
        """Return whether the process tree of the run is empty, and the pids of its living processes.

        `shim`: pid and start time of the run's shim.  If the tree is empty and the shim has ended, the
        launcher removes the control group and the temporary directory of the attempt.
        """
        packet = CheckTree(
            run_id=run_id, shim_pid=shim[0], shim_start=shim[1], attempt=attempt, id=self._take_id()
        )
        reply = await self._order(packet)
        assert isinstance(reply, TreeChecked), reply
        return reply.empty, list(reply.pids)

    def _take_id(self) -> int:
        number = self._next_id
        self._next_id += 1
        return number

    async def _order(self, packet: ForkShim | CheckTree, body: bytes | None = None) -> Reply:
        order = _Order(packet, body, asyncio.get_running_loop().create_future())
        self._orders[packet.id] = order
        self._check_silence_later()
        try:
            self._send(order)
            return await order.reply
        finally:
            self._orders.pop(packet.id, None)

    def _send(self, order: _Order) -> None:
        if self._launcher is None or order.reply.done():
            return  # `start` sends it to the next launcher
        packet = json.dumps(order.packet.to_json()).encode()
        try:
            if order.body is None:
                self._launcher.socket.send(packet)
                return
            with launcher.memory_file(order.body) as descriptor:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, "little"))]
                self._launcher.socket.sendmsg([packet], rights)
            crash_points.reach("order.sent")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the launcher has ended: `start` sends it to the next one
        except OSError:  # its queue is full, or the daemon has no free descriptor or memory
            asyncio.get_running_loop().call_later(SEND_AGAIN_S, self._send, order)

    def _check_silence_later(self) -> None:
        if not self._is_checking and self._orders and not self._is_closing:
            self._is_checking = True
            asyncio.get_running_loop().call_later(self.silence_s / MOST_SILENT_CHECKS, self._check_silence)

    def _check_silence(self) -> None:
        """Kill a launcher that has not answered an order for too long; it normally needs milliseconds."""
        self._is_checking = False
        for order in self._orders.values():
            order.silent_checks += 0 if order.reply.done() else 1
        unanswered = (
            order.packet for order in self._orders.values() if order.silent_checks > MOST_SILENT_CHECKS
        )
        late = next(unanswered, None)
        if late is not None and self._launcher is not None and not self._is_closing:
            kind, run_id = late.order, late.run_id
            log.event(Catalogue.LAUNCHER_SILENT, order=kind, run_id=run_id, silence_s=self.silence_s)
            self._launcher.process.kill()  # shims live on, and the next launcher gets the order
        self._check_silence_later()

    # --- messages of the launcher ------------------------------------------------------------------

    def _read_packets(self) -> None:
        while self._launcher is not None:
            try:
                packet = self._launcher.socket.recv(PACKET_BYTES)
            except (BlockingIOError, ConnectionResetError):
                return
            if not packet:
                asyncio.get_running_loop().remove_reader(self._launcher.socket.fileno())
                return
            self._take_message(read_message(json.loads(packet)))

    def _take_message(self, message: Message | None) -> None:
        match message:
            case Reaped():
                self._note_reaped(message)
            case ContainmentFound():
                self.containment = {"holds": message.kind, "enforces": list(message.enforces)}
            case Launched() | ForkFailed() | TreeChecked():
                self._take_reply(message)

    def _take_reply(self, reply: Reply) -> None:
        order = self._orders.get(reply.id or 0)
        if order is not None and not order.reply.done():
            self._backoff.reset()
            order.reply.set_result(reply)

    def _note_reaped(self, shim: Reaped) -> None:
        if code := os.waitstatus_to_exitcode(shim.status):
            shim_of: dict[str, Any] = {"run_id": shim.run_id, "pid": shim.pid}
            if code < 0:
                log.event(Catalogue.SHIM_ENDED, signal=-code, **shim_of)
            else:
                log.event(Catalogue.SHIM_CRASHED, exit_code=code, **shim_of)
        if self.on_reaped is not None:
            self.on_reaped(shim.run_id, shim.pid)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
