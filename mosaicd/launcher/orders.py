"""The order socket: one JSON object a packet, with at most one descriptor."""

import array
import json
import os
import socket
from typing import NamedTuple

from mosaicd.protocol.records.packets import Message, Order, read_order

PACKET_BYTES = 4096


class ReceivedOrder(NamedTuple):
    """One packet of the daemon: the order, and the descriptor that came with it (the receiver closes it)."""

    order: Order
    fd: int | None

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


class OrderSocket:
    """Our end: the launcher's to the daemon, or one of the two between launcher and spare."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def receive(self) -> ReceivedOrder | None:
        """Return the next order; BlockingIOError when none waits, None when the daemon has gone."""
        size = array.array("i").itemsize
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                PACKET_BYTES, socket.CMSG_SPACE(size), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return None
        fds = array.array("i")
        for level, kind, part in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(part[: len(part) - len(part) % size])
        if not data:
            return None
        return ReceivedOrder(read_order(json.loads(data)), fds[0] if fds else None)

    def send(self, packet: Order | Message, fd: int | None = None) -> None:
        """Send a packet, with a descriptor if given; OSError when the other end has gone."""
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self._socket.sendmsg([json.dumps(packet.to_json(), separators=(",", ":")).encode()], rights)

    def close(self) -> None:
        self._socket.close()
