"""Launch and teardown orders: locks, repeated orders, refusals, and a killed launcher."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from mosaicd import launcher, procfs
from mosaicd.protocol import Json
from tests.harness.shim import PYTHON, TIMEOUT_S, ShimHarness
from tests.harness.waiting import wait_until
from tests.shim import trees


def test_a_repeated_launch_order_starts_no_second_worker(harness: ShimHarness) -> None:
    """A second shim of an attempt finds its lock held and exits with 0 without a register."""
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
    """If launch.json exists, a later shim exits although the lock is free."""
    run = harness.launch(["true"])
    run.exit()
    run.wait_until_shim_exits()
    harness.send(run)
    run.wait_until_shim_exits()
    assert len(harness.peer.registers) == 1


def test_a_shim_exits_after_the_handshake_timeout(harness: ShimHarness) -> None:
    """If the daemon never accepts it, the shim writes exit.json, starts no worker, and exits."""
    harness.peer.close()
    run = harness.launch(["touch", "made"], limits={"handshake_timeout_s": 0.3})
    run.wait_until_shim_exits()
    content = run.json("exit.json")
    assert (content["fault"], content["swept"]) == ("handshake_timeout", True)
    assert content["error"] == "the daemon did not accept this shim within 0.3 s"
    assert not (harness.root / "made").exists()


def test_a_shim_waits_for_a_daemon_that_restarts(harness: ShimHarness) -> None:
    """If the daemon restarts right after the order, the shim starts its worker when it is accepted."""
    harness.peer.close()
    run = harness.launch(["true"])
    harness.peer.until(lambda: run.has("launch.json"))
    harness.peer.open()
    assert run.exit()["exit_code"] == 0
    run.wait_until_shim_exits()


@pytest.mark.parametrize("code", [-32008, -32003, -32001])
def test_a_refused_shim_exits_without_a_worker(harness: ShimHarness, code: int) -> None:
    """A shim that the daemon refuses before the start exits without exit.json."""
    harness.peer.answer = lambda _: {"error": {"code": code, "message": "no"}}
    run = harness.launch(["touch", "made"])
    run.wait_until_shim_exits()
    assert not (harness.root / "made").exists()
    assert not run.has("exit.json")


def test_a_shim_registers_again_if_the_daemon_is_unavailable(harness: ShimHarness) -> None:
    """Errors other than a refusal are temporary."""
    later = {"code": -32005, "message": "later"}
    answers: list[Json] = [{"error": later}, {"order": "start", "want": "run"}]
    harness.peer.answer = lambda _: answers.pop(0)
    assert harness.launch(["true"]).exit()["exit_code"] == 0


def test_a_shim_has_no_descriptor_of_launcher_or_daemon(harness: ShimHarness) -> None:
    """A shim has its own session and process name, /dev/null as stdio, and only its own files and sockets."""
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


def test_shims_and_workers_survive_a_killed_launcher(harness: ShimHarness) -> None:
    """After a kill -9 of the launcher, its shims and workers continue and end normally."""
    gate = harness.gate()
    run = harness.launch(["sh", "-c", "read x < gate; exit 6"])
    run.fact("started")
    harness.signal(harness.launcher.pid, signal.SIGKILL)
    harness.launcher.wait(TIMEOUT_S)
    harness.start_launcher()
    gate.open()
    assert run.exit()["exit_code"] == 6
    run.wait_until_shim_exits()
    assert harness.launch(["true"]).exit()["exit_code"] == 0


def test_the_launcher_exits_at_the_end_of_its_socket(harness: ShimHarness) -> None:
    """The launcher ignores SIGINT and SIGHUP, and exits when its socket is closed."""
    harness.launch(["true"]).exit()
    for number in (signal.SIGINT, signal.SIGHUP):
        harness.signal(harness.launcher.pid, number)
    harness.launch(["true"]).exit()
    assert os.getsid(harness.launcher.pid) == harness.launcher.pid
    harness.close_orders()
    assert harness.launcher.wait(TIMEOUT_S) == 0
    harness.start_launcher()


def test_the_launcher_ignores_pythonpath_and_working_directory(tmp_path: Path) -> None:
    """The command of the launcher imports the installed mosaicd, from any directory with any PYTHONPATH."""
    (tmp_path / "mosaicd.py").write_text("raise SystemExit('the wrong one')")
    argv = launcher.command(0)
    done = subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the wrong one" not in done.stderr
    assert "not a socket" in done.stderr.lower() or "non-socket" in done.stderr


def test_the_check_of_a_tree_lists_all_its_processes(harness: ShimHarness) -> None:
    """The reply has processes with the marker and all descendants of the shim, also without the marker."""
    run = harness.launch(["sh", "-c", trees.DISGUISED])
    run.wait_for_output("ready")
    # The three shells, and those of their `sleep` processes that exist at that moment.
    answer = wait_until(
        lambda: harness.is_empty(run), lambda found: len(found["pids"]) >= 5, "five processes live"
    )
    assert answer["empty"] is False
    assert set(answer["pids"]) >= {run.json("started.json")["pid"]}
    run.control("stop", grace_s=0)
    run.wait_until_tree_is_empty()
    assert harness.is_empty(run)["empty"] is True


@pytest.mark.parametrize("tree", ["STUBBORN", "DISGUISED_CHILD"])
def test_a_teardown_shim_ends_the_tree_of_a_killed_shim(harness: ShimHarness, tree: str) -> None:
    """A teardown shim finds orphans by leader, session, marker and parents, and ends all of them."""
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


def test_a_teardown_does_nothing_while_the_shim_lives(harness: ShimHarness) -> None:
    """If the lock of the attempt is held, the teardown shim exits."""
    run = harness.launch(["sleep", "1000"])
    run.fact("started")
    assert harness.teardown(run)["status"] == 0
    assert psutil.pid_exists(run.json("started.json")["pid"])
    assert not run.has("teardown.json")
    run.control("stop", grace_s=1)
    run.wait_until_tree_is_empty()


def test_a_teardown_does_not_signal_a_reused_pid(harness: ShimHarness) -> None:
    """If the pid of the leader belongs to another process now, no signal is sent."""
    argv = [PYTHON, "-S", "-c", "input()"]
    bystander = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    run = harness.make(["true"])
    run.dir.mkdir(parents=True)
    start = procfs.read_start_ticks(bystander.pid)
    assert start is not None
    (run.dir / "started.json").write_text(f'{{"pid": {bystander.pid}, "start_ticks": {start - 1}}}')
    harness.teardown(run)
    assert bystander.poll() is None
    bystander.communicate(b"\n", timeout=TIMEOUT_S)
    assert bystander.returncode == 0


@pytest.mark.parametrize(
    ("pause", "checkpoint"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_the_capabilities_of_the_worker_are_registered(
    harness: ShimHarness, pause: bool, checkpoint: bool
) -> None:
    """A shim registers whether its worker can pause and whether it can save checkpoints, as ordered."""
    run = harness.launch(["true"], cooperative=pause, supports_checkpoint=checkpoint)
    harness.peer.wait_for_registers(1)
    register = harness.peer.registers[0]
    assert (register["supports_pause"], register["supports_checkpoint"]) == (pause, checkpoint)
    run.wait_until_shim_exits()
