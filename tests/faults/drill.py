"""The kill drill: a random workload, a kill, a restart, again and again; then every promise is looked at.

    python -m tests.faults.drill --kills 10000 --seed 7

prints the seed first and the figures last, and leaves with 1 and the broken promises when there are any.  A
reader would get wrong: houses are small (`HOUSE_KILLS`) on purpose, so that every promise is looked at often,
and a failure comes with a ledger that can be read.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

from mosaicctl.client import Disconnected, NoDaemon
from mosaicd import crash_points
from mosaicd.protocol.errors import MosaicError
from tests.daemon.house import House, eventually
from tests.faults import verdicts
from tests.faults.clients import Notebook, Submitter, Watcher
from tests.faults.ledger import Ledger
from tests.faults.zygote import Zygote

HOUSE_KILLS = 200
CHECK_KILLS = 25
CLIENTS = 3
CPUS, GPUS = 6, 2
SETTINGS: dict[str, dict[str, Any]] = {
    "cpus": {"slots": CPUS},
    "gpus": {"static": GPUS},
    "timeouts": {"grace_s": 0.3, "handshake_s": 10.0, "empty_retry_s": 0.02},
    "retries": {"backoff_s": 0.01, "backoff_max_s": 0.05},
    "registry": {"checkpoint_interval_s": 0.2},
    "limits": {"connections_per_user": 2000},
}
#: How long a daemon with a crash point may live before it is killed anyway.
PATIENCE_S = 0.5
SETTLE_S = 40.0


def big_tmp() -> str | None:
    """Where state directories go: memory, where there is any; a kill does not ask for the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class DrillHouse(House):
    """A house whose daemon comes from the zygote, and may be told where to crash."""

    def __init__(self, home: Path, zygote: Zygote) -> None:
        super().__init__(home, SETTINGS)
        self._zygote = zygote

    def begin(self, crash_at: str | None = None) -> None:
        """Start the daemon and do not wait for anything."""
        places = {"--state-dir": self.state_dir, "--socket": self.socket, "--config": self.config}
        argv = [str(word) for place in places.items() for word in place]
        forked = self._zygote.start([*argv, "--log-level", "info"], self.log, self.home, crash_at)
        self.process = cast("subprocess.Popen[bytes]", forked)  # it has that face

    def told(self) -> str:
        """Return the daemons' log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start the daemon and return when it answers everybody."""
        self.begin()
        eventually(self._ready, lambda answer: answer is True, "the daemon is ready")


class Drill:
    """One house, its clients, and so many kills."""

    def __init__(self, seed: str, kills: int, zygote: Zygote) -> None:
        self.seed = seed
        self._kills = kills
        self._dice = random.Random(seed)
        self.house = DrillHouse(Path(tempfile.mkdtemp(prefix="mosaic-drill-", dir=big_tmp())), zygote)
        notes = self.house.home / "notes"
        notes.mkdir()
        self.book = Notebook(self.house.socket, notes)
        self.ledger = Ledger(self.house.state_dir / "registry.sqlite3", CPUS)
        self.clients = [Submitter(self.book, f"{seed}/{number}") for number in range(CLIENTS)]
        self.watcher = Watcher(self.book)
        self.kills: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    # --- kills ---------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Kill as often as asked for; return the broken promises."""
        for thread in (*self.clients, self.watcher):
            thread.start()
        since_check = 0
        while self.kills.total() < self._kills and not self.wrong and not self.book.wrong:
            before = self.kills.total()
            self._life()
            since_check += self.kills.total() - before
            if since_check >= CHECK_KILLS:
                since_check = 0
                self._look()
        self._settle()
        return self.wrong + self.book.wrong

    def _life(self) -> None:
        """One life of the daemon."""
        dice = self._dice
        kind = dice.random()
        if kind < 0.6:
            point = dice.choice(sorted(crash_points.POINTS))
            counts = range(1, 21) if point.startswith("record.") else (1, 1, 2, 3)
            self._crash_at(f"{point}:{dice.choice(counts)}")
            return
        self.house.begin()
        time.sleep(dice.uniform(0, 0.25))
        if kind < 0.75:
            self._kill_launcher()
            time.sleep(dice.uniform(0, 0.1))
        elif kind < 0.9:
            self._kill_shim()
            time.sleep(dice.uniform(0, 0.1))
        self._kill_daemon("daemon at a random moment")

    def _crash_at(self, spec: str) -> None:
        self.house.begin(spec)
        process = self.house.process
        assert process is not None
        code: int | None
        try:
            code = process.wait(PATIENCE_S if not crash_points.is_forked(spec) else 0.25)
        except subprocess.TimeoutExpired:
            code = process.poll()
        if code is None:
            self.house.kill()
            self.kills["daemon at a random moment"] += 1  # or at the point after all: it is -9 either way
            return
        if code != -signal.SIGKILL:
            self.wrong.append(f"a daemon with {spec} ended with {code}")
        self.kills["daemon at " + spec.partition(":")[0]] += 1

    def _kill_daemon(self, how: str) -> None:
        process = self.house.process
        assert process is not None
        if process.poll() is not None:
            self.wrong.append(f"the daemon ended by itself with {process.returncode}")
        self.house.kill()
        self.kills[how] += 1

    def _kill_launcher(self) -> None:
        try:
            pid = self.house.launcher_pid()
            os.kill(pid, signal.SIGKILL)
        except (AssertionError, OSError):
            return
        self.kills["launcher"] += 1

    def _kill_shim(self) -> None:
        assert self.house.process is not None
        shims = [pid for pid in self.house.shims() if pid != self.house.process.pid]  # it reads there too
        if not shims:
            return
        pid = self._dice.choice(shims)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills["shim"] += 1

    # --- looks ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """A clean life in which the ledger is folded and compared."""
        self.house.start()
        self._compare()
        self._kill_daemon("daemon at a random moment")

    def _compare(self) -> None:
        told, self.book.told = self.book.told, []
        time.sleep(0.02)  # a client that took hold of the old list has appended by now
        self.wrong += self.ledger.read()
        self.wrong += [fault for run in told if (fault := self.ledger.contradicts(run))]

    def _settle(self) -> None:
        """Let everything end, and look at all of it."""
        self.house.start()
        self.book.pause.set()
        eventually(lambda: all(client.is_parked for client in self.clients), bool, "the clients pause", 30)
        try:
            verdicts.let_all_end(self.house, SETTLE_S)
        except (AssertionError, MosaicError, NoDaemon, Disconnected) as error:
            self.wrong.append(f"not everything ended: {error}")
        self._compare()
        self.wrong += verdicts.of_runs(self.ledger, self.book.notes, self.house)
        self.wrong += verdicts.of_watcher(self.watcher, self.ledger)
        self.book.over.set()
        for thread in (*self.clients, self.watcher):
            thread.join(30)
        self.wrong += verdicts.of_house(self.house, CPUS, GPUS)
        told = self.house.told()
        self.seen["shims_seen_killed"] = len(re.findall(r"shim \d+ of run \w+ left with -9", told))
        self.seen["launchers_seen_killed"] = len(re.findall(r"the launcher ended \(-9\)", told))

    def close(self) -> None:
        """Remove the house, unless there is something to be seen in it."""
        if not self.wrong and not self.book.wrong:
            shutil.rmtree(self.house.home, ignore_errors=True)


def drill(seed: int, kills: int) -> tuple[list[str], dict[str, Any]]:
    """Drill in one house after the other; return the broken promises and the figures."""
    zygote = Zygote()
    began = time.monotonic()
    totals: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    wrong: list[str] = []
    number = 0
    try:
        while totals.total() < kills and not wrong:
            one = Drill(f"{seed}/{number}", min(HOUSE_KILLS, kills - totals.total()), zygote)
            wrong = [f"[seed {one.seed}, {one.house.home}] {fault}" for fault in one.run()]
            totals.update(one.kills)
            figures.update(
                runs=len(one.ledger.revisions), events=len(one.ledger.seqs), requests=one.book.requests,
                watcher_reconnects=one.watcher.reconnects, houses=1, **one.seen,
            )  # fmt: skip
            one.close()
            number += 1
    finally:
        zygote.close()
    took_s = round(time.monotonic() - began, 1)
    return wrong, {
        "seed": seed, "kills": totals.total(), "took_s": took_s, **figures,
        "at_points": sum(n for name, n in totals.items() if name.startswith("daemon at ") and "." in name),
        "by_kind": dict(sorted(totals.items())),
    }  # fmt: skip


def main() -> int:
    """Drill as the command line says."""
    parser = argparse.ArgumentParser(description="kill mosaicd again and again and see what it forgets")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}", flush=True)
    threading.excepthook = _say_and_leave
    wrong, figures = drill(seed, options.kills)
    print(json.dumps(figures), flush=True)
    print("\n".join(wrong[:50]))
    return 1 if wrong else 0


def _say_and_leave(hook: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(hook)
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
