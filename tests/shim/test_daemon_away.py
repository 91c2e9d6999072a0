"""The daemon goes and comes back: nothing is lost, nothing is told twice, nobody waits in vain."""

import time

from tests.shim.house import House
from tests.shim.peer import Message

STEPS = """
import sys
for n in range(%d):
    print('{"type": "step", "step_index": %%d}' %% n)
sys.stdout.flush()
"""


def test_a_run_ends_while_the_daemon_is_away_for_a_moment(house: House) -> None:
    """The shim registers again with everything it did, and delivers what was not acknowledged."""
    gate = house.gate()
    run = house.python("open('gate').read()\n" + STEPS % 500)
    run.fact("started")
    house.peer.close()
    gate.open()
    house.peer.until(lambda: run.has("exit.json"))
    house.peer.open()
    assert run.exit()["exit_code"] == 0
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    again = house.peer.registers[-1]["status"]
    assert again["spawned"]["pid"] == run.json("started.json")["pid"]
    assert (again["exit"]["telemetry_seq"], again["swept"]) == (500, True)
    assert [line["seq"] for line in run.telemetry()] == list(range(1, 501))
    run.leaves()


def test_the_daemon_comes_back_to_a_living_run(house: House) -> None:
    """A restarted daemon finds the same process, and may pause and stop it as before."""
    run = house.launch(["sleep", "1000"])
    run.fact("started")
    pid = run.json("started.json")["pid"]
    for count in (2, 3):
        house.peer.close()
        house.peer.open()
        house.peer.until(lambda count=count: len(house.peer.registers) == count)  # type: ignore[misc]
    assert house.peer.registers[-1]["status"]["spawned"]["pid"] == pid
    run.control("pause", mode="freeze")
    run.fact("paused")
    house.peer.close()
    house.peer.answer = lambda _: {"order": "attach", "want": "pause", "pause_mode": "freeze", "grace_s": 1}
    house.peer.open()
    status = house.peer.until(lambda: house.peer.registers[3:])[0]["status"]
    assert (status["frozen"], status["paused_mode"]) == (True, "freeze")
    assert status["frozen_at"] == run.fact("paused")["at"]
    run.control("resume")
    thawed_at = run.fact("continued")["at"]
    house.peer.close()
    house.peer.answer = lambda _: {"order": "attach", "want": "run", "pause_mode": None, "grace_s": 1}
    house.peer.open()
    status = house.peer.until(lambda: house.peer.registers[4:])[0]["status"]
    assert (status["frozen"], status["thawed_at"]) == (False, thawed_at)
    run.control("stop", grace_s=1)
    run.ends_empty()


def test_what_was_wanted_meanwhile_is_done_at_the_register(house: House) -> None:
    """A pause, a resume and a stop that were asked while no shim was connected act at the next register."""
    run = house.launch(["sleep", "1000"])
    run.fact("started")
    answers: list[tuple[Message, str]] = [
        ({"order": "attach", "want": "pause", "pause_mode": "freeze"}, "paused"),
        ({"order": "attach", "want": "run", "pause_mode": None}, "continued"),
        (
            {"order": "stop", "want": "stop", "grace_s": 2, "stop": {"kind": "by_user", "who": "ada"}},
            "exited",
        ),
    ]
    for answer, name in answers:
        house.peer.close()
        house.peer.answer = lambda _, answer=answer: answer  # type: ignore[misc]
        house.peer.open()
        run.fact(name)
    assert run.exit()["stop"]["who"] == "ada"
    run.leaves()


def test_a_daemon_that_does_not_acknowledge(house: House) -> None:
    """Facts that were sent and not acknowledged are sent again, in their order."""
    house.peer.acknowledges = False
    run = house.launch(["true"])
    house.peer.until(lambda: run.has("exit.json"))
    assert not run.facts()
    house.peer.close()
    house.peer.acknowledges = True
    house.peer.open()
    run.exit()
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    run.leaves()


def test_the_shim_leaves_when_all_is_on_the_disk(house: House) -> None:
    """With the daemon away for long, an ended run needs no process any more."""
    run = house.launch(["sh", "-c", "sleep 0.1; exit 9"])
    run.fact("started")
    house.peer.close()
    house.peer.until(lambda: run.has("exit.json"))
    run.leaves()
    assert run.json("exit.json")["exit_code"] == 9


def test_waiting_for_the_daemon_costs_next_to_nothing(house: House) -> None:
    """The shim of a living run tries a few times a second, and no more."""
    run = house.launch(["sleep", "1000"])
    run.fact("started")
    house.peer.close()
    before, began = house.wakes(run.shim_pid), time.monotonic()
    spent_s = house.cpu_s(run.shim_pid)
    house.peer.until(lambda: house.wakes(run.shim_pid) >= before + 10)
    took_s = time.monotonic() - began
    assert house.wakes(run.shim_pid) - before <= 10 + 6 * took_s, took_s
    assert house.cpu_s(run.shim_pid) - spent_s <= 0.05 + 0.02 * took_s, took_s
    house.peer.open()
    house.peer.until(lambda: len(house.peer.registers) == 2)
    run.control("stop", grace_s=0)
    run.ends_empty()


def test_a_refused_register_leaves_a_living_tree_alone(house: House) -> None:
    """A daemon that does not know us yet (it is reading its registry) is asked again."""
    run = house.launch(["sleep", "1000"])
    run.fact("started")
    house.peer.close()
    house.peer.answer = lambda _: {"error": {"code": -32008, "message": "not yet"}}
    house.peer.open()
    house.peer.until(lambda: len(house.peer.registers) >= 3)
    house.peer.answer = lambda _: {"order": "attach", "want": "run"}
    house.peer.until(lambda: len(house.peer.registers) >= 4)
    run.control("stop", grace_s=1)
    run.ends_empty()
