"""The ledger, run, show, list and watch name the processes that a run left running."""

import json
import os
import re
from pathlib import Path

import pytest

from mosaicd.log import Catalogue
from tests.harness import processes
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

#: A script as users write it: its training is ended with the script.
SCRIPT = ("sh", "-c", "nohup sleep 1000 >nohup.out 2>&1 & echo launched")


def test_the_ledger_and_the_run_have_the_count(harness: DaemonHarness) -> None:
    """The run object and the events of the exit and of the end have the number of processes left behind."""
    run_id = harness.submit(*SCRIPT)
    run = harness.ended(run_id)
    assert (run["outcome"], run["left_processes"]) == ("succeeded", 1)
    counts = {event["kind"]: event.get("left_processes") for event in harness.events(run_id)}
    assert (counts["exited"], counts["finished"]) == (1, 1)
    assert harness.pids(run_id) == []


def test_a_run_that_leaves_nothing_has_no_such_event(harness: DaemonHarness) -> None:
    """The count of a run that leaves no process is 0; the event of its end does not name a count."""
    run_id = harness.submit("true")
    assert harness.ended(run_id)["left_processes"] == 0
    assert "left_processes" not in harness.events(run_id)[-1]


def test_a_stopped_run_has_no_count(harness: DaemonHarness) -> None:
    """Processes that a stop ends are not left behind: the count is null."""
    run_id = harness.submit("sh", "-c", "trap 'exit 0' TERM; (trap '' TERM; sleep 1000; sleep 1000) & wait")
    wait_until(lambda: len(harness.pids(run_id)), lambda count: count >= 3, "the script has its processes")
    harness.call("run.stop", run_id=run_id, grace_s=0.3)
    run = harness.ended(run_id)
    assert (run["outcome"], run["left_processes"]) == ("cancelled", None)


def test_a_retried_run_has_the_count_of_its_last_attempt(harness: DaemonHarness) -> None:
    """The event of a retry has the count of its attempt; the run object has that of the last attempt."""
    code = "test -e again && exit 0; touch again; sleep 1000 & exit 3"
    run_id = harness.submit("sh", "-c", code, retries=1, retry_on=["exit_code"])
    assert harness.ended(run_id)["left_processes"] == 0
    requeued = [event for event in harness.events(run_id) if event["kind"] == "requeued"]
    assert [event["left_processes"] for event in requeued] == [1]


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_run_names_the_count_at_the_end(harness: DaemonHarness, quiet: tuple[str, ...]) -> None:
    """`run` prints one line on stderr about the processes, also with -q; the exit code stays."""
    ended = harness.ctl("run", *quiet, "--", *SCRIPT)
    assert (ended.returncode, ended.stdout) == (0, "launched\n")
    assert re.search(r"\b1 process\b.*'wait'", ended.stderr.splitlines()[-1])


def test_run_is_silent_about_nothing(harness: DaemonHarness) -> None:
    """`run -q` of a program that leaves nothing prints nothing on stderr."""
    assert harness.ctl("run", "-q", "--", "true").stderr == ""


def test_show_list_and_watch_have_the_count(harness: DaemonHarness) -> None:
    """show, the note of list, and watch have the number of processes, as text and as JSON."""
    run_id = harness.submit(*SCRIPT)
    harness.ended(run_id)
    for words in (("show", run_id), ("list", "-a"), ("watch", run_id), ("watch", "--since", "0", run_id)):
        assert re.search(r"\b1 process\b", harness.ctl(*words).stdout), words
        lines = harness.ctl("-o", "jsonl", *words).stdout.splitlines()
        assert json.loads(lines[-1])["left_processes"] == 1, words


def test_the_count_survives_the_daemon(harness: DaemonHarness) -> None:
    """If the daemon is down at the end of the run, the next daemon has the count from exit.json."""
    run_id = harness.submit("sh", "-c", "while ! test -e gate; do sleep 0.01; done; sleep 1000 & exit 0")
    harness.until(run_id, "EXEC")
    harness.kill()
    (harness.home / "gate").touch()
    wait_until(harness.shims, lambda shims: not shims, "the shim leaves")
    harness.start()
    run = harness.ended(run_id)
    assert (run["outcome"], run["left_processes"]) == ("succeeded", 1)


def test_an_end_without_a_count(build: Build) -> None:
    """If the shim dies before it has counted, the end is exact, and the count is null."""
    harness = build(start=False)
    harness.allow(Catalogue.SHIM_LOST)
    harness.start()
    run_id = harness.submit("sh", "-c", "sleep 1000 & exit 7", grace_s=20)
    exit_file = harness.attempt(run_id) / "exit.json"
    wait_until(exit_file.exists, lambda exists: exists, "exit.json is written")
    for pid in harness.shims():
        processes.kill(pid)
    run = harness.ended(run_id)
    assert run["exit_code"] == 7 and run["left_processes"] in (None, 1)
    assert harness.pids(run_id) == []


def test_show_has_the_command_lines_and_the_shared_memory(harness: DaemonHarness) -> None:
    """`show` has command lines without control characters, and the size of files left in /dev/shm."""
    shared = Path(f"/dev/shm/show-{os.getpid()}")
    code = f"head -c 3145728 /dev/zero > {shared}; exec -a $'a\\e[2Jb' sleep 1000 & exit 0"
    try:
        run_id = harness.submit("bash", "-c", code)
        harness.ended(run_id)
        harness.wait_until_cleaned_up(run_id)
        found = json.loads(harness.ctl("-o", "json", "show", run_id).stdout)["leftovers"]
        shown = harness.ctl("show", run_id).stdout
    finally:
        shared.unlink(missing_ok=True)
    assert [process["command"] for process in found["processes"]] == ["a\x1b[2Jb 1000"]
    assert "a?[2Jb 1000" in shown and "\x1b" not in shown
    assert {"path": str(shared), "bytes": 3 << 20} in found["shared_memory"]
    assert str(shared) in shown and "3.0 MiB" in shown


def test_the_leftovers_of_a_retried_run_are_those_of_its_last_attempt(harness: DaemonHarness) -> None:
    """run.leftovers has the processes of the newest attempt."""
    code = "test -e again && { sleep 2000 & exit 0; }; touch again; sleep 1000 & exit 3"
    run_id = harness.submit("sh", "-c", code, retries=1, retry_on=["exit_code"])
    harness.ended(run_id)
    found = harness.call("run.leftovers", run_id=run_id)
    assert found["attempt"] == 2
    assert [process["command"] for process in found["processes"]] == ["sleep 2000"]


def test_a_stop_ends_what_a_program_left_at_once(harness: DaemonHarness) -> None:
    """A stop after the program's own end shortens the grace period of the rest; the outcome stays."""
    code = "(trap '' TERM; sleep 1000; sleep 1000) & exit 0"
    run_id = harness.submit("sh", "-c", code, grace_s=600)
    wait_until(lambda: harness.get(run_id)["left_processes"], bool, "the shim has counted")
    assert re.search(r"\b[12] process", harness.ctl("show", run_id).stdout)
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["outcome"] == "succeeded"
    assert "unkillable" not in [event["kind"] for event in harness.events(run_id)]


def test_a_second_stop_ends_the_rest_after_the_program(harness: DaemonHarness) -> None:
    """If the program has obeyed a stop and others have not, a second stop shortens their grace period."""
    code = "trap 'exit 0' TERM; (trap '' TERM; sleep 1000; sleep 1000) & echo ready; wait"
    run_id = harness.submit("sh", "-c", code, grace_s=600)
    output = harness.attempt(run_id) / "stdout.log"
    wait_until(lambda: output.exists() and output.read_bytes(), bool, "the trap is set")
    harness.call("run.stop", run_id=run_id)
    wait_until(lambda: harness.get(run_id)["exit_code"], lambda code: code == 0, "the program obeys")
    harness.call("run.stop", run_id=run_id, grace_s=0)
    assert harness.ended(run_id)["outcome"] == "cancelled"
