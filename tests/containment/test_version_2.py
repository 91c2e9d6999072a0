"""Controllers of version 2: who gets them, what they limit, and what is not laid to them.

Most machines have their controllers in version 1, or do not delegate them; there these tests are skipped.
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

#: A launcher that prepares its root, a shim that makes the groups of a run, a worker in them; prints facts.
SCRIPT = """
import json, os, subprocess, sys
from mosaicd.launcher import cgroup_root
from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.shim import cgroup, tree
from mosaicd.protocol.records.orders import Containment
from mosaicd.shim.run_cgroup import make, limits_of
found = cgroup_root.prepare("auto")
if os.fork() == 0:
    group = make(found, sys.argv[1], 1, limits_of(Containment(memory_bytes=128 << 20, tasks=50), 3))
    with group.entered():
        worker = subprocess.Popen(sys.argv[2:])
    outer = os.path.dirname(group.run_dir or "")
    said = {
        "word": group.kind, "enforces": found.enforces, "limits": group.limits, "pids": sorted(group.pids()),
        "files": [cgroup.number(group.run_dir, "memory.max"), cgroup.number(group.run_dir, "pids.max"),
                  cgroup.number(outer, "cpu.weight")],
    }
    if sys.argv[2] == "sleep":
        said["worker"] = worker.pid
        tree.kill_cgroup_members(group)
    said["status"] = worker.wait()
    said["oom"] = group.oom()
    print(json.dumps(said), flush=True)
    group.remove()
    os._exit(0)
os.wait()
sweeper = CgroupSweeper(found)
sweeper.sweep()
sweeper.close()
"""


@pytest.fixture
def box(own: dict[str, str]) -> Iterator[Path]:
    """A group with controllers to hand on, as a container has it: not the machine's root."""
    if V2 not in own or not os.access(own[V2], os.W_OK):
        pytest.skip("no writable control groups of version 2 here")
    cgroup.enable(own[V2], frozenset({"memory", "pids", "cpu"}))
    group = Path(own[V2]) / f"box-{os.getpid()}"
    group.mkdir()
    try:
        if not {"memory", "pids", "cpu"} <= set((group / "cgroup.controllers").read_text().split()):
            pytest.skip("no controllers of version 2 to be had here")
        yield group
    finally:
        cgroup.try_write(str(group), "cgroup.kill", "1")
        wait_until(lambda: cgroup.remove(str(group)), bool, "the box is empty")


def drill(box: Path, *command: str, first: str = "") -> Any:
    """Run the script below a shell (the daemon) in the box; `first`: what that shell does before."""
    shell = f'echo $$ > {box}/cgroup.procs; {first} "$@"; echo'
    argv = ["sh", "-c", shell, "daemon", sys.executable, "-c", SCRIPT, RUN_ID, *command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip(), done.stderr
    assert not list(box.rglob(f"run-{RUN_ID}-*"))
    return json.loads(done.stdout)


def test_a_daemon_alone_in_its_group_makes_room(box: Path) -> None:
    """Where daemon and launcher are alone, they go to a leaf, and runs get every limit."""
    said = drill(box, "sleep", "1000")
    assert (said["word"], said["enforces"]) == ("cgroup-v2", ["memory", "pids", "cpu"])
    assert said["limits"] == {"memory_bytes": 128 * MIB, "tasks": 50, "cpu_weight": 300}
    assert said["files"] == [128 * MIB, 50, 300]
    assert said["pids"] == [said["worker"]]
    assert (said["status"], said["oom"]) == (-9, None)


def test_a_second_launcher_finds_the_room(box: Path) -> None:
    """A launcher that comes after one that made room makes its groups beside it, not below the leaf."""
    again = '"$@" >/dev/null;'
    assert drill(box, "sleep", "1000", first=again)["enforces"] == ["memory", "pids", "cpu"]
    assert [path.name for path in box.iterdir() if path.is_dir()] == ["mosaicd-daemon"]


def test_a_group_that_others_are_in_is_left_as_it_is(box: Path) -> None:
    """In a group with another process, no process is moved and no limit is set, but the process tree is held.

    Handing on only what the kernel would hand on there would make it a group for threads alone.
    """
    said = drill(box, "sleep", "1000", first="sleep 1000 >/dev/null 2>&1 &")
    assert (said["word"], said["enforces"], said["limits"]) == ("cgroup-v2", [], {})
    assert said["pids"] == [said["worker"]] and said["status"] == -9
    assert (box / "cgroup.type").read_text() == "domain\n"
    assert (box / "cgroup.subtree_control").read_text().split() == []


def test_a_kill_at_the_limit_has_the_limit_in_evidence(box: Path) -> None:
    """Over its own limit: victims, limit and peak."""
    said = drill(box, sys.executable, "-c", EAT, "400")
    assert said["status"] == -9
    assert (said["oom"]["victims"], said["oom"]["limit_bytes"]) == (1, 128 * MIB)
    assert said["oom"]["peak_bytes"] <= 128 * MIB


def test_what_another_limit_did_is_not_laid_to_the_runs(box: Path) -> None:
    """A container that is short of memory kills a run that is below its own limit: no limit in evidence."""
    (box / "memory.max").write_text(str(80 * MIB))
    said = drill(box, sys.executable, "-c", EAT, "100")
    assert (said["status"], said["limits"]["memory_bytes"]) == (-9, 128 * MIB)
    assert said["oom"]["victims"] == 1 and "limit_bytes" not in said["oom"]
