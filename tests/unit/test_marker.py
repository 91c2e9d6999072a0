"""Whose a process is, by the run id in its environment: seen at whatever moment it is looked at."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE

import pytest

from mosaicd import procfs
from mosaicd.launcher import emptiness
from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.protocol import rundir
from mosaicd.protocol.records.packets import CheckTree
from mosaicd.shim import process_table
from mosaicd.shim.run_cgroup import CgroupRoot
from tests.harness.places import ROOT

RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
#: Becomes itself, again and again: the kernel shows no environment of a process in the middle of an exec.
RESTLESS = {"AGAIN": 'exec sh -c "$AGAIN"', "PATH": "/usr/bin:/bin"}
LOOKS = 2000


@contextmanager
def running(*command: str, **environment: str) -> Iterator[int]:
    """A process with this environment and nothing else in it."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_process_in_an_exec_is_still_its_runs() -> None:
    """A process has its marker before and after an exec; a check in between must count it."""
    with running("sh", "-c", RESTLESS["AGAIN"], **RESTLESS, **{rundir.MARKER: RUN_ID}) as pid:
        assert [process_table.marker_of(pid) for _ in range(LOOKS)] == [RUN_ID] * LOOKS


def test_a_tree_in_an_exec_is_not_empty() -> None:
    """Nor does the launcher, which is asked about a run whose shim is gone."""
    with running("sh", "-c", RESTLESS["AGAIN"], **RESTLESS, **{rundir.MARKER: RUN_ID}) as pid:
        order = CheckTree(id=1, run_id=RUN_ID, shim_start=procfs.read_start_ticks(pid))
        for _ in range(LOOKS // 20):
            [reply] = emptiness.answer([order], CgroupSweeper(CgroupRoot()))
            assert pid in reply.pids


def test_who_has_no_environment_is_not_waited_for() -> None:
    """A program that was given none has none; nor has one that is gone."""
    program = subprocess.Popen(["sh", "-c", "echo up; read line"], env={}, stdin=PIPE, stdout=PIPE)
    with program as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert not process_table._has_an_environment(process.pid)
        assert process_table.environment_of(process.pid) == b""
    assert process_table.environment_of(process.pid) == b""


#: Checks the given process without the permission for it, and must not wait without end.
STRANGER = """
import os, sys
from mosaicd.protocol.records.packets import CheckTree
from mosaicd.shim import process_table
os.setgroups([]), os.setgid(65534), os.setuid(65534)
process_table.time.sleep = lambda _: os._exit(3)
print(process_table.marker_of(int(sys.argv[1])))
"""


@pytest.mark.root
def test_other_users_processes_are_not_waited_for() -> None:
    """Hundreds of them are on a shared machine, and the kernel never shows their environments."""
    with running("sleep", "60", PATH="/usr/bin:/bin", **{rundir.MARKER: RUN_ID}) as pid:
        command = [sys.executable, "-c", STRANGER, str(pid)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (told.returncode, told.stdout) == (0, "None\n"), told
