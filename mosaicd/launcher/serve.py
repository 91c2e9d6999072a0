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
from typing import Any

from mosaicd import crash_points, procfs
from mosaicd.launcher import cgroup_root, emptiness
from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.launcher.orders import Order, OrderSocket
from mosaicd.launcher.spare import Spare
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
        self._shims: dict[int, Order] = {}
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
        questions: list[dict[str, Any]] = []
        for _ in range(_ORDERS_A_ROUND):
            try:
                order = self._orders.receive()
            except BlockingIOError:
                break
            if order is None:
                self._is_leaving = True
                break
            if order.content.get("order") == "is_empty":
                questions.append(order.content)
                order.close()
            else:
                self._fork(order)
        if questions and not self._is_leaving:
            empty = set()
            for reply in emptiness.answer(questions, self._sweeper):
                self._orders.send(reply)
                if reply["empty"]:
                    empty.add(reply["id"])
            ended = [one for one in questions if one["id"] in empty and isinstance(one.get("attempt"), int)]
            self._lingering |= {name_of(one["run_id"], one["attempt"]) for one in ended}
            self._remove_temporary(ended)

    def _fork(self, order: Order) -> None:
        content = order.content
        if order.fd is None or content.get("order") not in ("launch", "teardown"):
            order.close()
            self._fail(content, "not an order with a descriptor")
            return
        crash_points.reach("launcher.order_taken")
        try:
            pid = self._hand_to_spare(order) or self._fork_for(order.fd)
        except OSError as error:  # no process to be had now; the daemon tries again later
            order.close()
            self._fail(content, error.strerror or str(error), error.errno)
            return
        crash_points.reach("launcher.forked")
        order.close()
        self._shims[pid] = order
        self._orders.send({
            "reply": "launched", "id": content["id"], "pid": pid,
            "start_ticks": procfs.read_start_ticks(pid),
        })  # fmt: skip

    def _hand_to_spare(self, order: Order) -> int | None:
        spare, self._spare = self._spare, None
        return spare.pid if spare is not None and spare.hand(order) else None

    def _fork_for(self, order_fd: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._forget()
            life.become(order_fd, self._sweeper.root)
        return pid

    def _fork_ahead(self) -> None:
        try:
            self._spare = Spare(self._forget, self._sweeper.root)
        except OSError:
            pass  # no process to be had now: an order, or the next pause, tries again

    def _fail(self, content: dict[str, Any], error: str, number: int | None = None) -> None:
        self._orders.send({"reply": "failed", "id": content.get("id"), "error": error, "errno": number})

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
                self._lingering.add(name_of(order.content["run_id"], order.content["attempt"]))
                self.clear_away()
                self._orders.send({
                    "fact": "reaped", "pid": pid, "run_id": order.content.get("run_id"),
                    "attempt": order.content.get("attempt"), "status": status,
                })  # fmt: skip

    def clear_away(self) -> None:
        """Remove the control groups of ended attempts; a group stays while a shim is in it."""
        self._lingering = {name for name in self._lingering if not self._sweeper.remove(name)}

    def _remove_temporary(self, questions: list[dict[str, Any]]) -> None:
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
        self._orders.send({"fact": "containment", "word": root.kind, "enforces": root.enforces})


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
