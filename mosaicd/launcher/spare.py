"""The spare: a shim that is forked in advance and waits for its order, so that no run waits for a fork.

The launcher passes the order on unread.  A waiting spare contains no data of a run.  It ends with its
launcher, so no other process may keep the launcher's end of the channel open.
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
    """The launcher's side of a spare: its pid and the channel to it."""

    def __init__(self, close_in_child: Callable[[], None], signals: SignalPipe, root: CgroupRoot) -> None:
        """Fork the spare; raise OSError if there is no free process or descriptor.

        `close_in_child` closes the launcher's descriptors and calls `signals.renew()`.
        The child never returns.
        """
        launcher_end, spare_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with spare_end:
            self._channel = OrderSocket(launcher_end.detach())
            try:
                self.pid = os.fork()
            except OSError:
                self._channel.close()
                raise
            if self.pid == 0:
                self._channel.close()
                close_in_child()
                _run_spare(OrderSocket(spare_end.detach()), signals, root)

    def try_pass_order(self, packet: Packet) -> bool:
        """Pass the order on and close the channel; return False if the spare has ended."""
        try:
            self._channel.pass_on(packet)
        except OSError:
            return False
        finally:
            self._channel.close()
        return True

    def close(self) -> None:
        """Close the channel; the spare then exits."""
        self._channel.close()


def _run_spare(channel: OrderSocket, signals: SignalPipe, root: CgroupRoot) -> None:
    """Wait for an order, carry it out, and exit without the clean-up of the launcher's code."""
    status = _CRASHED
    try:
        life.leave_launcher()
        child.set_name(_TITLE)
        packet = _wait_for_order(channel, signals)
        channel.close()
        order_fd = packet.fd if packet is not None else None
        status = life.carry_out(order_fd, signals, root) if order_fd is not None else 0
    finally:
        os._exit(status)


def _wait_for_order(channel: OrderSocket, signals: SignalPipe) -> Packet | None:
    """Return the packet of the order; None if the launcher has ended or SIGTERM arrives."""
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
