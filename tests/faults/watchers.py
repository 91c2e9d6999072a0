"""Many cheap watchers in one process: `watchers.py SOCKET COUNT SEED EVENTS_A_CONNECTION`.

Each watcher follows the ledger from its cursor, disconnects at random, connects again (also after a restart
of the daemon), and keeps every received seq and a checksum of all received events.  A line with a number on
stdin is the last seq of the ledger.  When all watchers have reached it, the process prints one line of JSON:
what each watcher has received.
"""

import array
import json
import random
import re
import selectors
import socket
import sys
import time
import zlib

EVENT = re.compile(
    rb'\{"jsonrpc":"2.0","method":"run.event","params":\{"subscription":\d+,("seq":(\d+),[^\n]*)\}\n'
)
READ_BYTES = 1 << 18


class Watcher:
    """One watching client."""

    def __init__(self, path: str, rng: random.Random, events_a_connection: int, is_slow: bool) -> None:
        self.path = path
        self.rng = rng
        self.events_a_connection = events_a_connection
        self.read_bytes = 4096 if is_slow else READ_BYTES
        self.pause_s = 0.02 if is_slow else 0.0
        self.ready_at = 0.0
        self.seqs = array.array("Q")
        self.checksum = 0
        self.cursor = 0
        self.connections = self.gaps = self.remaining = 0
        self.rest = b""
        self.link: socket.socket | None = None

    def try_connect(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(self.path)
            params = {"since": self.cursor}
            message = {"jsonrpc": "2.0", "id": 1, "method": "run.watch", "params": params}
            link.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            link.close()
            return None
        link.setblocking(False)
        self.link, self.rest = link, b""
        self.connections += 1
        self.remaining = self.rng.randrange(1, self.events_a_connection)
        return link

    def try_read(self) -> bool:
        """Read the waiting bytes; return whether the connection stays open."""
        assert self.link is not None
        try:
            data = self.link.recv(self.read_bytes)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        data = self.rest + data
        end = data.rfind(b"\n") + 1
        lines, self.rest = data[:end], data[end:]
        # A slow watcher receives a gap; it connects again, and its cursor gets it the missed events.
        gap = lines.find(b'"method":"run.gap"')
        if gap >= 0:
            self.gaps += 1
            lines = lines[: lines.rfind(b"\n", 0, gap) + 1]
        for event in EVENT.finditer(lines):
            self.cursor = int(event[2])
            self.seqs.append(self.cursor)
            self.checksum = zlib.crc32(event[1], self.checksum)
            self.remaining -= 1
            if not self.remaining:
                return False
        return gap < 0


def main() -> None:
    path, count, seed, events_a_connection = sys.argv[1], *map(int, sys.argv[2:5])
    rng = random.Random(seed)
    poll = selectors.DefaultSelector()
    poll.register(sys.stdin, selectors.EVENT_READ)
    disconnected = {Watcher(path, rng, events_a_connection, number % 10 == 9) for number in range(count)}
    watchers = list(disconnected)
    last = None
    while last is None or any(watcher.cursor < last for watcher in watchers):
        for watcher in list(disconnected):
            if link := watcher.try_connect():
                disconnected.discard(watcher)
                poll.register(link, selectors.EVENT_READ, watcher)
        for key, _ in poll.select(0.01 if disconnected else 0.2):
            watcher = key.data
            if watcher is None:
                line = sys.stdin.readline()
                last = int(line) if line.strip() else 0
                poll.unregister(sys.stdin)
                continue
            if watcher.ready_at > time.monotonic():
                continue  # a slow watcher pauses between reads
            watcher.ready_at = time.monotonic() + watcher.pause_s if watcher.pause_s else 0.0
            if not watcher.try_read():
                poll.unregister(watcher.link)
                watcher.link.close()
                disconnected.add(watcher)
    received = [
        {
            "last": watcher.cursor, "count": len(watcher.seqs), "checksum": watcher.checksum,
            "is_rising": all(a < b for a, b in zip(watcher.seqs, watcher.seqs[1:], strict=False)),
            "connections": watcher.connections, "gaps": watcher.gaps,
        }
        for watcher in watchers
    ]  # fmt: skip
    print(json.dumps(received), flush=True)


if __name__ == "__main__":
    main()
