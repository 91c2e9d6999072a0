"""The marker: the run id in the environment of a process, also readable around an exec."""

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
#: A shell that replaces itself again and again; during an exec the kernel shows no environment.
RESTLESS = {"AGAIN": 'exec sh -c "$AGAIN"', "PATH": "/usr/bin:/bin"}
OTHER = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
CHECKS = 2000


@contextmanager
def running(*command: str, **environment: str) -> Iterator[int]:
    """Run a process with exactly this environment."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def marker_or_in_exec(pid: int) -> str | type[process_table.InExec] | None:
    """Return the marker of a process; InExec if it is unknown."""
    try:
        return process_table.marker_of(pid)
    except process_table.InExec:
        return process_table.InExec


def test_the_marker_of_a_process_is_found_during_an_exec() -> None:
    """A check during an exec finds the marker that the process has before and after it.

    On an overloaded machine an exec may take longer than a check waits; the marker is then unknown.
    """
    with running("sh", "-c", RESTLESS["AGAIN"], **RESTLESS, **{rundir.MARKER: RUN_ID}) as pid:
        markers = [marker_or_in_exec(pid) for _ in range(CHECKS)]
    assert set(markers) <= {RUN_ID, process_table.InExec}
    assert RUN_ID in markers


@pytest.mark.parametrize(("end_code", "is_expected"), [(b"0", True), (b"4096", False)])
def test_an_environment_is_expected_until_the_exec_is_complete(
    monkeypatch: pytest.MonkeyPatch, end_code: bytes, is_expected: bool
) -> None:
    """During an exec the bounds of the environment are equal for a moment; afterwards that means empty."""
    fields = [b"1"] * 49
    fields[24], fields[47], fields[48] = end_code, b"8192", b"8192"
    monkeypatch.setattr(procfs, "read_stat_fields", lambda pid, count: fields[:count])
    assert process_table._has_environment(1) is is_expected


def test_the_launcher_does_not_report_a_tree_in_an_exec_as_empty() -> None:
    """For a run with a dead shim, the launcher's check finds a process that is in an exec."""
    with running("sh", "-c", RESTLESS["AGAIN"], **RESTLESS, **{rundir.MARKER: RUN_ID}) as pid:
        order = CheckTree(id=1, run_id=RUN_ID, shim_start=procfs.read_start_ticks(pid))
        for _ in range(CHECKS // 20):
            [reply] = emptiness.answer([order], CgroupSweeper(CgroupRoot()))
            assert pid in reply.pids


def test_a_process_whose_exec_does_not_end_belongs_to_every_checked_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process whose environment stays unknown keeps each checked run's slots, but is in no run's tree."""
    with running("sleep", "60", PATH="/usr/bin:/bin", **{rundir.MARKER: RUN_ID}) as pid:
        read = process_table._environment
        monkeypatch.setattr(process_table, "_environment", lambda of: b"" if of == pid else read(of))
        start = procfs.read_start_ticks(pid)
        orders = [
            CheckTree(id=n, run_id=run_id, shim_start=start) for n, run_id in enumerate((RUN_ID, OTHER))
        ]
        replies = emptiness.answer(orders, CgroupSweeper(CgroupRoot()))
        assert [(reply.empty, pid in reply.pids) for reply in replies] == [(False, True)] * 2
        assert pid not in [member.pid for member in process_table.marked(process_table.survey(), RUN_ID)]
    replies = emptiness.answer(orders, CgroupSweeper(CgroupRoot()))
    assert not any(pid in reply.pids for reply in replies)


def test_a_process_without_an_environment_has_an_empty_one() -> None:
    """The environment of a program that has none, or that has ended, is empty without a wait."""
    program = subprocess.Popen(["sh", "-c", "echo up; read line"], env={}, stdin=PIPE, stdout=PIPE)
    with program as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert not process_table._has_environment(process.pid)
        assert process_table.environment_of(process.pid) == b""
    assert process_table.environment_of(process.pid) == b""


#: Reads the marker of a process of another user; exits with 3 if the read waits.
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
    """The environment of another user's process is never readable, so its marker is None without a wait."""
    with running("sleep", "60", PATH="/usr/bin:/bin", **{rundir.MARKER: RUN_ID}) as pid:
        command = [sys.executable, "-c", STRANGER, str(pid)]
        stranger = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (stranger.returncode, stranger.stdout) == (0, "None\n"), stranger
