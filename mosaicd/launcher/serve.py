"""The launcher's loop: take an order, fork a shim; reap shims; answer whether a tree is empty.

A fork takes a millisecond or two, so once orders pause one shim is forked ahead (see spare).
Single-threaded, so a fork copies nothing half-done.  The order's content is read by the child alone: no
run's secrets ever lie in this process.  INT and HUP, which a terminal sends to the whole foreground,
do nothing; TERM and the end of the order socket end the launcher after the order in hand, and its
shims live on.
"""

import gc
import os
import select

from mosaicd import crash_points, procfs
from mosaicd.launcher import cgroup_root, emptiness
from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.launcher.orders import OrderSocket, Packet
from mosaicd.launcher.spare import Spare
from mosaicd.protocol.records.packets import (
    CheckTree,
    ContainmentFound,
    ForkFailed,
    ForkShim,
    Launched,
    Reaped,
    UnknownOrder,
)
from mosaicd.shim import child, life, temp_cleanup
from mosaicd.shim.run_cgroup import name_of
from mosaicd.shim.signal_pipe import SignalPipe

_TITLE = "mosaic-launcher"
_ORDERS_A_ROUND = 64
_LINGER_MS = 500
_PAUSE_MS = 10  # without orders, before a spare is forked: not while others need the processors


class Launcher:
    """The order socket, and the shims that were forked and not yet reaped."""

    def __init__(self, orders: OrderSocket, sweeper: CgroupSweeper) -> None:
        self._orders = orders
        self._sweeper = sweeper
        self._lingering: set[str] = set()
        self._shims: dict[int, ForkShim] = {}
        self._spare: Spare | None = None
        self._is_leaving = False
        self._signals = SignalPipe()

    def run(self) -> None:
        """Serve until the daemon has gone."""
        poll = select.poll()
        poll.register(self._orders.fd, select.POLLIN)
        poll.register(self._signals.fd, select.POLLIN)
        self._tell_containment()
        while not self._is_leaving:
            idle_ms = _LINGER_MS if self._lingering else None
            ready = dict(poll.poll(idle_ms if self._spare else _PAUSE_MS))
            if not ready and self._spare is None:
                self._fork_ahead()
            elif not ready:
                self.clear_away()
            if self._signals.fd in ready:
                self._signals.drain()
                self._is_leaving = self._signals.take_term()
                self._reap()
            if self._orders.fd in ready:
                self._take_orders()

    def _take_orders(self) -> None:
        """Carry out what waits; questions are kept for one look at the end."""
        questions: list[CheckTree] = []
        for _ in range(_ORDERS_A_ROUND):
            try:
                packet = self._orders.receive()
            except BlockingIOError:
                break
            if packet is None:
                self._is_leaving = True
                break
            order = packet.order()
            if isinstance(order, CheckTree):
                questions.append(order)
                packet.close()
            else:
                self._fork(order, packet)
        if questions and not self._is_leaving:
            self._answer(questions)

    def _answer(self, questions: list[CheckTree]) -> None:
        """Reply to each question; what is left of an attempt with an empty process tree is removed."""
        replies = emptiness.answer(questions, self._sweeper)
        for reply in replies:
            self._orders.send(reply)
        empty = {reply.id for reply in replies if reply.empty}
        ended = [one for one in questions if one.id in empty]
        self._lingering |= {name_of(one.run_id, one.attempt) for one in ended if one.attempt is not None}
        self._remove_temporary(ended)

    def _fork(self, order: ForkShim | UnknownOrder, packet: Packet) -> None:
        if packet.fd is None or isinstance(order, UnknownOrder):
            packet.close()
            self._orders.send(ForkFailed(id=order.id, error="not an order with a descriptor"))
            return
        crash_points.reach("launcher.order_taken")
        try:
            pid = self._hand_to_spare(packet) or self._fork_for(packet.fd)
        except OSError as error:  # no process to be had now; the daemon tries again later
            packet.close()
            why = error.strerror or str(error)
            self._orders.send(ForkFailed(id=order.id, error=why, errno=error.errno))
            return
        crash_points.reach("launcher.forked")
        packet.close()
        self._shims[pid] = order
        self._orders.send(Launched(id=order.id, pid=pid, start_ticks=procfs.read_start_ticks(pid)))

    def _hand_to_spare(self, packet: Packet) -> int | None:
        spare, self._spare = self._spare, None
        return spare.pid if spare is not None and spare.hand(packet) else None

    def _fork_for(self, order_fd: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._forget()
            life.carry_out_and_exit(order_fd, self._sweeper.root)
        return pid

    def _fork_ahead(self) -> None:
        try:
            self._spare = Spare(self._forget, self._sweeper.root)
        except OSError:
            pass  # no process to be had now: an order, or the next pause, tries again

    def _forget(self) -> None:
        """In the child: give up everything that is the launcher's."""
        self._signals.close()
        if self._spare is not None:
            self._spare.close()
        self._orders.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._spare is not None and self._spare.pid == pid:
                self._spare.close()
                self._spare = None
            order = self._shims.pop(pid, None)
            if order is not None:
                self._lingering.add(name_of(order.run_id, order.attempt))
                self.clear_away()
                self._orders.send(Reaped(pid=pid, run_id=order.run_id, attempt=order.attempt, status=status))

    def clear_away(self) -> None:
        """Remove the control groups of ended attempts; a group stays while a shim is in it."""
        self._lingering = {name for name in self._lingering if not self._sweeper.remove(name)}

    def _remove_temporary(self, questions: list[CheckTree]) -> None:
        """Fork a child that removes the temporary directories of dead shims: a removal may take long."""
        attempts = emptiness.orphaned(questions) if questions else []
        left = [attempt for attempt in attempts if temp_cleanup.has_temp_dir(*attempt)]
        if not left:
            return
        try:
            pid = os.fork()
        except OSError:
            return  # no process to be had now
        if pid == 0:
            self._forget()
            temp_cleanup.remove_and_exit(left)

    def _tell_containment(self) -> None:
        root = self._sweeper.root
        self._orders.send(ContainmentFound(word=root.kind, enforces=tuple(root.enforces)))


def serve(fd: int, mode: str) -> int:
    """Serve the order socket `fd` until its other end is closed; 0."""
    try:
        os.setsid()  # out of the terminal's foreground group
    except PermissionError:
        pass  # the daemon has started us in a session of our own
    sweeper = CgroupSweeper(cgroup_root.prepare(mode))
    sweeper.sweep()
    launcher = Launcher(OrderSocket(fd), sweeper)
    child.set_name(_TITLE)
    gc.collect()
    gc.freeze()  # what is shared with every shim is never touched by a collection there
    try:
        launcher.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the daemon went away while we answered
    launcher.clear_away()
    sweeper.sweep()
    sweeper.close()
    return 0
