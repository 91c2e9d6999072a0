"""Many watchers in one process, of few instructions each: `watchers.py SOCKET COUNT SEED EVENTS_A_LIFE`.

Each follows the ledger from its cursor, hangs up at random, comes back (also to a daemon that is away for
a while) and keeps every seq it was told and a checksum of all it was told.  A line `N` on stdin says where
the ledger ends; then, when all have got there, one line of JSON tells what each has seen.
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
    """One client."""

    def __init__(self, path: str, rng: random.Random, events_a_life: int, is_slow: bool) -> None:
        self.path = path
        self.rng = rng
        self.events_a_life = events_a_life
        self.read_bytes = 4096 if is_slow else READ_BYTES
        self.pause_s = 0.02 if is_slow else 0.0
        self.ready_at = 0.0
        self.seqs = array.array("Q")
        self.checksum = 0
        self.cursor = 0
        self.lives = self.gaps = self.left = 0
        self.rest = b""
        self.link: socket.socket | None = None

    def connect(self) -> socket.socket | None:
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
        self.lives += 1
        self.left = self.rng.randrange(1, self.events_a_life)
        return link

    def take(self) -> bool:
        """Read what there is; False when this life is over."""
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
        # A gap is what a slow one is told; what it left out is asked for again from the cursor.
        gap = lines.find(b'"method":"run.gap"')
        if gap >= 0:
            self.gaps += 1
            lines = lines[: lines.rfind(b"\n", 0, gap) + 1]
        for found in EVENT.finditer(lines):
            self.cursor = int(found[2])
            self.seqs.append(self.cursor)
            self.checksum = zlib.crc32(found[1], self.checksum)
            self.left -= 1
            if not self.left:
                return False
        return gap < 0


def main() -> None:
    path, count, seed, events_a_life = sys.argv[1], *map(int, sys.argv[2:5])
    rng = random.Random(seed)
    poll = selectors.DefaultSelector()
    poll.register(sys.stdin, selectors.EVENT_READ)
    away = {Watcher(path, rng, events_a_life, number % 10 == 9) for number in range(count)}
    everybody = list(away)
    last = None
    while last is None or any(watcher.cursor < last for watcher in everybody):
        for watcher in list(away):
            if link := watcher.connect():
                away.discard(watcher)
                poll.register(link, selectors.EVENT_READ, watcher)
        for key, _ in poll.select(0.01 if away else 0.2):
            watcher = key.data
            if watcher is None:
                line = sys.stdin.readline()
                last = int(line) if line.strip() else 0
                poll.unregister(sys.stdin)
                continue
            if watcher.ready_at > time.monotonic():
                continue  # a slow one
            watcher.ready_at = time.monotonic() + watcher.pause_s if watcher.pause_s else 0.0
            if not watcher.take():
                poll.unregister(watcher.link)
                watcher.link.close()
                away.add(watcher)
    told = [
        {
            "last": watcher.cursor, "count": len(watcher.seqs), "checksum": watcher.checksum,
            "is_rising": all(a < b for a, b in zip(watcher.seqs, watcher.seqs[1:], strict=False)),
            "lives": watcher.lives, "gaps": watcher.gaps,
        }
        for watcher in everybody
    ]  # fmt: skip
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
