"""Harnesses whose launcher makes control groups; a machine that cannot make them skips with the reason.

Nothing of ours may be left: no process (the harnesses look), no control group, no temporary directory.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from tests.containment.groups import run_cgroups_of
from tests.harness.building import Build, builder
from tests.harness.daemon import DaemonHarness
from tests.harness.shim import ShimHarness


def need(is_there: bool, reason: str) -> None:
    """Skip where something is missing; in CI, where root has it, that is a failure."""
    if not is_there and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(reason)
    if not is_there:
        pytest.skip(reason)


@pytest.fixture
def own() -> dict[str, str]:
    """Return where this process is in each hierarchy."""
    return cgroup.own_hierarchies()


@pytest.fixture
def harness(tmp_path: Path, own: dict[str, str]) -> Iterator[ShimHarness]:
    """A launcher that holds runs in control groups of version 2, and the peer that plays the daemon."""
    need(V2 in own and os.access(own[V2], os.W_OK), "no writable control groups of version 2 here")
    harness = ShimHarness(tmp_path, "cgroup")
    try:
        yield harness
    finally:
        harness.close()
        left = [path for run in harness.runs for path in run_cgroups_of(run.run_id)]
        names = [f"mosaic-{run.run_id[-10:]}-*" for run in harness.runs]
        temporary = [str(path) for name in names for path in Path("/tmp").glob(name)]
        for path in left:
            cgroup.try_write(path, "cgroup.kill", "1")
            cgroup.remove(path)
        for path in temporary:
            shutil.rmtree(path, ignore_errors=True)
        assert not left + temporary, f"left behind: {left + temporary}"


@pytest.fixture
def memory(own: dict[str, str]) -> str:
    """Return the hierarchy that can limit memory; skip where none can."""
    controllers = (cgroup.read(own[V2], "cgroup.controllers") or "").split() if V2 in own else []
    name = "memory" if "memory" in own and os.access(own["memory"], os.W_OK) else V2
    need(name == "memory" or "memory" in controllers, "no memory controller that we may use here")
    return name


class ContainedHarness(DaemonHarness):
    """A daemon whose runs are in control groups, of which none may be left."""

    def close(self) -> list[str]:
        """End everything; return what was wrong."""
        trouble = super().close()
        return trouble + [f"left: {path}" for run_id in self.run_ids for path in run_cgroups_of(run_id)]


@pytest.fixture
def build() -> Iterator[Build]:
    """Make daemons with settings of their own; each is searched for trouble at the end."""
    with builder(ContainedHarness) as make:
        yield make
