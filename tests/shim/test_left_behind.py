"""Processes that outlive their program: they are counted at its own end, and never at a stop."""

import json

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
