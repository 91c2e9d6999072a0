"""The daemon is away for a while: no fact is lost or recorded twice, and every wait of the shim ends."""

import time

from mosaicd.protocol import Json
from tests.harness.shim import ShimHarness

HEARTBEAT_S = 5.0  # an advance without new values is sent this often
STEPS = """
import sys
for n in range(%d):
    print('{"type": "step", "step_index": %%d}' %% n)
sys.stdout.flush()
"""


def test_a_run_that_ends_without_a_daemon_is_reported_later(harness: ShimHarness) -> None:
    """The shim registers again with its complete status, and sends the facts that were not acknowledged."""
    gate = harness.gate()
    run = harness.python("open('gate').read()\n" + STEPS % 500)
    run.fact("started")
    harness.peer.close()
    gate.open()
    harness.peer.until(lambda: run.has("exit.json"))
    harness.peer.open()
    assert run.exit()["exit_code"] == 0
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    status = harness.peer.registers[-1]["status"]
    assert status["spawned"]["pid"] == run.json("started.json")["pid"]
    assert (status["exit"]["telemetry_seq"], status["swept"]) == (500, True)
    assert [line["seq"] for line in run.telemetry()] == list(range(1, 501))
    run.wait_until_shim_exits()


def test_a_restarted_daemon_receives_the_last_values_at_once(harness: ShimHarness) -> None:
    """The daemon may die before it saves an advance; the shim sends the values after its next register."""
    gate = harness.gate()
    run = harness.python(STEPS % 3 + "open('gate').read()")
    harness.peer.until(lambda: (harness.peer.last_advance(run.run_id) or {}).get("telemetry_seq") == 3)
    steps = harness.peer.advances[-1]["steps"]
    harness.peer.close()
    harness.peer.advances.clear()
    harness.peer.open()
    harness.peer.wait_for_registers(2)
    registered_at = time.time()
    advance = harness.peer.until(lambda: harness.peer.last_advance(run.run_id))
    assert advance is not None
    assert (advance["telemetry_seq"], advance["steps"]) == (3, steps)
    assert advance["beat_at"] - registered_at < 0.8 * HEARTBEAT_S
    gate.open()
    run.wait_until_shim_exits()


def test_a_restarted_daemon_controls_a_living_run(harness: ShimHarness) -> None:
    """After a restart of the daemon the run has the same process, and can be paused, resumed and stopped."""
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


def test_a_request_without_a_connection_acts_at_the_next_register(harness: ShimHarness) -> None:
    """The reply to a register carries a pause, resume or stop that was requested meanwhile."""
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


def test_unacknowledged_facts_are_sent_again_in_order(harness: ShimHarness) -> None:
    """After a new connection the shim sends all facts that were not acknowledged."""
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


def test_a_shim_without_a_daemon_exits_after_exit_json_is_written(harness: ShimHarness) -> None:
    """If the daemon is away when the run ends, the shim writes exit.json and exits."""
    run = harness.launch(["sh", "-c", "sleep 0.1; exit 9"])
    run.fact("started")
    harness.peer.close()
    harness.peer.until(lambda: run.has("exit.json"))
    run.wait_until_shim_exits()
    assert run.json("exit.json")["exit_code"] == 9


def test_a_shim_without_a_daemon_retries_a_few_times_a_second(harness: ShimHarness) -> None:
    """A shim that waits for the daemon makes at most six wake-ups a second and uses 2 % of a CPU."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    harness.peer.close()
    before, began = harness.context_switches(run.shim_pid), time.monotonic()
    spent_s = harness.cpu_s(run.shim_pid)
    harness.peer.until(lambda: harness.context_switches(run.shim_pid) >= before + 10)
    elapsed_s = time.monotonic() - began
    assert harness.context_switches(run.shim_pid) - before <= 10 + 6 * elapsed_s, elapsed_s
    assert harness.cpu_s(run.shim_pid) - spent_s <= 0.05 + 0.02 * elapsed_s, elapsed_s
    harness.peer.open()
    harness.peer.until(lambda: len(harness.peer.registers) == 2)
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()


def test_a_refused_register_does_not_end_a_living_run(harness: ShimHarness) -> None:
    """If the daemon refuses the register of a living run, the shim registers again."""
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


def test_a_shim_of_an_ended_run_exits_after_a_refused_register(harness: ShimHarness) -> None:
    """If the daemon does not know an ended run, its shim exits after one refused register."""
    harness.peer.acknowledges = False
    run = harness.launch(["true"])
    harness.peer.until(lambda: run.has("exit.json"))
    harness.peer.close()
    before = len(harness.peer.registers)
    harness.peer.answer = lambda _: {"error": {"code": -32008, "message": "not known"}}
    harness.peer.open()
    run.wait_until_shim_exits()
    assert len(harness.peer.registers) == before + 1
