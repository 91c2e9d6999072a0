"""The start and end of a plain command: exact codes, signals and records, in exit.json and in the facts."""

import errno
import json

import psutil
import pytest

from mosaicd.protocol.records.orders import ProcessAttributes
from mosaicd.shim import child, worker_steps
from tests.harness.shim import ShimHarness


@pytest.mark.parametrize("code", [0, 1, 7, 200, 255])
def test_the_exit_code_is_exact(harness: ShimHarness, code: int) -> None:
    """`exit N` gives exit code N in exit.json and in the fact, and the shim exits."""
    run = harness.launch(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    record = run.exit()
    assert (record["exit_code"], record["signal"]) == (code, None)
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    reported = run.fact("exited")
    assert {key: reported[key] for key in record} == record
    assert (run.dir / "stdout.log").read_bytes() == b"out\n"
    assert (run.dir / "stderr.log").read_bytes() == b"err\n"
    assert record["swept"] is True
    run.wait_until_shim_exits()


def test_a_segfault_is_signal_11(harness: ShimHarness) -> None:
    """A leader that a signal ended has a signal and no exit code."""
    record = harness.launch(["sh", "-c", "kill -SEGV $$"]).exit()
    assert (record["exit_code"], record["signal"], record["stop"]) == (None, 11, None)


def test_a_missing_program_is_spawn_failed(harness: ShimHarness) -> None:
    """ENOENT is `spawn_failed` with the text of the system, and no started.json exists."""
    run = harness.launch(["no-such-program-here"])
    fact = run.fact("spawn_failed")
    assert fact["errno"] == 2
    assert fact["error"] == "no-such-program-here: No such file or directory"
    record = run.json("exit.json")
    assert (record["fault"], record["exit_code"], record["swept"]) == ("spawn_failed", None, True)
    assert fact["exit"] == record
    assert not run.has("started.json")
    run.wait_until_shim_exits()


@pytest.mark.parametrize(
    ("argv", "changes", "words"),
    [
        (["true"], {"cwd": "/no/such/place"}, "/no/such/place"),
        (["/etc/passwd"], {}, "Permission denied"),
        (["true", "a\0b"], {}, "null byte"),
        (["true", "x" * 200_000], {}, "argument 1 has 200001 bytes"),
    ],
)
def test_a_failed_start_has_its_reason(
    harness: ShimHarness, argv: list[str], changes: dict[str, str], words: str
) -> None:
    """Each reason that prevents the start gives `spawn_failed` with that reason, never a lost shim."""
    run = harness.launch(argv, **changes)
    assert words in run.fact("spawn_failed")["error"]
    run.wait_until_shim_exits()


def test_the_worker_has_only_the_ordered_environment_and_descriptors(harness: ShimHarness) -> None:
    """The worker has the ordered environment and directory, its own session, and only 3 descriptors."""
    code = (
        "import os, json, signal, sys; print(json.dumps([dict(os.environ), os.getcwd(), "
        "os.getsid(0) == os.getpid() == os.getpgid(0), sys.stdin.read(), "
        "sorted(os.listdir('/proc/self/fd'))[:-1], "
        "[n for n in (1, 2, 13, 15, 17) if signal.getsignal(n) not in (signal.SIG_DFL, "
        "signal.default_int_handler) and n != 13], len(signal.pthread_sigmask(0, []))]))"
    )
    run = harness.python(code, environment={"A": "ä b"})
    run.exit()
    environment, cwd, leads, stdin, fds, handlers, masked = json.loads((run.dir / "stdout.log").read_text())
    assert environment["A"] == "ä b"
    assert environment["MOSAIC_RUN_ID"] == run.run_id
    assert set(environment) <= {"A", "MOSAIC_RUN_ID", "WORKER_ID", "PATH", "LC_CTYPE", "TMPDIR"}
    assert (cwd, leads, stdin, handlers, masked) == (str(harness.root), True, "", [], 0)
    assert fds == ["0", "1", "2"]


def test_a_failed_step_of_the_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at any step between fork and exec has its errno and names the step; no child is left."""

    def refuse(plan: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    before = psutil.Process().children()
    monkeypatch.setattr(child, "STEPS", (*worker_steps.STEPS, ("niceness", refuse)))
    with pytest.raises(PermissionError, match="niceness"):
        child.spawn(["true"], "/", {}, None, ProcessAttributes())
    assert psutil.Process().children() == before


def test_launch_and_started_records_have_order_and_process(harness: ShimHarness) -> None:
    """launch.json has the order, started.json the process; no file has the launch secret."""
    run = harness.launch(["true"], slots=[1], cpus=2, kind="worker")
    run.exit()
    launch, started = run.json("launch.json"), run.json("started.json")
    assert (launch["argv"], launch["slots"], launch["cpus"]) == (["true"], [1], 2)
    assert (launch["nonce"], launch["shim_pid"]) == ("n1", run.shim_pid)
    assert launch["shim_started_at"] == run.shim_start
    spawned = run.fact("spawned")
    assert {key: spawned[key] for key in started} == started
    assert started["pid"] == started["pgid"] == started["sid"]
    assert harness.peer.registers[0]["shim_start_ticks"] == run.shim_start
    assert not [path for path in run.dir.iterdir() if '"s1"' in path.read_text()]
    files = {path.name for path in (run.dir.parent / "files").iterdir()}
    assert files == {"checkpoints", "videos", "tensorboard"}


def test_the_worker_config_is_written_and_passed(harness: ShimHarness) -> None:
    """The worker config is in the attempt directory; with config_flag, the command gets --config."""
    run = harness.launch(["sh", "-c", 'echo "$@"', "sh"], worker_config={"seed": 3}, config_flag=True)
    run.exit()
    path = run.dir / "worker-config.json"
    assert run.json("worker-config.json") == {"seed": 3}
    assert (run.dir / "stdout.log").read_text() == f"--config {path}\n"


def test_leaked_processes_of_a_worker_are_ended(harness: ShimHarness) -> None:
    """After the exit of the leader, the shim ends the rest of the tree and then reports it empty."""
    script = "setsid sleep 1000 & (trap '' TERM; sleep 1000; sleep 1000) & exit 3"
    run = harness.launch(["sh", "-c", script], limits={"grace_s": 0.4})
    record = run.exit()
    assert (record["exit_code"], record["swept"], record["stop"]) == (3, False, None)
    run.fact("emptied")
    assert run.members() == []
    assert harness.is_empty(run)["empty"] is True
    run.wait_until_shim_exits()
