"""Every named crash point: a workload comes by, the process dies there, and no promise is broken.

Those that no workload comes by (a registry that is mended, runs that are pruned) are passed in
tests/daemon/test_registry_behind.py.
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
    """One for all points."""
    one = Zygote()
    yield one
    one.close()


class Staged(Drill):
    """A drill whose one kill is at a point that is known."""

    def pass_by(self, point: str) -> None:
        """Start with `point` armed, work until its process died there, and look at everything."""
        for thread in (*self.clients, self.watcher):
            thread.start()
        self.harness.begin(point)
        if "teardown" in point:
            self._orphan_a_tree()
        wait_until(lambda: self._has_died(point), bool, f"{point} is reached", DEADLINE_S)
        if crash_points.is_forked(point):
            self.harness.kill()
        self._settle()
        assert not self.wrong + self.book.wrong, "\n".join(self.wrong + self.book.wrong)

    def _has_died(self, point: str) -> bool:
        process = self.harness.process
        assert process is not None
        if not crash_points.is_forked(point):
            return process.poll() == -signal.SIGKILL
        assert process.poll() is None, "the daemon died instead"
        return self.harness.seen_killed()["launcher" if point.startswith("launcher.") else "shim"] > 0

    def _orphan_a_tree(self) -> None:
        pid = wait_until(self._worker, what="a worker that can lose its shim", deadline_s=DEADLINE_S)
        parent = re.search(r"^PPid:\s(\d+)", _status(pid), re.M)
        assert parent
        os.kill(int(parent[1]), signal.SIGKILL)

    def _worker(self) -> int:
        """Submit a run and return the pid of its worker; 0 while the daemon does not answer."""
        try:
            run = self.harness.call("run.submit", command=["sleep", "60"], cwd="/", dedup="new")
            found = self.harness.call("run.wait", run_id=run["run_id"], states=["EXEC"], timeout_s=5)
        except (NoDaemon, Disconnected, MosaicError):
            return 0
        return int(found["pid"] or 0)


def _status(pid: int) -> str:
    with open(f"/proc/{pid}/status") as file:
        return file.read()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "point", [point for point in crash_points.POINTS if not point.startswith(crash_points.RARE)]
)
def test_a_crash_here_loses_nothing(point: str, zygote: Zygote) -> None:
    """The workload reaches the point, a process is killed there, and after a restart every promise holds."""
    staged = Staged(point, 1, zygote)
    try:
        staged.pass_by(point)
    except BaseException:
        staged.wrong.append("kept")
        raise
    finally:
        staged.book.over.set()
        if staged.harness.process is not None:
            staged.harness.process.kill()
        staged.close()


def test_a_point_that_does_not_exist_is_refused(zygote: Zygote) -> None:
    """A daemon with an unknown crash point does not start; the error lists the crash points."""
    staged = Staged("wrong", 1, zygote)
    staged.harness.begin("nowhere")
    assert staged.harness.process is not None
    assert staged.harness.process.wait(DEADLINE_S) == 2
    wait_until(staged.harness.told, lambda said: "submit.before_commit" in said, "it names those there are")
    staged.close()
