"""The order socket: one JSON object a packet, with at most one descriptor."""

import array
import json
import os
import socket
from typing import NamedTuple

from mosaicd.protocol.records.packets import Message, Order, read_order

PACKET_BYTES = 4096


class Packet(NamedTuple):
    """A packet of the daemon, and its descriptor, which the receiver closes."""

    data: bytes
    fd: int | None

    def order(self) -> Order:
        """Return the order in the packet."""
        return read_order(json.loads(self.data))

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


class OrderSocket:
    """One end of a packet socket: from the launcher to the daemon, or between launcher and spare."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Packet | None:
        """Return the next packet; None if the other end is closed.

        Raises BlockingIOError if no packet waits.
        """
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
        return Packet(data, fds[0] if fds else None)

    def send(self, message: Message) -> None:
        """Send a message to the daemon; raise OSError if its end is closed."""
        self._socket.send(json.dumps(message.to_json(), separators=(",", ":")).encode())

    def pass_on(self, packet: Packet) -> None:
        """Send a packet to the spare unchanged, with its descriptor; raise OSError if the spare has ended."""
        fds = [] if packet.fd is None else [packet.fd]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([packet.data], rights)

    def close(self) -> None:
        self._socket.close()
