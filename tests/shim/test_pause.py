"""Pause and resume: a frozen tree is verified in /proc, a cooperative pause by the worker's line."""

from mosaicd import procfs
from mosaicd.protocol import Json
from mosaicd.shim import process_table
from tests.harness.shim import Run, ShimHarness
from tests.shim.peer import default_answer

TICKING = """
setsid sh -c 'while :; do echo child; sleep 0.01; done' &
(setsid sh -c 'while :; do echo grandchild; sleep 0.01; done' &)
while :; do echo leader; sleep 0.01; done
"""

#: Answers on the control channel as the SDK does.
COOPERATIVE = """
import json, os, socket
line = socket.socket(fileno=int(os.environ["MOSAIC_CONTROL_FD"])).makefile("r")
def say(event):
    print(json.dumps({"event": event, "run_id": os.environ["WORKER_ID"], "timestamp": 1, "payload": {}}))
say("run_started")
for text in line:
    word = json.loads(text)["control"]
    print("received", word)
    if word in ("pause", "resume"):
        say({"pause": "paused", "resume": "resumed"}[word])
    elif word == "checkpoint":
        say("checkpoint_saved")
"""

#: Ignores SIGTERM, and ends after `stop` on the control channel.
LEAVING = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{COOPERATIVE}
    elif word == "stop":
        break
"""

#: Has a control channel and never answers.
SILENT = """
import os, signal
print('{"event": "run_started", "payload": {}, "run_id": "x", "timestamp": 1}')
signal.pause()
"""


def states(run: Run) -> set[str]:
    """Return the states of all members, with T for a process that is stopped or about to stop.

    A process that waits in vfork for its child does not count as stopped.
    """
    found_processes = [found for pid in run.members() if (found := procfs.read_process(pid))]
    parents = {process.ppid for process in found_processes}
    return {
        "T" if process_table.is_stopped_or_stopping(process) and process.pid not in parents else process.state
        for process in found_processes
    }


def sizes(run: Run) -> int:
    return (run.dir / "stdout.log").stat().st_size


def test_a_freeze_stops_every_process_of_the_tree(harness: ShimHarness) -> None:
    """After `paused`, leader, child and grandchild are stopped; after `continued` all run again."""
    run = harness.launch(["sh", "-c", TICKING])
    for word in ("leader", "child\n", "grandchild"):
        run.wait_for_output(word)
    run.control("pause", mode="freeze")
    assert run.fact("paused")["mode"] == "freeze"
    assert states(run) == {"T"}
    assert len(run.members()) >= 3
    run.control("resume")
    run.fact("continued")
    assert "T" not in states(run)
    before = sizes(run)
    harness.peer.until(lambda: sizes(run) > before)
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_a_tree_that_forks_all_the_time_is_frozen(harness: ShimHarness) -> None:
    """In each of 30 pauses, every process of a tree that starts programs all the time is stopped."""
    run = harness.launch(["sh", "-c", "echo up; while :; do /bin/true; done & while :; do /bin/true; done"])
    run.wait_for_output("up")
    for count in range(1, 31):
        run.control("pause", mode="freeze")
        run.fact("paused", count=count)
        assert states(run) == {"T"}
        run.control("resume")
        run.fact("continued", count=count)
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_pause_and_resume_may_be_repeated(harness: ShimHarness) -> None:
    """Pause and resume are idempotent: a repeated request gives the same fact again."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    for count in (1, 2):
        run.control("pause", mode="freeze")
        run.fact("paused", count=count)
    for count in (1, 2):
        run.control("resume")
        run.fact("continued", count=count)
    run.control("pause", mode="freeze")
    run.fact("paused", count=3)
    assert states(run) == {"T"}
    run.control("stop", grace_s=20)
    record = run.exit()
    assert (record["signal"], record["stop"]["forced"]) == (15, False)  # a stop thaws the tree
    run.wait_until_shim_exits()


def test_a_resume_right_after_a_pause_wins(harness: ShimHarness) -> None:
    """If a resume follows a pause immediately, the run continues."""
    run = harness.launch(["sh", "-c", TICKING])
    run.wait_for_output("grandchild")
    run.control("pause", mode="freeze")
    run.control("resume")
    run.fact("continued")
    assert "T" not in states(run)
    run.control("resume")
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()


def test_a_cooperative_pause_freezes_no_process(harness: ShimHarness) -> None:
    """The worker's lines `paused` and `resumed` are the facts; no process is stopped."""
    run = harness.python(COOPERATIVE, kind="worker", cooperative=True)
    run.fact("started")
    run.control("pause", mode="cooperative")
    assert run.fact("paused")["mode"] == "cooperative"
    assert "T" not in states(run)
    run.control("resume")
    run.fact("continued")
    run.control("stop", grace_s=20)
    run.exit()
    assert [record["kind"] for record in run.telemetry()] == ["run_started", "paused", "resumed"]
    run.wait_until_shim_exits()


def test_a_pause_before_the_reply_to_a_register_is_kept(harness: ShimHarness) -> None:
    """If a pause arrives before an older reply to the register, the worker stays paused."""
    run = harness.python(LEAVING, kind="worker", cooperative=True)
    run.fact("started")

    def reply_after_pause(params: Json) -> Json:
        run.control("pause", mode="cooperative")
        run.wait_for_output('"kind":"paused"', log="telemetry.jsonl")
        return default_answer(params)

    harness.peer.answer = reply_after_pause
    harness.peer.close()
    harness.peer.open()
    assert run.fact("paused")["mode"] == "cooperative"
    run.control("pause", mode="release")
    run.exit()
    assert [record["kind"] for record in run.telemetry()] == ["run_started", "paused", "checkpoint_saved"]
    run.wait_until_shim_exits()


def test_a_worker_that_does_not_answer_is_frozen(harness: ShimHarness) -> None:
    """Without an answer within `pause_ack_timeout_s` the tree is frozen; a resume thaws it."""
    run = harness.python(SILENT, kind="worker", cooperative=True, limits={"pause_ack_timeout_s": 0.1})
    run.fact("started")
    run.control("pause", mode="cooperative")
    assert run.fact("paused")["mode"] == "freeze"
    assert states(run) == {"T"}
    run.control("resume")
    run.fact("continued")
    assert "T" not in states(run)
    run.control("stop", grace_s=1)
    run.exit()
    run.wait_until_shim_exits()


def test_a_frozen_worker_receives_the_resume_after_the_thaw(harness: ShimHarness) -> None:
    """A worker that was frozen before it read the pause also receives the resume, and continues."""
    gate = harness.gate()
    code = COOPERATIVE.replace("for text in line:", "print('busy')\nopen('gate').read()\nfor text in line:")
    run = harness.python(code, kind="worker", cooperative=True, limits={"pause_ack_timeout_s": 0.1})
    run.wait_for_output("busy")
    run.control("pause", mode="cooperative")
    assert run.fact("paused")["mode"] == "freeze"
    run.control("resume")
    run.fact("continued")
    gate.open()
    run.wait_for_output("received resume")
    run.control("stop", grace_s=1)
    run.exit()
    run.wait_until_shim_exits()


def test_a_paused_cooperative_worker_can_be_stopped(harness: ShimHarness) -> None:
    """A stop during a cooperative pause ends the worker with SIGTERM."""
    run = harness.python(COOPERATIVE, kind="worker", cooperative=True)
    run.fact("started")
    run.control("pause", mode="cooperative")
    run.fact("paused")
    run.control("stop", grace_s=20)
    assert run.exit()["signal"] == 15
    run.control("resume")
    run.wait_until_shim_exits()


def test_a_release_makes_a_checkpoint_and_ends_the_worker(harness: ShimHarness) -> None:
    """Mode `release` requests a checkpoint and a stop; exit.json has `released` and no stop."""
    run = harness.python(LEAVING, kind="worker", cooperative=True)
    run.fact("started")
    run.control("pause", mode="release")
    record = run.exit()
    assert (record["exit_code"], record["released"], record["stop"]) == (0, True, None)
    assert [line["kind"] for line in run.telemetry()] == ["run_started", "checkpoint_saved"]
    run.wait_until_shim_exits()


def test_a_killed_frozen_leader_ends_the_run(harness: ShimHarness) -> None:
    """If a frozen leader is killed, its frozen children are thawed and ended."""
    run = harness.launch(["sh", "-c", TICKING])
    run.wait_for_output("grandchild")
    run.control("pause", mode="freeze")
    run.fact("paused")
    harness.signal(run.json("started.json")["pid"], 9)
    assert run.exit()["signal"] == 9
    run.wait_until_tree_is_empty()


def test_a_pause_does_not_count_towards_the_time_limit(harness: ShimHarness) -> None:
    """The time limit counts only the time without pauses."""
    run = harness.launch(["sleep", "1000"], limits={"time_limit_s": 1.5})
    run.fact("started")
    run.control("pause", mode="freeze")
    paused_at = run.fact("paused")["at"]
    harness.peer.pump_for(1.6)
    assert not run.facts("limit_reached")
    run.control("resume")
    paused_s = run.fact("continued")["at"] - paused_at
    fact = run.fact("limit_reached")
    assert 1.5 <= fact["ran_s"] <= fact["at"] - run.json("launch.json")["at"] - paused_s + 0.01
    run.exit()
    run.wait_until_shim_exits()
