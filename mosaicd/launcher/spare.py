"""A shim forked ahead: it has left the launcher behind and waits for its order, so no run waits for a fork.

The launcher passes the order on unread; what waits here holds nothing of any run.  A spare ends with its
launcher, whose end of the channel no other process may keep open.
"""

import os
import select
import socket
from collections.abc import Callable

from mosaicd.launcher.orders import OrderSocket, Packet
from mosaicd.shim import child, life
from mosaicd.shim.run_cgroup import CgroupRoot
from mosaicd.shim.signal_pipe import SignalPipe

_TITLE = "mosaic-spare"
_CRASHED = 70


class Spare:
    """The launcher's side: one child that waits."""

    def __init__(self, forget: Callable[[], None], root: CgroupRoot) -> None:
        """Fork it; OSError when there is no process to be had.  `forget` gives up what is the launcher's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._channel = OrderSocket(ours.detach())
            try:
                self.pid = os.fork()
            except OSError:
                self._channel.close()
                raise
            if self.pid == 0:
                self._channel.close()
                forget()
                _become(OrderSocket(theirs.detach()), root)

    def hand(self, packet: Packet) -> bool:
        """Pass the order on; False when the spare has gone."""
        try:
            self._channel.pass_on(packet)
        except OSError:
            return False
        finally:
            self._channel.close()
        return True

    def close(self) -> None:
        """Let it go."""
        self._channel.close()


def _become(channel: OrderSocket, root: CgroupRoot) -> None:
    """Wait, carry out, and end: nothing of the parent's clean-up may happen here."""
    status = _CRASHED
    try:
        signals = life.leave_launcher()
        child.set_name(_TITLE)
        packet = _await(channel, signals)
        channel.close()
        order_fd = packet.fd if packet is not None else None
        status = life.carry_out(order_fd, signals, root) if order_fd is not None else 0
    finally:
        os._exit(status)


def _await(channel: OrderSocket, signals: SignalPipe) -> Packet | None:
    """Return the packet of the order, or None when the launcher has gone or we are told to."""
    poll = select.poll()
    poll.register(channel.fd, select.POLLIN)
    poll.register(signals.fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if signals.fd in ready:
            signals.drain()
            if signals.take_term():
                return None
        if channel.fd in ready:
            return channel.receive()
