"""Processes that outlive their program are counted at its own end, and never at a stop; shared memory."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaicd.safe_files import remove_tree
from tests.harness.shim import ShimHarness

#: Ends at once; its grandchild is in another session, has no parent in the run, and ignores TERM.
_DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"ready\\n")
        time.sleep(1000)
    os._exit(0)
os.wait()
open("gate").read()
"""


def test_processes_in_the_background_are_counted(harness: ShimHarness) -> None:
    """Processes that remain after the program's own end are in exit.json and in the fact, then ended."""
    run = harness.launch(["sh", "-c", "sleep 1000 & nohup sleep 1000 & exit 0"])
    record = run.exit()
    assert (record["exit_code"], record["swept"], record["left_processes"]) == (0, False, 2)
    reported = run.fact("exited")
    assert {key: reported[key] for key in record} == record
    run.wait_until_tree_is_empty()


def test_a_program_without_processes_leaves_none(harness: ShimHarness) -> None:
    """The end of a program that leaves no process has the count 0."""
    record = harness.launch(["sh", "-c", "true | cat; sleep 0 & wait"]).exit()
    assert (record["swept"], record["left_processes"]) == (True, 0)


def test_a_failed_program_has_the_count_too(harness: ShimHarness) -> None:
    """Processes are also counted if the program failed or a signal of its own ended it."""
    for end, code, number in (("exit 3", 3, None), ("kill -SEGV $$", None, 11)):
        record = harness.launch(["sh", "-c", f"sleep 1000 & {end}"]).exit()
        assert (record["exit_code"], record["signal"], record["left_processes"]) == (code, number, 1)


def test_a_daemon_is_counted(harness: ShimHarness) -> None:
    """A double-forked daemon in a session of its own is counted, and ended although it ignores TERM."""
    gate = harness.gate()
    run = harness.python(_DAEMON, limits={"grace_s": 0.5})
    run.wait_for_output("ready")
    gate.open()
    assert run.exit()["left_processes"] == 1
    run.wait_until_tree_is_empty()


def test_a_helper_that_ends_with_its_program_is_not_counted(harness: ShimHarness) -> None:
    """A helper that ends at the end of its input, which is the end of the program, is not left behind.

    It can write its last output: it gets no TERM.
    """
    (harness.root / "tail.py").write_text("import sys; print('all', len(sys.stdin.read()))\n")
    run = harness.launch(["sh", "-c", "mkfifo f; python3 tail.py < f & exec 9> f; echo x >&9; exit 0"])
    record = run.exit()
    assert record["left_processes"] == 0
    run.wait_until_tree_is_empty()
    assert (run.dir / "stdout.log").read_bytes() == b"all 2\n"


def test_processes_that_a_stop_ends_are_not_counted(harness: ShimHarness) -> None:
    """After a stop or a time limit, the processes that remain are not left behind: there is no count."""
    code = "trap 'exit 0' TERM; (trap '' TERM; echo ready; sleep 1000; sleep 1000) & wait"
    stopped = harness.launch(["sh", "-c", code], limits={"grace_s": 0.5})
    stopped.wait_for_output("ready")
    stopped.control("stop", kind="by_user", who="ada", grace_s=0.5)
    limited = harness.launch(["sh", "-c", code], limits={"grace_s": 0.5, "time_limit_s": 0.5})
    for run, kind in ((stopped, "by_user"), (limited, "time_limit")):
        record = run.exit()
        assert (record["stop"]["kind"], record["left_processes"]) == (kind, None)
        run.wait_until_tree_is_empty()


def test_a_stop_after_the_end_keeps_the_count(harness: ShimHarness) -> None:
    """A stop that comes after the program's own end ends the rest at once; what remains is counted."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "(trap '' TERM; echo ready; sleep 1000; sleep 1000) & read x < gate"])
    run.wait_for_output("ready")
    gate.open()
    harness.peer.until(lambda: run.has("exit.json"))
    run.control("stop", kind="by_user", who="ada", grace_s=0)
    record = run.exit()
    assert record["stop"] is None and record["left_processes"] in (1, 2)
    run.wait_until_tree_is_empty()


def test_without_a_grace_period_nothing_is_waited_for(harness: ShimHarness) -> None:
    """With a grace period of 0, processes are counted and killed at once."""
    run = harness.launch(["sh", "-c", "sleep 1000 & exit 0"], limits={"grace_s": 0})
    assert run.exit()["left_processes"] == 1
    run.wait_until_tree_is_empty()


def test_the_count_on_a_full_disk(harness: ShimHarness) -> None:
    """If the disk is full, the fact has the count at once, and exit.json when there is space again."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "sleep 1000 & read x < gate"], limits={"grace_s": 0.5})
    harness.peer.until(lambda: run.has("started.json"))
    harness.limit_file_size(run.shim_pid, 10)
    gate.open()
    assert run.fact("exited")["left_processes"] == 1
    assert not run.has("exit.json")
    harness.limit_file_size(run.shim_pid, 1 << 20)
    run.wait_until_tree_is_empty()
    assert run.json("exit.json")["left_processes"] == 1


def test_exit_json_with_the_count_fits_into_its_reserved_space(harness: ShimHarness) -> None:
    """exit.json with an error of the full length stays within its reserved 4096 bytes."""
    record = harness.launch(["sh", "-c", "sleep 1000 & exit 0"]).exit()
    full = {**record, "left_processes": 10**6, "error": "\u00e4" * 256}
    assert len(json.dumps(full)) < 4096


def test_leftovers_json_has_the_command_lines(harness: ShimHarness) -> None:
    """leftovers.json, readable only by the owner, has pids and command lines, cut and bounded."""
    code = f"for i in $(seq 30); do sleep 1000.$i & done; (exec -a {'x' * 5000} sleep 1000) & exit 0"
    run = harness.launch(["bash", "-c", code], limits={"grace_s": 1.0})
    assert run.exit()["left_processes"] == 31
    harness.peer.until(lambda: run.has("leftovers.json"))
    assert (run.dir / "leftovers.json").stat().st_mode & 0o777 == 0o600
    run.wait_until_tree_is_empty()
    processes = run.json("leftovers.json")["processes"]
    assert len(processes) == 20
    assert re.fullmatch(r"sleep 1000\.\d+", processes[0]["command"]) and processes[0]["pid"] > 1
    assert max(len(process["command"]) for process in processes) <= 256


def test_a_dead_shim_keeps_the_command_lines(harness: ShimHarness) -> None:
    """If the shim dies after it has counted, the teardown shim keeps the processes in leftovers.json."""
    code = "(trap '' TERM; echo ready; sleep 1000; sleep 1000) & read x < gate"
    gate = harness.gate()
    run = harness.launch(["sh", "-c", code])
    run.wait_for_output("ready")
    gate.open()
    assert run.exit()["left_processes"] in (1, 2)
    before = run.json("leftovers.json")["processes"]
    harness.signal(run.shim_pid, signal.SIGKILL)
    run.wait_until_shim_exits()
    harness.teardown(run)
    assert run.json("leftovers.json")["processes"] == before


@pytest.fixture
def shared(harness: ShimHarness) -> Iterator[Path]:
    """Return a path in /dev/shm; it and all entries that begin with it are removed at the end."""
    path = Path(f"/dev/shm/left-{os.getpid()}")
    yield path
    for found in path.parent.glob(f"{path.name}*"):
        remove_tree(found)


def test_shared_memory_with_the_run_id_is_removed(harness: ShimHarness, shared: Path) -> None:
    """At the end, entries of /dev/shm with the run's id in their name are removed, and counted."""
    code = (
        f"s={shared}-$MOSAIC_RUN_ID; head -c 5000 /dev/zero > $s; mkdir $s.d; echo x > $s.d/a; "
        f"ln -s {harness.root} $s.l; echo x > {shared}-other"
    )
    run = harness.launch(["sh", "-c", code])
    run.exit()
    run.wait_until_shim_exits()
    assert [path.name for path in shared.parent.glob(f"{shared.name}*")] == [f"{shared.name}-other"]
    assert harness.root.exists()
    removed = run.json("leftovers.json")["removed_shared_memory"]
    assert (removed["files"], removed["failed"]) == (3, 0) and removed["bytes"] >= 5002


def test_other_shared_memory_is_reported(harness: ShimHarness, shared: Path) -> None:
    """Other files that appeared in /dev/shm are reported with sizes, the largest first, and are kept."""
    code = (
        f"for i in $(seq 60); do head -c $i /dev/zero > {shared}-$i; done; head -c 5000 /dev/zero > {shared}"
    )
    run = harness.launch(["sh", "-c", code])
    run.exit()
    run.wait_until_shim_exits()
    record = run.json("leftovers.json")
    assert record["shared_memory"][0] == {"path": str(shared), "bytes": 5000}
    assert len(record["shared_memory"]) == 50
    assert record["shared_memory_files"] >= 61
    assert record["shared_memory_bytes"] >= 5000 + sum(range(61))
    assert shared.exists()


@pytest.mark.parametrize("has_tree", [True, False])
def test_shared_memory_of_a_dead_shim_is_removed(harness: ShimHarness, shared: Path, has_tree: bool) -> None:
    """If the shim is killed, the teardown shim removes the shared memory, or the launcher without a tree."""
    run = harness.launch(["sh", "-c", f"touch {shared}-$MOSAIC_RUN_ID; echo ready; exec sleep 1000"])
    run.wait_for_output("ready")
    harness.signal(run.shim_pid, signal.SIGKILL)
    run.wait_until_shim_exits()
    if has_tree:
        harness.teardown(run)
    else:
        harness.signal(run.json("started.json")["pid"], signal.SIGKILL)
        harness.peer.until(lambda: harness.is_empty(run)["empty"])
    harness.peer.until(lambda: not list(shared.parent.glob(f"{shared.name}*")))
