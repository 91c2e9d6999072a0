"""A machine with version-1 controllers only: the freezer holds the process tree, the controllers have the
limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mosaicd.protocol.records.orders import Containment
from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import CgroupRoot, RunCgroup, find, limits_of, make
from tests.containment.conftest import need
from tests.containment.groups import living

#: Makes the groups of a run without version 2, starts a hidden tree in them, and obeys one command per line.
SCRIPT = """
import json, os, subprocess, sys, time
from mosaicd.shim import cgroup, tree
from mosaicd.protocol.records.orders import Containment
from mosaicd.shim.run_cgroup import CgroupRoot, make, limits_of
own = {name: place for name, place in cgroup.own_hierarchies().items() if name != "v2"}
parents = {name: place + "/drill-v1" for name, place in own.items()}
limits = limits_of(Containment(memory_bytes=64 << 20, tasks=100), 2)
group = make(CgroupRoot(parents, own), sys.argv[1], 1, limits)
hide = 'trap "" TERM; (setsid env -i sh -c "(setsid sleep 987 &) ; sleep 986" &); sleep 985'
with group.entered():
    leader = subprocess.Popen(["sh", "-c", hide])
def until(condition):
    for _ in range(3000):
        if condition():
            return True
        time.sleep(0.01)
    return False
def report(*values):
    print(json.dumps(values), flush=True)
report(group.kind, group.limits, until(lambda: len(group.pids()) >= 3), sorted(group.pids()))
for line in sys.stdin:
    command = line.strip()
    if command == "freeze":
        group.freeze()
        report(until(group.is_frozen))
    elif command == "kill":
        tree.kill_cgroup_members(group)
        leader.wait()
        report(until(lambda: not group.pids()))
    elif command == "remove":
        group.remove()
        report(not any("run-" in path for parent in parents.values() for path in os.listdir(parent)))
for parent in parents.values():
    cgroup.remove(parent)
"""


@pytest.fixture
def version_1(own: dict[str, str]) -> dict[str, str]:
    """Return the version-1 hierarchies; skip the test if one is not available."""
    for name in ("freezer", "memory", "pids"):
        need(name in own, f"no version-1 hierarchy of {name}")
        need(os.access(own[name], os.W_OK), f"no group can be made in the version-1 hierarchy of {name}")
    return {name: place for name, place in own.items() if name != V2}


def test_a_tree_in_a_version_1_freezer(version_1: dict[str, str]) -> None:
    """All processes of a tree in a version-1 freezer are found, frozen and killed, and the groups are
    removed."""
    argv = [sys.executable, "-c", SCRIPT, "01ARZ3NDEKTSV4RRFFQ69G5FAV"]
    drill = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert drill.stdin and drill.stdout
    try:
        kind, limits, is_up, pids = json.loads(drill.stdout.readline())
        assert (kind, is_up) == ("cgroup-v1", True)
        assert limits == {"memory_bytes": 64 << 20, "tasks": 100, "cpu_weight": 200}
        for command in ("freeze", "kill", "remove"):
            drill.stdin.write(command + "\n")
            drill.stdin.flush()
            assert json.loads(drill.stdout.readline()) == [True], command
        assert not living(pids)
    finally:
        drill.stdin.close()
        drill.wait(60)
        drill.stdout.close()
    assert not [place for place in version_1.values() if Path(f"{place}/drill-v1").exists()]


def test_no_control_groups_are_an_error_only_if_required(tmp_path: Path) -> None:
    """Without any hierarchy the kind is process-group; if control groups are required, no run starts."""
    group = make(CgroupRoot(), "x", 1, limits_of(Containment(), 1))
    assert (group.kind, group.limits, group.pids()) == ("process-group", {}, set())
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(OSError, match="no control group can be made here"):
        make(CgroupRoot({"freezer": str(blocked / "x")}), "x", 1, limits_of(Containment(required=True), 1))
    assert isinstance(find(CgroupRoot(), "x", 1), RunCgroup)


HYBRID = """25 20 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
26 20 0:23 / /sys/fs/cgroup/memory rw,nosuid shared:3 - cgroup cgroup rw,memory
27 20 0:24 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 20 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 20 0:26 / /a\\040b/pids rw - cgroup cgroup rw,pids
"""
MEMBER = """5:pids:/user
4:cpu,cpuacct:/docker/abc/x
3:memory:/../elsewhere
1:name=systemd:/user
0::/user.slice/a
"""


def test_hierarchies_are_read_as_they_are_mounted() -> None:
    """Bind mounts, names with spaces and paths outside of the namespace are read correctly."""
    assert cgroup.hierarchies(HYBRID, MEMBER) == {
        "v2": "/sys/fs/cgroup/unified/user.slice/a",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/x",
        "pids": "/a b/pids/user",
    }


def test_no_hierarchy_is_found_if_none_is_mounted() -> None:
    """Without a mounted hierarchy none is found."""
    assert cgroup.hierarchies("", "0::/\n") == {}
