"""The launcher's loop: fork a shim for each order, reap shims, check whether process trees are empty.

A fork takes 1 to 2 ms, so one shim is forked in advance when no order waits (see `spare`).  The launcher has
one thread, so a fork never copies a half-finished change.  Only the child reads the content of an order: the
launcher never has the secrets of a run.  TERM and the end of the order socket end the launcher after the
current order; its shims stay alive.  INT and HUP, which a terminal sends to all its processes, do nothing.
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
_ORDERS_PER_ROUND = 64
_REMOVAL_RETRY_MS = 500
_IDLE_MS = 10  # time without orders before a spare is forked, so that the fork does not delay runs


class Launcher:
    """The order socket, the spare, and the shims that are forked and not yet reaped."""

    def __init__(self, orders: OrderSocket, sweeper: CgroupSweeper) -> None:
        self._orders = orders
        self._sweeper = sweeper
        self._cgroups_to_remove: set[str] = set()
        self._shims: dict[int, ForkShim] = {}
        self._spare: Spare | None = None
        self._is_leaving = False
        self._signals = SignalPipe()

    def run(self) -> None:
        """Serve until the daemon closes the order socket or SIGTERM arrives."""
        poll = select.poll()
        poll.register(self._orders.fd, select.POLLIN)
        poll.register(self._signals.fd, select.POLLIN)
        self._report_containment()
        while not self._is_leaving:
            retry_ms = _REMOVAL_RETRY_MS if self._cgroups_to_remove else None
            ready = dict(poll.poll(retry_ms if self._spare else _IDLE_MS))
            if not ready and self._spare is None:
                self._fork_spare()
            elif not ready:
                self.remove_cgroups()
            if self._signals.fd in ready:
                self._signals.drain()
                self._is_leaving = self._signals.take_term()
                self._reap()
            if self._orders.fd in ready:
                self._read_orders()

    def _read_orders(self) -> None:
        """Carry out the waiting orders; the checks of process trees share one survey at the end."""
        checks: list[CheckTree] = []
        for _ in range(_ORDERS_PER_ROUND):
            try:
                packet = self._orders.receive()
            except BlockingIOError:
                break
            if packet is None:
                self._is_leaving = True
                break
            order = packet.order()
            if isinstance(order, CheckTree):
                checks.append(order)
                packet.close()
            else:
                self._fork(order, packet)
        if checks and not self._is_leaving:
            self._reply_to_checks(checks)

    def _reply_to_checks(self, checks: list[CheckTree]) -> None:
        """Reply to each check; remove control groups and temporary directories of empty process trees."""
        replies = emptiness.answer(checks, self._sweeper)
        for reply in replies:
            self._orders.send(reply)
        empty_ids = {reply.id for reply in replies if reply.empty}
        empty_checks = [check for check in checks if check.id in empty_ids]
        self._cgroups_to_remove |= {
            name_of(check.run_id, check.attempt) for check in empty_checks if check.attempt is not None
        }
        self._remove_temp_dirs(empty_checks)

    def _fork(self, order: ForkShim | UnknownOrder, packet: Packet) -> None:
        if packet.fd is None or isinstance(order, UnknownOrder):
            packet.close()
            self._orders.send(ForkFailed(id=order.id, error="not an order with a descriptor"))
            return
        crash_points.reach("launcher.order_taken")
        try:
            pid = self._try_spare(packet) or self._fork_for(packet.fd)
        except OSError as error:  # no free process; the daemon tries again later
            packet.close()
            error_text = error.strerror or str(error)
            self._orders.send(ForkFailed(id=order.id, error=error_text, errno=error.errno))
            return
        crash_points.reach("launcher.forked")
        packet.close()
        self._shims[pid] = order
        self._orders.send(Launched(id=order.id, pid=pid, start_ticks=procfs.read_start_ticks(pid)))

    def _try_spare(self, packet: Packet) -> int | None:
        spare, self._spare = self._spare, None
        return spare.pid if spare is not None and spare.try_pass_order(packet) else None

    def _fork_for(self, order_fd: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._close_in_child()
            life.carry_out_and_exit(order_fd, self._signals, self._sweeper.root)
        return pid

    def _fork_spare(self) -> None:
        try:
            self._spare = Spare(self._close_in_child, self._signals, self._sweeper.root)
        except OSError:
            pass  # no free process: the next order or idle time tries again

    def _close_in_child(self) -> None:
        """Close the launcher's descriptors, in a forked child; signals come through a pipe of its own."""
        self._signals.renew()
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
                self._cgroups_to_remove.add(name_of(order.run_id, order.attempt))
                self.remove_cgroups()
                self._orders.send(Reaped(pid=pid, run_id=order.run_id, attempt=order.attempt, status=status))

    def remove_cgroups(self) -> None:
        """Remove the control groups of ended attempts; a group stays while a shim is in it."""
        self._cgroups_to_remove = {name for name in self._cgroups_to_remove if not self._sweeper.remove(name)}

    def _remove_temp_dirs(self, checks: list[CheckTree]) -> None:
        """Fork a child that removes the temporary directories of dead shims: a removal may take long."""
        attempts = emptiness.attempts_without_shim(checks) if checks else []
        with_temp_dir = [attempt for attempt in attempts if temp_cleanup.has_temp_dir(*attempt)]
        if not with_temp_dir:
            return
        try:
            pid = os.fork()
        except OSError:
            return  # no free process: upkeep removes the directories later
        if pid == 0:
            self._close_in_child()
            temp_cleanup.remove_and_exit(with_temp_dir)

    def _report_containment(self) -> None:
        root = self._sweeper.root
        self._orders.send(ContainmentFound(kind=root.kind, enforces=tuple(root.enforces)))


def serve(fd: int, mode: str) -> int:
    """Serve the order socket `fd` until its other end is closed; return the exit status 0."""
    try:
        os.setsid()  # leave the foreground group of the terminal
    except PermissionError:
        pass  # the daemon has started this process in its own session
    sweeper = CgroupSweeper(cgroup_root.prepare(mode))
    sweeper.sweep()
    launcher = Launcher(OrderSocket(fd), sweeper)
    child.set_name(_TITLE)
    gc.collect()
    gc.freeze()  # so that a collection in a shim does not copy shared pages
    try:
        launcher.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the daemon ended during a reply
    launcher.remove_cgroups()
    sweeper.sweep()
    sweeper.close()
    return 0
