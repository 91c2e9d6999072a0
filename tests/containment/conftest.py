"""Harnesses whose launcher makes control groups; on a machine that cannot make them the tests are skipped.

Note: after each test no process, no control group and no temporary directory may remain.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from tests.containment.fuse import HoldingServer
from tests.containment.groups import run_cgroups_of
from tests.harness.building import Build, builder
from tests.harness.daemon import DaemonHarness
from tests.harness.shim import ShimHarness


def need(is_available: bool, reason: str) -> None:
    """Skip the test if something is missing; for root in CI, fail instead."""
    if not is_available and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(reason)
    if not is_available:
        pytest.skip(reason)


@pytest.fixture
def own() -> dict[str, str]:
    """Return the group of this process in each hierarchy."""
    return cgroup.own_hierarchies()


@pytest.fixture
def harness(tmp_path: Path, own: dict[str, str]) -> Iterator[ShimHarness]:
    """A launcher that keeps runs in control groups of version 2, and the peer that acts as the daemon."""
    need(V2 in own and os.access(own[V2], os.W_OK), "no writable control groups of version 2")
    harness = ShimHarness(tmp_path, "cgroup")
    try:
        yield harness
    finally:
        harness.close()
        groups = [path for run in harness.runs for path in run_cgroups_of(run.run_id)]
        names = [f"mosaic-{run.run_id[-10:]}-*" for run in harness.runs]
        temporary = [str(path) for name in names for path in Path("/tmp").glob(name)]
        for path in groups:
            cgroup.try_write(path, "cgroup.kill", "1")
            cgroup.remove(path)
        for path in temporary:
            shutil.rmtree(path, ignore_errors=True)
        assert not groups + temporary, f"leaked: {groups + temporary}"


@pytest.fixture
def memory(own: dict[str, str]) -> str:
    """Return the hierarchy that can limit memory; skip the test if there is none."""
    controllers = (cgroup.read(own[V2], "cgroup.controllers") or "").split() if V2 in own else []
    name = "memory" if "memory" in own and os.access(own["memory"], os.W_OK) else V2
    need(name == "memory" or "memory" in controllers, "no memory controller is available")
    return name


class ContainedHarness(DaemonHarness):
    """A daemon whose runs are in control groups; none of these may remain."""

    def close(self) -> list[str]:
        """Stop everything; return what went wrong."""
        trouble = super().close()
        return trouble + [f"leaked: {path}" for run_id in self.run_ids for path in run_cgroups_of(run_id)]


@pytest.fixture
def build() -> Iterator[Build]:
    """Make daemons, each with its own settings; at the end each is checked for leaks."""
    with builder(ContainedHarness) as make:
        yield make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HoldingServer]:
    """A file server that never answers; the test is skipped if it cannot be mounted."""
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    try:
        server = HoldingServer(mountpoint)
    except OSError as error:
        pytest.skip(f"no FUSE file system can be mounted: {error}")
    yield server
    server.close()
