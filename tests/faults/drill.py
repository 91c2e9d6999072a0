"""The kill drill: a random workload, kills and restarts; then every guarantee is checked.

    python -m tests.faults.drill --kills 10000 --seed 7

prints its progress and one line of figures at the end. If a guarantee is broken, it prints the faults and the
directory with the evidence, and exits with 1.
Note: a harness takes few kills (`KILLS_A_HARNESS`) on purpose, so that every guarantee is checked often and a
failure comes with a short ledger.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from mosaicctl.client import Disconnected, NoDaemon
from mosaicd import crash_points
from mosaicd.protocol.errors import MosaicError
from tests.faults import drill_plan, smalldisk, verdicts, worker_verdicts
from tests.faults.clients import CALL_TIMEOUT_S, Notebook, Submitter, Watcher
from tests.faults.drill_harness import CPUS, GPUS, DrillHarness
from tests.faults.drill_plan import FailingWrites, Life
from tests.faults.ledger import LOST, REUSED, TWICE, Ledger
from tests.faults.zygote import Zygote
from tests.harness.waiting import wait_until

KILLS_A_HARNESS = 200
CHECK_KILLS = 25
CLIENTS = 3
SETTLE_S = 60.0
PROGRESS_EVERY_S = 10.0


class Drill:
    """One harness, its clients, and a number of kills."""

    def __init__(self, seed: str, kills: int, zygote: Zygote, on_small_disk: bool = False) -> None:
        self.seed = seed
        self._kills = kills
        self.harness = DrillHarness(zygote, on_small_disk)
        notes = self.harness.home / "notes"
        notes.mkdir()
        self.book = Notebook(self.harness.socket, notes)
        self.ledger = Ledger(self.harness.state_dir / "registry.sqlite3", CPUS)
        self.clients = [Submitter(self.book, f"{seed}/{number}") for number in range(CLIENTS)]
        self.watcher = Watcher(self.book)
        self.kills: Counter[str] = Counter()
        self.squeezes: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lives = 0

    # --- kills ---------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Do the requested number of kills; return the broken guarantees."""
        for thread in (*self.clients, self.watcher):
            thread.start()
        since_check = 0
        while self.kills.total() < self._kills and not self.wrong and not self.book.wrong:
            before = self.kills.total()
            self._live(drill_plan.life(self.seed, self._lives))
            self._lives += 1
            since_check += self.kills.total() - before
            if since_check >= CHECK_KILLS:
                since_check = 0
                self._check_quietly()
        self._settle()
        return self.wrong + self.book.wrong

    def _live(self, life: Life) -> None:
        """Start the daemon, do what `life` says until the daemon ends, and compare what it committed."""
        self.book.log("drill", "life", life.number, life.crash_at, life.victim)
        may_refuse = self.harness.is_squeezed
        answered = self.book.acknowledged.total()
        self.harness.begin(life.crash_at)
        if life.is_answered:
            self._await_answer(answered)
        if life.failing_writes is not None:
            may_refuse = self._squeeze(life.failing_writes) or may_refuse
        if life.crash_at is not None:
            self._await_crash(life.crash_at, life, may_refuse)
        else:
            self._end_life(life, may_refuse)
        if life.failing_writes is None or not life.failing_writes.outlasts:
            self.harness.lift()
        if not self.harness.is_squeezed:
            self._compare()

    def _await_answer(self, before: int) -> None:
        """Wait until a client gets an answer, the daemon ends, or ANSWER_S has passed."""
        end = time.monotonic() + drill_plan.ANSWER_S
        assert self.harness.process is not None
        while self.book.acknowledged.total() == before and time.monotonic() < end:
            if _elapse(self.harness.process, 0.005):
                return

    def _work(self, seconds: float, answers: int) -> None:
        """Wait until the time has passed and the clients have that many more answers, or the daemon ends."""
        began, goal = time.monotonic(), self.book.acknowledged.total() + answers
        most_s = max(seconds, drill_plan.MOST_LIFE_S)
        assert self.harness.process is not None
        while (passed_s := time.monotonic() - began) < most_s:
            if passed_s >= seconds and self.book.acknowledged.total() >= goal:
                return
            if _elapse(self.harness.process, min(0.01, max(seconds - passed_s, 0.001))):
                return

    def _squeeze(self, failing_writes: FailingWrites) -> bool:
        """Let writes fail for a while; return whether a process or the disk was limited."""
        assert self.harness.process is not None
        _elapse(self.harness.process, failing_writes.after_s)
        whose = self.harness.squeeze(failing_writes)
        self.book.log("drill", "squeeze", whose, failing_writes.leave_bytes)
        self.squeezes[whose or "none"] += 1
        _elapse(self.harness.process, failing_writes.holds_s)
        if not failing_writes.outlasts:
            self.harness.lift()
            self.book.log("drill", "lift")
        return whose is not None

    def _end_life(self, life: Life, may_refuse: bool) -> None:
        assert self.harness.process is not None
        self._work(life.kill_after_s, life.answers)
        if life.victim == "launcher":
            self._kill_launcher()
        elif life.victim == "shim":
            self._kill_shim(life.pick)
        if life.victim:
            _elapse(self.harness.process, life.linger_s)
        self._kill_daemon(may_refuse)

    def _await_crash(self, spec: str, life: Life, may_refuse: bool) -> None:
        process = self.harness.process
        assert process is not None
        point = spec.partition(":")[0]
        self._work(life.patience_s, life.answers)
        code = process.poll()
        if code is None:  # the point was not reached, or a child died there (`_settle` counts that)
            self._kill_daemon(may_refuse)
        elif code != -signal.SIGKILL:
            self._ended_by_itself(code, may_refuse, f"a daemon with {spec}")
        else:
            self._count_kill(point)

    def _kill_daemon(self, may_refuse: bool = False) -> None:
        process = self.harness.process
        assert process is not None
        if (code := process.poll()) is not None:
            self._ended_by_itself(code, may_refuse, "the daemon")
            return
        self.harness.kill()
        self._count_kill("daemon")

    def _ended_by_itself(self, code: int, may_refuse: bool, process: str) -> None:
        """Count a daemon that ended by itself: a fault, unless it could not write and exited with 2."""
        self.seen["starts_refused"] += 1
        if code != 2 or not may_refuse:
            self.wrong.append(f"{process} ended by itself with {code}")

    def _count_kill(self, place: str) -> None:
        self.kills[place] += 1
        self.book.log("drill", "killed", place)

    def _kill_launcher(self) -> None:
        try:
            os.kill(self.harness.launcher_pid(), signal.SIGKILL)
        except (AssertionError, OSError):
            return
        self._count_kill("launcher")

    def _kill_shim(self, pick: float) -> None:
        shims = self.harness.shims_only()
        if not shims:
            return
        try:
            os.kill(shims[int(pick * len(shims))], signal.SIGKILL)
        except ProcessLookupError:
            return
        self._count_kill("shim")

    # --- checks --------------------------------------------------------------------------------------

    def _check_quietly(self) -> None:
        """Start the daemon without faults, and check that released runs have no process and no slot."""
        self.harness.lift()
        self.harness.start()
        self._compare()
        self.wrong += worker_verdicts.of_released(self.harness)
        self._kill_daemon()

    def _compare(self) -> None:
        """Fold the new events, and compare them with the rows, the slots and the replies to clients."""
        replies = [self.book.replies.popleft() for _ in range(len(self.book.replies))]
        self.wrong += self.ledger.read()
        self.wrong += [fault for run in replies if (fault := self.ledger.contradiction(run))]

    def _settle(self) -> None:
        """Let every run end, and check every guarantee."""
        self.harness.lift()
        self.harness.start()
        self.book.pause.set()
        clients, parked_s = self.clients, CALL_TIMEOUT_S + 30
        wait_until(lambda: all(client.is_parked for client in clients), bool, "clients park", parked_s)
        try:
            verdicts.let_all_end(self.harness, SETTLE_S)
        except (AssertionError, MosaicError, NoDaemon, Disconnected) as error:
            self.wrong.append(f"not everything ended: {error}")
        self._compare()
        self.wrong += verdicts.of_runs(self.ledger, self.book.notes, self.harness)
        wrong, figures = worker_verdicts.of_workers(
            self.ledger, self.book.notes, self.harness, self.book.fresh
        )
        self.wrong += wrong
        self.seen.update(figures)
        self.wrong += verdicts.of_watcher(self.watcher, self.ledger)
        self.book.over.set()
        for thread in (*self.clients, self.watcher):
            thread.join(30)
        self.wrong += verdicts.of_harness(self.harness, CPUS, GPUS, bool(self.squeezes))
        for who, count in self.harness.seen_killed().items():
            self.seen[f"{who}s_seen_killed"] = count

    def abandon(self, error: BaseException) -> None:
        """End all processes, and print where the evidence is, unless the user interrupted the drill."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        self.book.over.set()
        self.harness.end_all()
        if isinstance(error, KeyboardInterrupt):
            self.harness.remove()
            return
        self.wrong.append(f"the drill itself: {error!r}")
        print("\n".join([*self.wrong, *self.book.wrong, *self.close()]), flush=True)

    def close(self) -> list[str]:
        """Remove the harness; if there are faults, keep its files and return lines that name them."""
        wrong = self.wrong + self.book.wrong
        if not wrong:
            self.harness.remove()
            return []
        journal = self.harness.home / "operations.jsonl"
        lines = [json.dumps(list(entry), default=str) for entry in self.book.journal]
        journal.write_text("\n".join(lines) + "\n")
        kept = self.harness.keep()
        self.harness.remove(keeps_files=True)
        return [
            f"seed {self.seed}, life {self._lives - 1}", f"state directory: {kept}",
            f"daemon: {self.harness.log}", f"programs' notes: {self.book.notes}", f"operations: {journal}",
        ]  # fmt: skip


def _elapse(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Wait until the time has passed or the process ends; return whether the process has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


class Tally:
    """The figures of all harnesses of one drill."""

    def __init__(self, seed: int, wanted: int) -> None:
        self._seed = seed
        self._wanted = wanted
        self._began = time.monotonic()
        self._printed = self._began
        self.kills: Counter[str] = Counter()
        self._squeezes: Counter[str] = Counter()
        self._acknowledged: Counter[str] = Counter()
        self._figures: Counter[str] = Counter()
        self.wrong: list[str] = []

    @property
    def harnesses(self) -> int:
        """Return how many harnesses have ended."""
        return self._figures["harnesses"]

    def add(self, drill: Drill) -> None:
        """Add the figures of a harness that has ended."""
        self.kills.update(drill.kills)
        self._squeezes.update(drill.squeezes)
        self._acknowledged.update(drill.book.acknowledged)
        self._figures.update(
            runs=len(drill.ledger.revisions), events=len(drill.ledger.seqs), requests=drill.book.requests,
            watcher_reconnects=drill.watcher.reconnects, harnesses=1, **drill.seen,
        )  # fmt: skip
        self.wrong += drill.wrong + drill.book.wrong

    def print_progress(self) -> None:
        """Print the progress, at most every PROGRESS_EVERY_S."""
        if time.monotonic() - self._printed > PROGRESS_EVERY_S:
            self._printed = time.monotonic()
            took_s, kills = self._printed - self._began, self.kills.total()
            print(
                f"{kills} of {self._wanted} kills in {took_s:.0f} s, {self._figures['runs']} runs, "
                f"{self._acknowledged.total()} requests acknowledged, {len(self.wrong)} broken guarantees",
                flush=True,
            )

    def summary(self) -> dict[str, Any]:
        """Return all figures, which are printed as one line."""
        by_kind: Counter[str] = Counter()
        for name, count in self.kills.items():
            by_kind["crash_point" if name in crash_points.POINTS else name] += count
        counted = {"lost": LOST, "double_starts": TWICE, "reused_ids": REUSED}
        return {
            "seed": self._seed, "kills": self.kills.total(), "by_kind": dict(sorted(by_kind.items())),
            "acknowledged": dict(sorted(self._acknowledged.items())),
            **{name: sum(tag in text for text in self.wrong) for name, tag in counted.items()},
            "broken_guarantees": len(self.wrong), "seconds": round(time.monotonic() - self._began, 1),
            "failing_writes": dict(sorted(self._squeezes.items())), **dict(sorted(self._figures.items())),
            "at_points": {name: n for name, n in sorted(self.kills.items()) if name in crash_points.POINTS},
        }  # fmt: skip


def run_drills(seed: int, kills: int) -> tuple[list[str], dict[str, Any]]:
    """Drill with one harness after another; return the broken guarantees and the figures."""
    has_disk = _can_mount()  # before the zygote, so that the daemons see the mounts
    zygote = Zygote()
    tally = Tally(seed, kills)
    evidence: list[str] = []
    try:
        while tally.kills.total() < kills and not tally.wrong:
            remaining = kills - tally.kills.total()
            drill = Drill(f"{seed}/{tally.harnesses}", min(KILLS_A_HARNESS, remaining), zygote, has_disk)
            try:
                drill.run()
            except BaseException as error:
                drill.abandon(error)
                raise
            tally.add(drill)
            evidence = drill.close()
            tally.print_progress()
    finally:
        zygote.close()
    return evidence + tally.wrong, tally.summary()


def _can_mount() -> bool:
    try:
        smalldisk.enter_namespace()
    except pytest.skip.Exception:
        return False
    return True


def main() -> int:
    """Run the drill with the options of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="kill mosaicd at random and check its guarantees")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}", flush=True)
    threading.excepthook = _report_and_end
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGUSR1, _raise_thread_ended)
    try:
        wrong, figures = run_drills(seed, options.kills)
    except KeyboardInterrupt:
        print("interrupted; everything is removed")
        return 128 + signal.SIGINT
    print("\n".join(wrong[:50]))
    print(json.dumps(figures), flush=True)
    return 1 if wrong else 0


def _report_and_end(hook: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(hook)
    os.kill(os.getpid(), signal.SIGUSR1)


def _raise_thread_ended(number: int, frame: Any) -> None:
    raise AssertionError("a client or the watcher has ended; see above")


if __name__ == "__main__":
    sys.exit(main())
