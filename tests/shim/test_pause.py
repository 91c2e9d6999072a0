"""Pause and resume: verified in /proc, or by the worker's own word."""

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

#: Answers on the control line as the SDK does, and prints an episode whenever it is not paused.
COOPERATIVE = """
import json, os, socket
line = socket.socket(fileno=int(os.environ["MOSAIC_CONTROL_FD"])).makefile("r")
def say(event):
    print(json.dumps({"event": event, "run_id": os.environ["WORKER_ID"], "timestamp": 1, "payload": {}}))
say("run_started")
for text in line:
    word = json.loads(text)["control"]
    print("told", word)
    if word in ("pause", "resume"):
        say({"pause": "paused", "resume": "resumed"}[word])
    elif word == "checkpoint":
        say("checkpoint_saved")
"""

#: Ends itself when the control line says so, and not before.
LEAVING = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{COOPERATIVE}
    elif word == "stop":
        break
"""

#: Takes the control line and never answers.
DEAF = """
import os, signal
print('{"event": "run_started", "payload": {}, "run_id": "x", "timestamp": 1}')
signal.pause()
"""


def states(run: Run) -> set[str]:
    """What the members are in; one that waits for a disk counts as stopped where it stops before it goes on.

    One that waits for a child of its own, between vfork and exec, does not: it has been left so.
    """
    looks = [found for pid in run.members() if (found := procfs.read_process(pid))]
    parents = {process.ppid for process in looks}
    return {
        "T" if process_table.is_stopped_or_stopping(process) and process.pid not in parents else process.state
        for process in looks
    }


def sizes(run: Run) -> int:
    return (run.dir / "stdout.log").stat().st_size


def test_a_frozen_tree_stands_still_to_the_last_process(harness: ShimHarness) -> None:
    """`paused` means that leader, child and grandchild are stopped; `continued` that all run again."""
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


def test_a_tree_caught_between_vfork_and_exec(harness: ShimHarness) -> None:
    """Time and again, every member of a tree that starts programs all the time is really stopped."""
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
    """Both are idempotent: asked again, the shim says again where it stands."""
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
    assert (record["signal"], record["stop"]["forced"]) == (15, False)  # a stop thaws what is frozen
    run.wait_until_shim_exits()


def test_a_resume_overtakes_a_pause(harness: ShimHarness) -> None:
    """Pause and resume in one breath leave the run running."""
    run = harness.launch(["sh", "-c", TICKING])
    run.wait_for_output("grandchild")
    run.control("pause", mode="freeze")
    run.control("resume")
    run.fact("continued")
    assert "T" not in states(run)
    run.control("resume")
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()


def test_a_cooperative_worker_is_asked(harness: ShimHarness) -> None:
    """The worker's own lines `paused` and `resumed` are the facts; nothing is frozen."""
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


def test_a_pause_that_overtakes_the_reply_to_a_register_holds(harness: ShimHarness) -> None:
    """A daemon is back, asked for a pause and tells it; its reply, made before that, comes after it."""
    run = harness.python(LEAVING, kind="worker", cooperative=True)
    run.fact("started")

    def overtaken(params: Json) -> Json:
        run.control("pause", mode="cooperative")
        run.wait_for_output('"kind":"paused"', log="telemetry.jsonl")
        return default_answer(params)

    harness.peer.answer = overtaken
    harness.peer.close()
    harness.peer.open()
    assert run.fact("paused")["mode"] == "cooperative"
    run.control("pause", mode="release")
    run.exit()
    assert [record["kind"] for record in run.telemetry()] == ["run_started", "paused", "checkpoint_saved"]
    run.wait_until_shim_exits()


def test_a_deaf_worker_is_frozen(harness: ShimHarness) -> None:
    """Without an answer in `pause_ack_timeout_s` the tree is frozen; on resume it is thawed."""
    run = harness.python(DEAF, kind="worker", cooperative=True, limits={"pause_ack_timeout_s": 0.1})
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


def test_a_worker_that_answers_late_finds_the_resume(harness: ShimHarness) -> None:
    """A worker that was frozen while it still had our question to read goes on after the thaw."""
    gate = harness.gate()
    code = COOPERATIVE.replace("for text in line:", "print('busy')\nopen('gate').read()\nfor text in line:")
    run = harness.python(code, kind="worker", cooperative=True, limits={"pause_ack_timeout_s": 0.1})
    run.wait_for_output("busy")
    run.control("pause", mode="cooperative")
    assert run.fact("paused")["mode"] == "freeze"
    run.control("resume")
    run.fact("continued")
    gate.open()
    run.wait_for_output("told resume")
    run.control("stop", grace_s=1)
    run.exit()
    run.wait_until_shim_exits()


def test_a_stop_during_a_cooperative_pause(harness: ShimHarness) -> None:
    """A paused worker ends like any other."""
    run = harness.python(COOPERATIVE, kind="worker", cooperative=True)
    run.fact("started")
    run.control("pause", mode="cooperative")
    run.fact("paused")
    run.control("stop", grace_s=20)
    assert run.exit()["signal"] == 15
    run.control("resume")
    run.wait_until_shim_exits()


def test_release_is_a_checkpoint_and_a_clean_leave(harness: ShimHarness) -> None:
    """Mode `release` asks for a checkpoint and the end; the record says released, not stopped."""
    run = harness.python(LEAVING, kind="worker", cooperative=True)
    run.fact("started")
    run.control("pause", mode="release")
    record = run.exit()
    assert (record["exit_code"], record["released"], record["stop"]) == (0, True, None)
    assert [line["kind"] for line in run.telemetry()] == ["run_started", "checkpoint_saved"]
    run.wait_until_shim_exits()


def test_a_frozen_leader_that_is_killed_from_outside(harness: ShimHarness) -> None:
    """An out-of-memory kill of a frozen leader ends the run; its frozen children are thawed and swept."""
    run = harness.launch(["sh", "-c", TICKING])
    run.wait_for_output("grandchild")
    run.control("pause", mode="freeze")
    run.fact("paused")
    harness.signal(run.json("started.json")["pid"], 9)
    assert run.exit()["signal"] == 9
    run.wait_until_tree_is_empty()


def test_a_pause_does_not_count_towards_the_time_limit(harness: ShimHarness) -> None:
    """The limit's clock stands still while the tree is frozen."""
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
