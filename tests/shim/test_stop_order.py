"""The order of signals in a stop: a program saves with the help of its children, also behind a shell."""

import pytest

from tests.harness.shim import PYTHON, Run, ShimHarness
from tests.shim import trees
from tests.shim.programs_that_save import SAVER

SHELLS = ["dash", "bash"]
LONG_S = 60.0
#: A grace period that ends with KILL in a test.
SHORT_S = 0.6
#: A program that prints that it got TERM.
TRAPPING = "sh -c 'trap \"echo TERM; exit\" TERM; echo ready; while :; do sleep 0.05; done'"


class Stage:
    """A harness with the program SAVER."""

    def __init__(self, harness: ShimHarness) -> None:
        self.harness = harness
        self.program = harness.root / "saver.py"
        self.program.write_text(SAVER)

    def saver(self, saved: str) -> str:
        """Return the command of a program that writes its parts to `saved`."""
        return f"{PYTHON} -S -E {self.program} {saved}"

    def launch(self, shell: str, script: str, **changes: object) -> Run:
        """Launch a script, and wait until its program is ready."""
        run = self.harness.launch([shell, "-c", script], **changes)
        run.wait_for_output("ready")
        return run

    def stop(self, *runs: Run, grace_s: float = LONG_S) -> None:
        """Stop runs and wait until their trees are empty."""
        for run in runs:
            run.control("stop", grace_s=grace_s, kind="by_user", who="ada", reason="enough")
        for run in runs:
            run.wait_until_tree_is_empty()

    def content(self, name: str) -> str | None:
        """Return what a program wrote to a file, None if there is no file."""
        path = self.harness.root / name
        return path.read_text() if path.exists() else None


@pytest.fixture
def stage(harness: ShimHarness) -> Stage:
    return Stage(harness)


PARTS = "part part "


def output(run: Run) -> list[str]:
    return (run.dir / "stdout.log").read_text().split()


@pytest.mark.parametrize("kind", ["command", "worker"])
def test_a_program_that_needs_its_children_saves_10_of_10(stage: Stage, kind: str) -> None:
    """While the leader lives, it alone gets TERM: its children, which end with TERM, help it to save."""
    runs = [
        stage.harness.launch([PYTHON, "-S", "-E", str(stage.program), f"saved-{index}"], kind=kind)
        for index in range(10)
    ]
    for run in runs:
        run.wait_for_output("ready")
    stage.stop(*runs)
    assert [stage.content(f"saved-{index}") for index in range(10)] == [PARTS] * 10
    assert [run.exit()["exit_code"] for run in runs] == [0] * 10


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "script", ["exec {saver}", "{saver}; echo next", "{saver} && {shell} -c '{next}; :'"]
)
def test_a_program_behind_a_shell_saves_and_the_script_ends(stage: Stage, shell: str, script: str) -> None:
    """A shell and its foreground child get TERM together; the shell does not start its next command."""
    text = script.format(saver=stage.saver("saved"), shell=shell, next="echo next")
    stage.stop(stage.launch(shell, text))
    assert stage.content("saved") == PARTS
    assert "next" not in output(stage.harness.runs[0])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_below_a_shell_gets_the_signal_too(stage: Stage, shell: str) -> None:
    """The foreground child of a shell may be a shell with a foreground child."""
    inner = stage.harness.root / "inner.sh"
    inner.write_text(f"#!/bin/{shell}\n{stage.saver('saved')}\necho next\n")
    inner.chmod(0o755)
    run = stage.launch(shell, f"{inner}; echo next")
    stage.stop(run)
    assert stage.content("saved") == PARTS
    assert output(run) == ["ready", "saved"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_with_a_pipe_to_tee_saves_and_its_output_is_complete(stage: Stage, shell: str) -> None:
    """A filter at the end of a pipe gets no signal before the last round: it ends with its input."""
    run = stage.launch(shell, f"{stage.saver('saved')} 2>&1 | tee log")
    stage.stop(run)
    assert (stage.content("saved"), stage.content("log")) == (PARTS, "ready\nsaved\n")
    assert output(run) == ["ready", "saved"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_trap_runs_after_the_program_has_saved(stage: Stage, shell: str) -> None:
    """A shell with a trap waits for its foreground child, which got TERM too, and then runs the trap."""
    run = stage.launch(shell, f"trap 'cat saved; exit 3' TERM; {stage.saver('saved')}; echo next")
    stage.stop(run)
    assert (stage.content("saved"), run.exit()["exit_code"]) == (PARTS, 3)
    assert output(run) == ["ready", "saved", "part", "part"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_that_a_trap_starts_gets_no_signal(stage: Stage, shell: str) -> None:
    """A trap may start a program to save something; it gets no TERM before the last round."""
    keeper = stage.harness.root / "keeper.sh"
    keeper.write_text("trap 'echo TERM' TERM\nsleep 0.3\necho kept\n")
    run = stage.launch(
        shell, f"trap '{shell} keeper.sh; exit 0' TERM; sh -c 'echo ready; exec sleep 1000'; :"
    )
    stage.stop(run)
    assert output(run) == ["ready", "kept"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_background_program_gets_the_signal_of_its_shell_once(stage: Stage, shell: str) -> None:
    """A trap passes TERM on to a background child, which gets it from the shim neither before nor after."""
    trap = 'trap "kill -TERM \\$!; wait" TERM'
    run = stage.launch(shell, f"{trap}; {stage.saver('saved')} & wait")
    stage.stop(run)
    assert stage.content("saved") == PARTS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_background_program_is_next_when_its_shell_has_ended(stage: Stage, shell: str) -> None:
    """A shell without a trap ends at TERM; then its background child gets TERM, and that child's children
    do not."""
    run = stage.launch(shell, f"{stage.saver('saved')} & wait")
    stage.stop(run)
    assert stage.content("saved") == PARTS
    assert run.exit()["signal"] == 15


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_that_its_script_left_behind_saves(stage: Stage, shell: str) -> None:
    """After an end of its own, the rest of the tree has the grace period, which begins with that end."""
    gate = stage.harness.gate()
    run = stage.launch(shell, f"{stage.saver('saved')} & read x < gate; exit 4", limits={"grace_s": LONG_S})
    gate.open()
    run.wait_until_tree_is_empty()
    assert (stage.content("saved"), run.exit()["exit_code"]) == (PARTS, 4)


def test_a_daemon_of_the_program_gets_the_signal_after_the_program(stage: Stage) -> None:
    """A process that left its parent by a double fork gets nothing while the leader lives."""
    code = """
import os, signal, subprocess, sys, time
script = 'trap "echo daemon; exit" TERM; echo up; while :; do sleep 0.05; done'
subprocess.run(["sh", "-c", '(setsid sh -c "$0" &)', script])
def save(*_):
    time.sleep(0.2)
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
signal.pause()
"""
    run = stage.harness.python(code)
    run.wait_for_output("ready")
    run.wait_for_output("up")
    stage.stop(run)
    words = [word for word in output(run) if word in ("saved", "daemon")]
    assert words == ["saved", "daemon"]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_pool_works_until_the_program_has_saved(stage: Stage, method: str) -> None:
    """The processes of multiprocessing work until the leader has ended, then the tree ends without KILL."""
    program = stage.harness.root / "pool.py"
    program.write_text(f"""
import multiprocessing, signal, sys, time
if __name__ == "__main__":
    terms = []
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        pool.map(abs, [1, 2])
        signal.signal(signal.SIGTERM, lambda *_: terms.append(1))
        print("ready", flush=True)
        while not terms:
            time.sleep(0.01)
        print("sum", sum(pool.map(abs, range(-100, 0))), flush=True)
""")
    run = stage.harness.launch([PYTHON, "-u", str(program)])
    run.wait_for_output("ready")
    stage.stop(run)
    assert output(run) == ["ready", "sum", "5050"]
    assert (run.exit()["exit_code"], run.exit()["stop"]["forced"]) == (0, False)


def test_a_leader_that_stays_gets_company_in_the_last_round(stage: Stage) -> None:
    """When half of a short grace period is left, all processes get TERM; at its end, KILL."""
    run = stage.launch("sh", f"trap : TERM; {TRAPPING} & while :; do wait; done")
    stage.stop(run, grace_s=SHORT_S)
    assert output(run) == ["ready", "TERM"]
    assert run.exit()["stop"]["forced"] is True


def test_to_the_leader_alone(stage: Stage) -> None:
    """With `signal_to` leader, a shell gets TERM without its foreground child, which gets it in the last
    round."""
    run = stage.launch("sh", f"trap 'echo trapped; exit' TERM; {TRAPPING}; :", signal_to="leader")
    stage.stop(run, grace_s=SHORT_S)
    assert output(run) == ["ready", "TERM", "trapped"]
    assert run.exit()["finished_at"] - run.exit()["stop"]["at"] >= SHORT_S / 2


def test_to_the_tree_at_once(stage: Stage) -> None:
    """With `signal_to` tree, all processes get TERM immediately, also the children of a living leader."""
    code = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: None)
child = subprocess.Popen(["sleep", "1000"])
print("ready", flush=True)
print(child.wait(), flush=True)
"""
    run = stage.harness.python(code, signal_to="tree")
    run.wait_for_output("ready")
    stage.stop(run)
    assert output(run) == ["ready", "-15"]


@pytest.mark.parametrize("tree", ["STUBBORN", "DISGUISED"])
def test_leftovers_that_ignore_term_are_ended_within_the_grace_period(stage: Stage, tree: str) -> None:
    """After an end of its own, KILL ends the rest of the tree when the grace period is over."""
    script = getattr(trees, tree).rpartition("while")[0]
    run = stage.harness.launch(["sh", "-c", script], limits={"grace_s": SHORT_S})
    finished_at = run.exit()["finished_at"]
    run.wait_until_tree_is_empty()
    emptied = run.fact("emptied")
    assert SHORT_S <= emptied["at"] - finished_at < SHORT_S + 1
    assert run.exit()["exit_code"] == 0


#: Saves at KeyboardInterrupt, with `finally` and atexit.
INTERRUPTED = """
import atexit, time
atexit.register(print, "atexit", flush=True)
try:
    print("ready", flush=True)
    time.sleep(1000)
except KeyboardInterrupt:
    print("saved", flush=True)
finally:
    print("finally", flush=True)
"""


@pytest.mark.parametrize("script", ["exec {program}", "{program}; echo next"])
@pytest.mark.parametrize("shell", SHELLS)
def test_int_is_a_keyboard_interrupt(stage: Stage, shell: str, script: str) -> None:
    """With the signal INT, `except KeyboardInterrupt`, `finally` and atexit run, and a script ends."""
    (stage.harness.root / "program.py").write_text(INTERRUPTED)
    run = stage.launch(shell, script.format(program=f"{PYTHON} -S -E program.py"))
    run.control("stop", grace_s=LONG_S, kind="by_user", who="ada", reason=None, signal="INT")
    run.wait_until_tree_is_empty()
    assert output(run) == ["ready", "saved", "finally", "atexit"]


def test_a_program_in_the_background_that_ignores_int_gets_term(stage: Stage) -> None:
    """A shell has its background children ignore INT; they get TERM in its place, and not only at the end."""
    run = stage.launch("bash", f"{stage.saver('saved')} & wait")
    run.control("stop", grace_s=LONG_S, kind="by_user", who="ada", reason=None, signal="INT")
    run.wait_until_tree_is_empty()
    assert stage.content("saved") == PARTS


def test_the_signal_of_a_run_and_the_last_round(stage: Stage) -> None:
    """A stop begins with the run's own signal; in the last round all processes get TERM."""
    script = "trap 'echo USR1' USR1; trap 'echo TERM; exit' TERM; echo ready; while :; do sleep 0.05; done"
    run = stage.launch("sh", script, signal="USR1")
    stage.stop(run, grace_s=SHORT_S)
    assert output(run) == ["ready", "USR1", "TERM"]
    assert run.exit()["finished_at"] - run.exit()["stop"]["at"] >= SHORT_S / 2


def test_a_second_stop_with_another_signal_sends_it(stage: Stage) -> None:
    """The processes that got the first signal get the other one immediately."""
    script = "trap 'echo USR1' USR1; trap 'echo TERM; exit' TERM; echo ready; while :; do sleep 0.05; done"
    run = stage.launch("sh", script)
    for name in ("USR1", "TERM"):
        run.control("stop", grace_s=LONG_S, kind="by_user", who="ada", reason=None, signal=name)
        run.wait_for_output(name)
    run.wait_until_tree_is_empty()
    assert output(run) == ["ready", "USR1", "TERM"]


@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("USR1", 143)])
def test_a_release_with_a_signal_of_the_run_accepts_its_exit_code(stage: Stage, name: str, code: int) -> None:
    """A worker that ends for a release with 128 plus the signal is released."""
    program = f"""
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: sys.exit({code}))
print("ready", flush=True)
signal.pause()
"""
    run = stage.harness.python(program, kind="worker", signal=name)
    run.wait_for_output("ready")
    run.control("pause", mode="release")
    record = run.exit()
    assert (record["exit_code"], record["released"]) == (code, True)


def test_after_an_end_of_its_own_the_rest_gets_term(stage: Stage) -> None:
    """The signal of the run is for stops and limits."""
    gate = stage.harness.gate()
    script = f"{stage.saver('saved')} & read x < gate"
    run = stage.launch("sh", script, signal="USR1", limits={"grace_s": LONG_S})
    gate.open()
    run.wait_until_tree_is_empty()
    assert stage.content("saved") == PARTS


def test_leftovers_of_a_stop_share_its_deadline(stage: Stage) -> None:
    """If the leader ends during a stop, the grace period does not begin again for the rest of the tree."""
    stubborn = "sh -c 'trap \"\" TERM; while :; do sleep 0.05; done'"
    run = stage.launch("sh", f"trap 'sleep 0.3; exit 0' TERM; {stubborn} & echo ready; wait")
    stage.stop(run, grace_s=SHORT_S)
    record, emptied = run.exit(), run.fact("emptied")
    assert (record["exit_code"], record["stop"]["forced"]) == (0, False)
    assert SHORT_S - 0.01 <= emptied["at"] - record["stop"]["at"] < SHORT_S + 1


def test_a_program_that_reaches_a_limit_saves(stage: Stage) -> None:
    """A limit keeps the order of a stop."""
    script = f"{stage.saver('saved')}; echo next"
    run = stage.launch("bash", script, limits={"grace_s": LONG_S, "time_limit_s": 1.0})
    run.wait_until_tree_is_empty()
    assert (stage.content("saved"), run.exit()["stop"]["kind"]) == (PARTS, "time_limit")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tree_of_a_dead_shim_saves_too(stage: Stage, shell: str) -> None:
    """A teardown shim keeps the order of signals: the shell and its foreground child, then the rest."""
    run = stage.launch(shell, f"{stage.saver('saved')}; echo next > next")
    stage.harness.signal(run.shim_pid, 9)
    run.wait_until_shim_exits()
    stage.harness.teardown(run, grace_s=LONG_S)
    assert stage.content("saved") == PARTS
    assert stage.content("next") is None
    assert not run.json("teardown.json")["forced"]
