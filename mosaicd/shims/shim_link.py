"""The daemon's end of the launcher and of the shims: order, attach, notify, and see them go.

The launcher answers numbered orders over a packet socket; every order may be repeated, so when it dies
another is started and what was unanswered is sent again.  A shim is known by the connection it
registered on and, when that is gone, by its process (pid and start time): "connection lost" is not
"shim lost".
"""

import asyncio
import json
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mosaicd import crash_points, launcher, procfs
from mosaicd.core.launch import refused
from mosaicd.protocol.backoff import Backoff
from mosaicd.protocol.records.orders import LaunchOrder, TeardownOrder

log = logging.getLogger(__name__)

RESTART_DELAY_S, MOST_RESTART_DELAY_S = 0.2, 10.0
SEND_AGAIN_S = 0.01
LEAVE_S = 5.0  # for a launcher, which has at most a few orders in hand
#: A launcher's silence is counted in looks and not by the clock: a daemon that stood still has not read yet.
LOOKS = 6
PACKET_BYTES = 1 << 16
#: The launcher and its shims need nothing of ours; a worker's environment comes whole with its order.
LAUNCHER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class Connection(Protocol):
    """What the wire side offers of a shim's connection."""

    def notify(self, method: str, params: Mapping[str, Any]) -> bool: ...

    def on_close(self, callback: Callable[[], None]) -> None: ...

    def abort(self) -> None: ...


@dataclass(slots=True)
class _Order:
    packet: dict[str, Any]
    body: bytes | None
    reply: "asyncio.Future[dict[str, Any]]"
    looks: int = 0  # at its being unanswered, since this launcher has it


@dataclass(slots=True)
class _Shim:
    """What is known of one run's shim."""

    attempt: int
    connection: Connection | None = None
    pidfd: int | None = None
    gone: bool = False
    heard: bool = True
    is_teardown: bool = False
    is_given_up: bool = False
    identity: tuple[int, int] | None = None


@dataclass
class ShimLink:
    """Talk to the launcher and the shims.

    `on_gone(run_id)` is called on the loop when a run's shim process has ended; one that only lost its
    connection registers again.
    """

    on_gone: Callable[[str], None]
    _shims: dict[str, _Shim] = field(default_factory=dict)
    _orders: dict[int, _Order] = field(default_factory=dict)
    _next_id: int = 1
    _process: "subprocess.Popen[bytes] | None" = None
    _socket: socket.socket | None = None
    _pidfd: int | None = None
    _closing: bool = False
    _is_looking: bool = False
    launcher_restarts: int = 0
    trouble: str | None = None  # why there is no launcher, while none can be started
    containment_mode: str = "auto"
    containment: dict[str, Any] = field(default_factory=dict)
    _backoff: Backoff = field(default_factory=lambda: Backoff(RESTART_DELAY_S, MOST_RESTART_DELAY_S))
    crash_at: str | None = None
    silence_s: float = 30.0

    # --- the launcher ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the launcher; where that cannot be now, try again until it can, with what was ordered."""
        try:
            self._begin()
        except OSError as error:  # no process or descriptor to be had now
            self.trouble = f"no launcher can be started: {error}"
            log.error("%s; trying again", self.trouble)
            if (process := self._drop_launcher()) is not None:  # nothing was ordered of it yet
                process.kill()
                process.wait()
            self._restart_later()
            return
        self.trouble = None
        for order in list(self._orders.values()):
            order.looks = 0
            self._send(order)

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                launcher.command(theirs.fileno(), self.containment_mode), pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL, start_new_session=True, env=LAUNCHER_ENVIRONMENT | self._drill(),
                cwd="/",
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        loop.add_reader(ours.fileno(), self._readable)
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._launcher_ended)
        log.debug("launcher started, pid %d", self._process.pid)

    def _drill(self) -> dict[str, str]:
        """What arms a crash point in the launcher or its shims: the first launcher only."""
        crash_at, self.crash_at = self.crash_at, None
        return {crash_points.VARIABLE: crash_at} if crash_at and crash_points.is_forked(crash_at) else {}

    async def close(self) -> None:
        """Let the launcher finish what it has in hand and go; shims stay."""
        self._closing = True
        process = self._drop_launcher()
        if process is not None:
            late = asyncio.get_running_loop().call_later(LEAVE_S, self._end, process)
            await asyncio.to_thread(process.wait)
            late.cancel()
        for shim in self._shims.values():
            self._drop_pidfd(shim)
        self._shims.clear()

    @staticmethod
    def _end(process: "subprocess.Popen[bytes]") -> None:
        log.warning("the launcher has not left for %g s and is ended", LEAVE_S)
        process.kill()

    def _drop_launcher(self) -> "subprocess.Popen[bytes] | None":
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._pidfd is not None:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        process, self._process = self._process, None
        return process

    def _launcher_ended(self) -> None:
        process = self._drop_launcher()
        if process is None or self._closing:
            return
        log.warning("the launcher ended (%s); starting another", process.wait())
        self._restart_later()

    def _restart_later(self) -> None:
        """Start another soon; less soon where the last one has not answered anything."""
        self.launcher_restarts += 1
        asyncio.get_running_loop().call_later(self._backoff.next_s(), self._restart)

    def _restart(self) -> None:
        if not self._closing and self._socket is None:
            self.start()

    async def _order(self, packet: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
        number = self._next_id
        self._next_id += 1
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        order = _Order({**packet, "id": number}, json.dumps(body).encode() if body else None, reply)
        self._orders[number] = order
        self._look_later()
        try:
            self._send(order)
            return await reply
        finally:
            self._orders.pop(number, None)

    def _look_later(self) -> None:
        if not self._is_looking and self._orders and not self._closing:
            self._is_looking = True
            asyncio.get_running_loop().call_later(self.silence_s / LOOKS, self._look)

    def _look(self) -> None:
        """A launcher answers in milliseconds: one that does not for so long stands still, and is ended."""
        self._is_looking = False
        for order in self._orders.values():
            order.looks += 0 if order.reply.done() else 1
        late = next((order.packet for order in self._orders.values() if order.looks > LOOKS), None)
        if late is not None and self._process is not None and not self._closing:
            what, run_id = late["order"], late["run_id"]
            log.warning("the launcher has not answered %s of run %s for %g s", what, run_id, self.silence_s)
            self._process.kill()  # its shims live on; its end starts another, which gets the order again
        self._look_later()

    def _send(self, order: _Order) -> None:
        if self._socket is None or order.reply.done():
            return  # without a launcher: sent again by `start`
        packet = json.dumps(order.packet).encode()
        try:
            if order.body is None:
                self._socket.send(packet)
                return
            with launcher.memory_file(order.body) as descriptor:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, "little"))]
                self._socket.sendmsg([packet], rights)
            crash_points.reach("order.sent")
        except (BrokenPipeError, ConnectionResetError):
            pass  # its pidfd tells; sent again by `start`
        except OSError:  # its queue is full, or we have no descriptor or memory to spare just now
            asyncio.get_running_loop().call_later(SEND_AGAIN_S, self._send, order)

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                packet = self._socket.recv(PACKET_BYTES)
            except (BlockingIOError, ConnectionResetError):
                return
            if not packet:
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
                return
            self._received(json.loads(packet))

    def _received(self, message: dict[str, Any]) -> None:
        if message.get("fact") == "reaped":
            self._reaped(message)
            return
        if message.get("fact") == "containment":
            self.containment = {"holds": message.get("word"), "enforces": message.get("enforces", [])}
            return
        order = self._orders.get(message.get("id", 0))  # a fact that nobody here knows is nobody's answer
        if order is not None and not order.reply.done():
            self._backoff.reset()
            order.reply.set_result(message)

    def _reaped(self, message: dict[str, Any]) -> None:
        if code := os.waitstatus_to_exitcode(message.get("status") or 0):
            level = logging.INFO if code < 0 else logging.ERROR  # its traceback is in shim-crash.txt
            log.log(level, "shim %s of run %s left with %d", message["pid"], message["run_id"], code)
        shim = self._shims.get(message["run_id"])
        if shim is None or shim.identity is None or shim.identity[0] == message["pid"]:
            self._set_gone(message["run_id"], shim)

    async def launch(self, order: LaunchOrder) -> None:
        """Order a shim for an attempt; may be repeated.  LaunchFailed, or NoProcess for now."""
        await self._fork(order)

    async def teardown(self, order: TeardownOrder) -> None:
        """Order a teardown shim for an orphaned tree; `on_gone` follows when it is done."""
        await self._fork(order)

    async def _fork(self, order: LaunchOrder | TeardownOrder) -> None:
        run_id, attempt = order.run_id, order.attempt
        crash_points.reach("order.made")
        packet = {"order": order.order, "run_id": run_id, "attempt": attempt}
        reply = await self._order(packet, order.to_json())
        if reply.get("reply") == "failed":
            raise refused(reply)
        shim = self._shims.get(run_id)
        if shim is None or shim.attempt != attempt or shim.connection is None:
            self.watch(run_id, attempt, reply["pid"], reply["start_ticks"])
            self._shims[run_id].is_teardown = isinstance(order, TeardownOrder)
        crash_points.reach("order.answered")

    async def is_empty(
        self, run_id: str, shim: tuple[int | None, int | None], attempt: int | None = None
    ) -> tuple[bool, list[int]]:
        """Return whether no process of the run is left, and the pids of those that are."""
        packet = {"order": "is_empty", "run_id": run_id, "shim_pid": shim[0], "shim_start": shim[1]}
        reply = await self._order({**packet, "attempt": attempt})
        return bool(reply["empty"]), list(reply.get("pids", ()))

    # --- the shims -----------------------------------------------------------------------------------

    def attach(self, run_id: str, attempt: int, connection: Connection, pid: int, start_ticks: int) -> None:
        """Take `connection` as the one that the run's shim listens on; the newest is valid.

        The one before is hung up: whoever is left on it would wait for words that never come.
        """
        stale = self._shims[run_id].connection if run_id in self._shims else None
        self.watch(run_id, attempt, pid, start_ticks)
        shim = self._shims[run_id]
        shim.connection, shim.heard = connection, True
        if stale is not None and stale is not connection:
            stale.abort()

        def closed() -> None:
            if shim.connection is connection:
                shim.connection = None
                if shim.gone and self._shims.get(run_id) is shim:
                    self.on_gone(run_id)

        connection.on_close(closed)

    def knows(self, pid: int) -> bool:
        """Whether this is the process of a shim that was launched or has registered."""
        return any(shim.identity is not None and shim.identity[0] == pid for shim in self._shims.values())

    def watch(self, run_id: str, attempt: int, pid: int, start_ticks: int) -> None:
        """Learn when the process (pid, start time) ends; a wrong or dead identity counts as gone at once."""
        known = self._shims.get(run_id)
        if known is not None and known.identity == (pid, start_ticks) and known.attempt == attempt:
            return
        if known is not None:
            self._drop_pidfd(known)
        shim = self._shims[run_id] = _Shim(attempt, identity=(pid, start_ticks))
        loop = asyncio.get_running_loop()
        shim.pidfd = procfs.open_for(pid, start_ticks)
        if shim.pidfd is None:
            loop.call_soon(self._set_gone, run_id, shim)
        else:
            loop.add_reader(shim.pidfd, self._set_gone, run_id, shim)

    def watch_found(self, run_id: str, attempt: int, launch: Mapping[str, Any] | None) -> None:
        """Watch the shim that launch.json names; nothing when it names none (its shim will register)."""
        pid, ticks = (launch or {}).get("shim_pid"), (launch or {}).get("shim_started_at")
        if isinstance(pid, int) and isinstance(ticks, int) and pid > 0:
            self.watch(run_id, attempt, pid, ticks)

    def notify(self, run_id: str, method: str, params: Mapping[str, Any]) -> bool:
        """Send the run's shim a control notification; False when it is not connected."""
        shim = self._shims.get(run_id)
        return bool(shim and shim.connection and shim.connection.notify(method, params))

    def is_attached(self, run_id: str, attempt: int) -> bool:
        """Whether the attempt's shim is connected."""
        shim = self._shims.get(run_id)
        return shim is not None and shim.attempt == attempt and shim.connection is not None

    def is_alive(self, run_id: str, attempt: int) -> bool:
        """Whether the attempt's shim (or a teardown shim) is known to run: by its process, or by its word."""
        shim = self._shims.get(run_id)
        if shim is None or shim.attempt != attempt:
            return False
        return not shim.gone or shim.connection is not None

    def heard(self, run_id: str) -> None:
        """Take note that the run's shim has said something."""
        if run_id in self._shims:
            self._shims[run_id].heard = True

    def is_silent(self, run_id: str, attempt: int) -> bool:
        """Whether the attempt's own shim is alive and was not heard of since this was last asked."""
        shim = self._shims.get(run_id)
        if shim is None or shim.is_teardown or not self.is_alive(run_id, attempt):
            return False
        heard, shim.heard = shim.heard, False
        return not heard

    def give_up(self, run_id: str) -> None:
        """Take a living shim for gone: its connection is closed, and a teardown shim will end it first."""
        shim = self._shims.get(run_id)
        if shim is not None:
            self._drop_pidfd(shim)
            shim.gone = shim.is_given_up = True
            connection, shim.connection = shim.connection, None
            if connection is not None:
                connection.abort()

    def given_up(self, run_id: str) -> tuple[int, int] | None:
        """Return the process (pid, start time) of a shim that was given up and not yet ended."""
        shim = self._shims.get(run_id)
        return shim.identity if shim is not None and shim.is_given_up else None

    def forget(self, run_id: str) -> None:
        """Drop what is known of the shim of a run that ended."""
        shim = self._shims.pop(run_id, None)
        if shim is not None:
            self._drop_pidfd(shim)

    def _set_gone(self, run_id: str, shim: _Shim | None) -> None:
        if shim is None or shim.gone:
            return
        shim.gone = True
        self._drop_pidfd(shim)
        if self._shims.get(run_id) is shim:
            self.on_gone(run_id)

    @staticmethod
    def _drop_pidfd(shim: _Shim) -> None:
        if shim.pidfd is not None:
            asyncio.get_running_loop().remove_reader(shim.pidfd)
            os.close(shim.pidfd)
            shim.pidfd = None
