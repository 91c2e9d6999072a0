"""Orders: locks, repeats, refusals, the launcher's own life, and teardown."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from mosaicd import launcher, procfs
from mosaicd.protocol import Json
from mosaicd.shim.attempt_dir import AttemptDir, AttemptTaken
from tests.harness.shim import PATIENCE_S, PYTHON, ShimHarness
from tests.harness.waiting import wait_until
from tests.shim import trees


def test_a_repeated_order_starts_nothing(harness: ShimHarness) -> None:
    """A second shim finds the lock taken and leaves without a word."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    first, started = (run.shim_pid, run.shim_start), run.json("started.json")
    harness.send(run)
    second = run.shim_pid
    fact = harness.receive(lambda m: m.get("fact") == "reaped" and m["pid"] == second)
    assert (fact["status"], fact["run_id"], fact["attempt"]) == (0, run.run_id, 1)
    run.shim_pid, run.shim_start = first
    assert run.json("started.json") == started
    assert len(harness.peer.registers) == 1
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_an_attempt_is_never_started_twice(harness: ShimHarness) -> None:
    """With the lock free, launch.json alone shows that a shim has begun the attempt."""
    run = harness.launch(["true"])
    run.exit()
    run.wait_until_shim_exits()
    harness.send(run)
    run.wait_until_shim_exits()
    assert len(harness.peer.registers) == 1


def test_a_daemon_that_never_accepts(harness: ShimHarness) -> None:
    """After the handshake timeout the shim says so on the disk and leaves; nothing was started."""
    harness.peer.close()
    run = harness.launch(["touch", "made"], limits={"handshake_timeout_s": 0.3})
    run.wait_until_shim_exits()
    content = run.json("exit.json")
    assert (content["fault"], content["swept"]) == ("handshake_timeout", True)
    assert content["error"] == "the daemon did not accept this shim within 0.3 s"
    assert not (harness.root / "made").exists()


def test_a_daemon_that_comes_late(harness: ShimHarness) -> None:
    """A shim whose daemon restarts right after the order waits for it, and starts then."""
    harness.peer.close()
    run = harness.launch(["true"])
    harness.peer.until(lambda: run.has("launch.json"))
    harness.peer.open()
    assert run.exit()["exit_code"] == 0
    run.wait_until_shim_exits()


@pytest.mark.parametrize("code", [-32008, -32003, -32001])
def test_a_refused_shim_leaves(harness: ShimHarness, code: int) -> None:
    """A shim that the daemon does not know, and that has started nothing, goes."""
    harness.peer.answer = lambda _: {"error": {"code": code, "message": "no"}}
    run = harness.launch(["touch", "made"])
    run.wait_until_shim_exits()
    assert not (harness.root / "made").exists()
    assert not run.has("exit.json")


def test_an_unavailable_daemon_is_asked_again(harness: ShimHarness) -> None:
    """Any other error is the daemon's trouble of the moment."""
    later = {"code": -32005, "message": "later"}
    answers: list[Json] = [{"error": later}, {"order": "start", "want": "run"}]
    harness.peer.answer = lambda _: answers.pop(0)
    assert harness.launch(["true"]).exit()["exit_code"] == 0


def test_a_shim_holds_nothing_of_its_makers(harness: ShimHarness) -> None:
    """No terminal, no order socket, no output of the daemon's; a session and a name of its own."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    fds = {fd: os.readlink(f"/proc/{run.shim_pid}/fd/{fd}") for fd in os.listdir(f"/proc/{run.shim_pid}/fd")}
    assert {fds[fd] for fd in "012"} == {"/dev/null"}
    assert harness.orders
    order_socket = os.readlink(f"/proc/self/fd/{harness.orders.fileno()}")
    assert order_socket not in fds.values()
    kinds = sorted(target.split(":")[0] if ":" in target else Path(target).name for target in fds.values())
    assert kinds == sorted([
        *["null"] * 3, "attempt-1", "log.index", "stdout.log", "stderr.log", "telemetry.jsonl",
        *["pipe"] * 4, "socket",
    ])  # fmt: skip
    assert os.getsid(run.shim_pid) == run.shim_pid
    assert Path(f"/proc/{run.shim_pid}/comm").read_text() == "mosaic-shim\n"
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_a_killed_launcher_takes_nobody_along(harness: ShimHarness) -> None:
    """kill -9 of the launcher: shims and workers live on, and end as they should."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "read x < gate; exit 6"])
    run.fact("started")
    harness.signal(harness.launcher.pid, signal.SIGKILL)
    harness.launcher.wait(PATIENCE_S)
    harness.start_launcher()
    gate.open()
    assert run.exit()["exit_code"] == 6
    run.wait_until_shim_exits()
    assert harness.launch(["true"]).exit()["exit_code"] == 0


def test_the_launcher_ends_with_its_socket(harness: ShimHarness) -> None:
    """End of file is its order to go; a Ctrl-C in the daemon's terminal is not."""
    harness.launch(["true"]).exit()
    for number in (signal.SIGINT, signal.SIGHUP):
        harness.signal(harness.launcher.pid, number)
    harness.launch(["true"]).exit()
    assert os.getsid(harness.launcher.pid) == harness.launcher.pid
    harness.close_orders()
    assert harness.launcher.wait(PATIENCE_S) == 0
    harness.start_launcher()


def test_the_launchers_environment_does_not_matter(tmp_path: Path) -> None:
    """`command` works from any directory, with any PYTHONPATH, also broken ones."""
    (tmp_path / "mosaicd.py").write_text("raise SystemExit('the wrong one')")
    argv = launcher.command(0)
    done = subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the wrong one" not in done.stderr
    assert "not a socket" in done.stderr.lower() or "non-socket" in done.stderr


def test_is_empty_names_what_lives(harness: ShimHarness) -> None:
    """The answer covers marked processes and everything below the shim, disguised or not."""
    run = harness.launch(["sh", "-c", trees.DISGUISED])
    run.wait_for_output("ready")
    # The three shells, and of their `sleep`s those that are there at the instant of the look.
    answer = wait_until(
        lambda: harness.is_empty(run), lambda found: len(found["pids"]) >= 5, "five processes live"
    )
    assert answer["empty"] is False
    assert set(answer["pids"]) >= {run.json("started.json")["pid"]}
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()
    assert harness.is_empty(run)["empty"] is True


@pytest.mark.parametrize("tree", ["STUBBORN", "DISGUISED_CHILD"])
def test_the_orphans_of_a_killed_shim_are_ended(harness: ShimHarness, tree: str) -> None:
    """A teardown shim finds the tree by leader, session, marker and descent, and ends all of it."""
    run = harness.launch(["sh", "-c", getattr(trees, tree)])
    run.wait_for_output("ready")
    harness.peer.until(lambda: len(run.members()) >= 3)
    orphans = run.members()
    harness.signal(run.shim_pid, signal.SIGKILL)
    run.wait_until_shim_exits()
    assert harness.is_empty(run)["empty"] is False
    assert harness.teardown(run)["status"] == 0
    assert [pid for pid in orphans if (found := procfs.read_process(pid)) and found.is_alive] == []
    assert harness.is_empty(run)["empty"] is True
    assert run.json("teardown.json")["forced"] is True
    assert not run.has("exit.json")


def test_a_teardown_leaves_a_living_shim_alone(harness: ShimHarness) -> None:
    """If the lock is taken, another shim has the attempt."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    assert harness.teardown(run)["status"] == 0
    assert psutil.pid_exists(run.json("started.json")["pid"])
    assert not run.has("teardown.json")
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_a_recycled_pid_is_not_hit(harness: ShimHarness) -> None:
    """A teardown for a leader whose pid belongs to another process now signals no process."""
    argv = [PYTHON, "-S", "-c", "input()"]
    bystander = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    run = harness.make(["true"])
    run.dir.mkdir(parents=True)
    start = procfs.read_start_ticks(bystander.pid)
    assert start is not None
    (run.dir / "started.json").write_text(f'{{"pid": {bystander.pid}, "start_ticks": {start - 1}}}')
    harness.teardown(run)
    assert bystander.poll() is None
    bystander.communicate(b"\n", timeout=PATIENCE_S)
    assert bystander.returncode == 0


def test_a_lock_is_the_directorys(tmp_path: Path) -> None:
    """Two holders of one attempt are impossible, in one process or two."""
    attempt_dir = AttemptDir(str(tmp_path))
    with pytest.raises(AttemptTaken):
        AttemptDir(str(tmp_path))
    os.close(attempt_dir.dir_fd)
    os.close(AttemptDir(str(tmp_path)).dir_fd)
