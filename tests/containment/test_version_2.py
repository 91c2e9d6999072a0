"""Controllers of version 2: which groups get them, what they limit, and which kills they do not explain.

The tests are skipped on machines whose controllers are in version 1 or not delegated, which are most.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from tests.harness.waiting import wait_until

RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
MIB = 1 << 20
EAT = "import sys; x = bytearray(int(sys.argv[1]) << 20); x[::4096] = b'1' * len(x[::4096])"

#: A launcher that prepares its root, a shim that makes the groups of a run, and a worker; prints a report.
SCRIPT = """
import json, os, subprocess, sys
from mosaicd.launcher import cgroup_root
from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.shim import cgroup, tree
from mosaicd.protocol.records.orders import Containment
from mosaicd.shim.run_cgroup import make, limits_of
root = cgroup_root.prepare("auto")
if os.fork() == 0:
    group = make(root, sys.argv[1], 1, limits_of(Containment(memory_bytes=128 << 20, tasks=50), 3))
    with group.entered():
        worker = subprocess.Popen(sys.argv[2:])
    outer = os.path.dirname(group.run_dir or "")
    report = {
        "kind": group.kind, "enforces": root.enforces, "limits": group.limits, "pids": sorted(group.pids()),
        "files": [cgroup.number(group.run_dir, "memory.max"), cgroup.number(group.run_dir, "pids.max"),
                  cgroup.number(outer, "cpu.weight")],
    }
    if sys.argv[2] == "sleep":
        report["worker"] = worker.pid
        tree.kill_cgroup_members(group)
    report["status"] = worker.wait()
    oom = group.oom()
    report["oom"] = oom and oom.to_json()
    print(json.dumps(report), flush=True)
    group.remove()
    os._exit(0)
os.wait()
sweeper = CgroupSweeper(root)
sweeper.sweep()
sweeper.close()
"""


@pytest.fixture
def box(own: dict[str, str]) -> Iterator[Path]:
    """A group that has controllers for its children, like the group of a container."""
    if V2 not in own or not os.access(own[V2], os.W_OK):
        pytest.skip("no writable control groups of version 2")
    cgroup.enable(own[V2], frozenset({"memory", "pids", "cpu"}))
    group = Path(own[V2]) / f"box-{os.getpid()}"
    group.mkdir()
    try:
        if not {"memory", "pids", "cpu"} <= set((group / "cgroup.controllers").read_text().split()):
            pytest.skip("no controllers of version 2 are available")
        yield group
    finally:
        cgroup.try_write(str(group), "cgroup.kill", "1")
        wait_until(lambda: cgroup.remove(str(group)), bool, "the box is empty")


def drill(box: Path, *command: str, first: str = "") -> Any:
    """Run SCRIPT below a shell (as the daemon) in the box, after the shell command `first`; return the
    report."""
    shell = f'echo $$ > {box}/cgroup.procs; {first} "$@"; echo'
    argv = ["sh", "-c", shell, "daemon", sys.executable, "-c", SCRIPT, RUN_ID, *command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip(), done.stderr
    assert not list(box.rglob(f"run-{RUN_ID}-*"))
    return json.loads(done.stdout)


def test_a_daemon_alone_in_its_group_moves_to_a_leaf(box: Path) -> None:
    """If daemon and launcher are alone in their group, they move to a leaf, and runs get all limits."""
    report = drill(box, "sleep", "1000")
    assert (report["kind"], report["enforces"]) == ("cgroup-v2", ["memory", "pids", "cpu"])
    assert report["limits"] == {"memory_bytes": 128 * MIB, "tasks": 50, "cpu_weight": 300}
    assert report["files"] == [128 * MIB, 50, 300]
    assert report["pids"] == [report["worker"]]
    assert (report["status"], report["oom"]) == (-9, None)


def test_a_second_launcher_uses_the_same_root(box: Path) -> None:
    """A second launcher makes its groups beside the leaf of the first, not below."""
    first_launcher = '"$@" >/dev/null;'
    assert drill(box, "sleep", "1000", first=first_launcher)["enforces"] == ["memory", "pids", "cpu"]
    assert [path.name for path in box.iterdir() if path.is_dir()] == ["mosaicd-daemon"]


def test_a_group_with_other_processes_is_not_changed(box: Path) -> None:
    """If the group has other processes, no process is moved and no limit is set, but process trees are
    contained.

    Otherwise the group would become a threaded one.
    """
    report = drill(box, "sleep", "1000", first="sleep 1000 >/dev/null 2>&1 &")
    assert (report["kind"], report["enforces"], report["limits"]) == ("cgroup-v2", [], {})
    assert report["pids"] == [report["worker"]] and report["status"] == -9
    assert (box / "cgroup.type").read_text() == "domain\n"
    assert (box / "cgroup.subtree_control").read_text().split() == []


def test_the_evidence_of_a_kill_has_the_limit(box: Path) -> None:
    """The evidence of a kill at the run's own limit has victims, limit and peak."""
    report = drill(box, sys.executable, "-c", EAT, "400")
    assert report["status"] == -9
    assert (report["oom"]["victims"], report["oom"]["limit_bytes"]) == (1, 128 * MIB)
    assert report["oom"]["peak_bytes"] <= 128 * MIB


def test_a_kill_by_another_limit_has_no_limit_in_evidence(box: Path) -> None:
    """If a container without memory kills a run below its own limit, the evidence has no limit."""
    (box / "memory.max").write_text(str(80 * MIB))
    report = drill(box, sys.executable, "-c", EAT, "100")
    assert (report["status"], report["limits"]["memory_bytes"]) == (-9, 128 * MIB)
    assert report["oom"]["victims"] == 1 and "limit_bytes" not in report["oom"]
