"""The daemon stops and comes back: no fact is lost or sent twice, and every wait ends."""

import time

from mosaicd.protocol import Json
from tests.harness.shim import ShimHarness

STEPS = """
import sys
for n in range(%d):
    print('{"type": "step", "step_index": %%d}' %% n)
sys.stdout.flush()
"""


def test_a_run_ends_while_the_daemon_is_away_for_a_moment(harness: ShimHarness) -> None:
    """The shim registers again with everything it did, and delivers what was not acknowledged."""
    gate = harness.gate()
    run = harness.python("open('gate').read()\n" + STEPS % 500)
    run.fact("started")
    harness.peer.close()
    gate.open()
    harness.peer.until(lambda: run.has("exit.json"))
    harness.peer.open()
    assert run.exit()["exit_code"] == 0
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    again = harness.peer.registers[-1]["status"]
    assert again["spawned"]["pid"] == run.json("started.json")["pid"]
    assert (again["exit"]["telemetry_seq"], again["swept"]) == (500, True)
    assert [line["seq"] for line in run.telemetry()] == list(range(1, 501))
    run.wait_until_shim_exits()


def test_the_daemon_comes_back_to_a_living_run(harness: ShimHarness) -> None:
    """A restarted daemon finds the same process, and may pause and stop it as before."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    pid = run.json("started.json")["pid"]
    for count in (2, 3):
        harness.peer.close()
        harness.peer.open()
        harness.peer.wait_for_registers(count)
    assert harness.peer.registers[-1]["status"]["spawned"]["pid"] == pid
    run.control("pause", mode="freeze")
    run.fact("paused")
    harness.peer.close()
    harness.peer.answer = lambda _: {"order": "attach", "want": "pause", "pause_mode": "freeze", "grace_s": 1}
    harness.peer.open()
    status = harness.peer.until(lambda: harness.peer.registers[3:])[0]["status"]
    assert (status["frozen"], status["paused_mode"]) == (True, "freeze")
    assert status["frozen_at"] == run.fact("paused")["at"]
    run.control("resume")
    thawed_at = run.fact("continued")["at"]
    harness.peer.close()
    harness.peer.answer = lambda _: {"order": "attach", "want": "run", "pause_mode": None, "grace_s": 1}
    harness.peer.open()
    status = harness.peer.until(lambda: harness.peer.registers[4:])[0]["status"]
    assert (status["frozen"], status["thawed_at"]) == (False, thawed_at)
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_what_was_wanted_meanwhile_is_done_at_the_register(harness: ShimHarness) -> None:
    """A pause, a resume and a stop that were asked while no shim was connected act at the next register."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    answers: list[tuple[Json, str]] = [
        ({"order": "attach", "want": "pause", "pause_mode": "freeze"}, "paused"),
        ({"order": "attach", "want": "run", "pause_mode": None}, "continued"),
        (
            {"order": "stop", "want": "stop", "grace_s": 2, "stop": {"kind": "by_user", "who": "ada"}},
            "exited",
        ),
    ]
    for answer, name in answers:
        harness.peer.close()
        harness.peer.answer = lambda _, answer=answer: answer  # type: ignore[misc]
        harness.peer.open()
        run.fact(name)
    assert run.exit()["stop"]["who"] == "ada"
    run.wait_until_shim_exits()


def test_a_daemon_that_does_not_acknowledge(harness: ShimHarness) -> None:
    """Facts that were sent and not acknowledged are sent again, in their order."""
    harness.peer.acknowledges = False
    run = harness.launch(["true"])
    harness.peer.until(lambda: run.has("exit.json"))
    assert not run.facts()
    harness.peer.close()
    harness.peer.acknowledges = True
    harness.peer.open()
    run.exit()
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    run.wait_until_shim_exits()


def test_the_shim_leaves_when_all_is_on_the_disk(harness: ShimHarness) -> None:
    """With the daemon away for long, an ended run needs no process any more."""
    run = harness.launch(["sh", "-c", "sleep 0.1; exit 9"])
    run.fact("started")
    harness.peer.close()
    harness.peer.until(lambda: run.has("exit.json"))
    run.wait_until_shim_exits()
    assert run.json("exit.json")["exit_code"] == 9


def test_waiting_for_the_daemon_costs_next_to_nothing(harness: ShimHarness) -> None:
    """The shim of a living run tries a few times a second, and no more."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    harness.peer.close()
    before, began = harness.context_switches(run.shim_pid), time.monotonic()
    spent_s = harness.cpu_s(run.shim_pid)
    harness.peer.until(lambda: harness.context_switches(run.shim_pid) >= before + 10)
    took_s = time.monotonic() - began
    assert harness.context_switches(run.shim_pid) - before <= 10 + 6 * took_s, took_s
    assert harness.cpu_s(run.shim_pid) - spent_s <= 0.05 + 0.02 * took_s, took_s
    harness.peer.open()
    harness.peer.until(lambda: len(harness.peer.registers) == 2)
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()


def test_a_refused_register_leaves_a_living_tree_alone(harness: ShimHarness) -> None:
    """A daemon that does not know us yet (it is reading its registry) is asked again."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    harness.peer.close()
    harness.peer.answer = lambda _: {"error": {"code": -32008, "message": "not yet"}}
    harness.peer.open()
    harness.peer.until(lambda: len(harness.peer.registers) >= 3)
    harness.peer.answer = lambda _: {"order": "attach", "want": "run"}
    harness.peer.until(lambda: len(harness.peer.registers) >= 4)
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_a_shim_whose_run_has_ended_leaves_when_it_is_refused(harness: ShimHarness) -> None:
    """A daemon that does not know an ended run refuses its shim once, and the shim leaves at once."""
    harness.peer.acknowledges = False
    run = harness.launch(["true"])
    harness.peer.until(lambda: run.has("exit.json"))
    harness.peer.close()
    before = len(harness.peer.registers)
    harness.peer.answer = lambda _: {"error": {"code": -32008, "message": "not known"}}
    harness.peer.open()
    run.wait_until_shim_exits()
    assert len(harness.peer.registers) == before + 1
