"""Every named crash point: a workload reaches the point, the process dies there, and no guarantee is broken.

tests/daemon/test_registry_behind.py covers the points that this workload does not reach (recovery of a stale
registry, pruning of runs).
"""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from mosaicctl.client import Disconnected, NoDaemon
from mosaicd import crash_points
from mosaicd.protocol.errors import MosaicError
from tests.faults.drill import Drill
from tests.faults.zygote import Zygote
from tests.harness.waiting import wait_until

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """Yield the zygote that forks the daemons for all crash points."""
    zygote = Zygote()
    yield zygote
    zygote.close()


class CrashPointDrill(Drill):
    """A drill with one kill, at a given crash point."""

    def crash_at(self, point: str) -> None:
        """Start the daemon with `point` armed, work until a process dies there, and check every guarantee."""
        for thread in (*self.clients, self.watcher):
            thread.start()
        self.harness.begin(point)
        if "teardown" in point:
            self._orphan_process_tree()
        wait_until(lambda: self._has_crashed(point), bool, f"a process dies at {point}", DEADLINE_S)
        if crash_points.is_forked(point):
            self.harness.kill()
        self._settle()
        assert not self.wrong + self.book.wrong, "\n".join(self.wrong + self.book.wrong)

    def _has_crashed(self, point: str) -> bool:
        process = self.harness.process
        assert process is not None
        if not crash_points.is_forked(point):
            return process.poll() == -signal.SIGKILL
        assert process.poll() is None, f"the daemon died before a process reached {point}"
        return self.harness.seen_killed()["launcher" if point.startswith("launcher.") else "shim"] > 0

    def _orphan_process_tree(self) -> None:
        pid = wait_until(
            self._try_start_worker, what="a worker whose shim can be killed", deadline_s=DEADLINE_S
        )
        parent = re.search(r"^PPid:\s(\d+)", _status(pid), re.M)
        assert parent
        os.kill(int(parent[1]), signal.SIGKILL)

    def _try_start_worker(self) -> int:
        """Submit a run and return the pid of its worker; return 0 if the daemon does not answer."""
        try:
            run = self.harness.call("run.submit", command=["sleep", "60"], cwd="/", dedup="new")
            started = self.harness.call("run.wait", run_id=run["run_id"], states=["EXEC"], timeout_s=5)
        except (NoDaemon, Disconnected, MosaicError):
            return 0
        return int(started["pid"] or 0)


def _status(pid: int) -> str:
    with open(f"/proc/{pid}/status") as file:
        return file.read()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "point", [point for point in crash_points.POINTS if not point.startswith(crash_points.RARE)]
)
def test_crash_at_each_point_loses_nothing(point: str, zygote: Zygote) -> None:
    """A process is killed at the crash point; after a restart of the daemon every guarantee holds."""
    drill = CrashPointDrill(point, 1, zygote)
    try:
        drill.crash_at(point)
    except BaseException:
        drill.wrong.append("the test failed")  # a drill with a fault keeps its files
        raise
    finally:
        drill.book.over.set()
        if drill.harness.process is not None:
            drill.harness.process.kill()
        drill.close()


def test_daemon_refuses_an_unknown_crash_point(zygote: Zygote) -> None:
    """A daemon with an unknown crash point does not start; the error lists the crash points."""
    drill = CrashPointDrill("unknown", 1, zygote)
    drill.harness.begin("nowhere")
    assert drill.harness.process is not None
    assert drill.harness.process.wait(DEADLINE_S) == 2
    lists_points = "the error lists the crash points"
    wait_until(drill.harness.log_text, lambda text: "submit.before_commit" in text, lists_points)
    drill.close()
