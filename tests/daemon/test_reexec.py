"""reexec: the daemon is replaced by the installed program; no run and no client loses anything."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from mosaicctl.client import connect
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import DEADLINE_S, wait_until

Replace = Callable[[DaemonHarness], None]


def reexec(harness: DaemonHarness) -> None:
    """Replace the daemon in place; the pid stays the same."""
    done = harness.ctl("daemon", "reexec")
    assert done.returncode == 0, done.stderr


def kill(harness: DaemonHarness) -> None:
    """Kill the daemon and start the next one."""
    harness.restart()


def stop(harness: DaemonHarness) -> None:
    """Stop the daemon in order and start the next one."""
    assert harness.stop() == 0
    harness.start()


@contextmanager
def client(harness: DaemonHarness, name: str, *arguments: str) -> Iterator[Path]:
    """Run mosaicctl beside the test; yield the file of its output."""
    path = harness.home / name
    with open(path, "wb") as out, open(harness.home / f"{name}.err", "wb") as err:
        process = subprocess.Popen(
            harness.ctl_command(*arguments),
            stdout=out,
            stderr=err,
            cwd=harness.home,
            env=harness.environment,
        )
        try:
            yield path
            assert process.wait(DEADLINE_S) == 0, (harness.home / f"{name}.err").read_text()
        finally:
            process.kill()
            process.wait()


def numbers(path: Path) -> list[int]:
    """Return the complete lines of a file, as numbers."""
    return [int(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def is_longer(than: int, numbers: list[int]) -> bool:
    return len(numbers) > than


@pytest.mark.parametrize("replace", [reexec, kill, stop], ids=lambda replace: str(replace.__name__))
def test_streams_continue_from_their_cursor(harness: DaemonHarness, replace: Replace) -> None:
    """`logs -f` and `watch` receive every line and every event once, across a reexec, a kill and a stop."""
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    pid = harness.until(run_id, "EXEC")["pid"]
    with (
        client(harness, "lines", "logs", "-f", run_id) as lines,
        client(harness, "events", "-o", "jsonl", "watch", "--since", "0", run_id) as events,
    ):
        wait_until(lambda: events.stat().st_size, bool, "the watcher is connected")
        for _ in range(2):
            seen = len(numbers(lines))
            wait_until(partial(numbers, lines), partial(is_longer, seen + 5), "lines arrive")
            replace(harness)
            assert harness.get(run_id)["pid"] == pid
            harness.call("run.set", run_id=run_id, priority=harness.get(run_id)["priority"] + 1)
        gate.touch()
        assert harness.ended(run_id)["exit_code"] == 7
    assert lines.read_bytes() == harness.stdout(run_id)
    records = [json.loads(line) for line in events.read_text().splitlines()]
    seqs = [event["seq"] for event in records if "seq" in event]
    assert seqs == [event["seq"] for event in harness.events(run_id)]


@pytest.mark.parametrize("replace", [reexec, stop], ids=lambda replace: str(replace.__name__))
def test_every_stream_ends_with_draining(build: Build, replace: Replace) -> None:
    """Each of thirty clients that follow a log receives `run.end` with reason `draining`, and no error."""
    harness = build(timeouts={"shutdown_s": 15.0})  # thirty readers in one process are slow
    run_id = harness.submit("sh", "-c", "while :; do echo line; done")
    harness.until(run_id, "EXEC")
    reading: list[int] = []
    reasons: list[str] = []

    def reads() -> None:
        with harness.client() as link:
            link.call("run.logs", {"run_id": run_id, "follow": True})
            reading.append(1)
            while (notification := link.next_notification(DEADLINE_S)) is not None:
                if notification[0] == "run.end":
                    reasons.append(notification[1]["reason"])
                    return

    readers = [threading.Thread(target=reads) for _ in range(30)]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(reading), lambda count: count == 30, "all clients read")
    replace(harness)
    for reader in readers:
        reader.join(DEADLINE_S)
    assert reasons == ["draining"] * 30


def test_no_client_is_refused_during_a_reexec(harness: DaemonHarness) -> None:
    """Clients that connect at any moment of a reexec are served; each submit is one run."""
    stopped = threading.Event()
    submitted: list[str] = []
    errors: list[str] = []

    def submit_until_stopped(number: int) -> None:
        count = 0
        while not stopped.is_set():
            count += 1
            try:
                with connect(str(harness.socket)) as link:
                    run = link.call(
                        "run.submit", {"command": ["true"], "key": f"{number}-{count}", "hold": True}
                    )
                    submitted.append(run["run_id"])
            except Exception as error:  # noqa: BLE001 -- any error is a refusal
                errors.append(repr(error))

    threads = [threading.Thread(target=submit_until_stopped, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert harness.process is not None
    pid = harness.process.pid
    for _ in range(2):
        reexec(harness)
    stopped.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not errors, errors[:3]
    assert harness.process.poll() is None and harness.call("daemon.health")["pid"] == pid
    stored = [run["run_id"] for run in every_run(harness)]
    assert sorted(stored) == sorted(submitted) and len(set(submitted)) == len(submitted)


def every_run(harness: DaemonHarness) -> list[dict[str, str]]:
    """Return all runs of all pages of run.list."""
    runs: list[dict[str, str]] = []
    cursor = None
    while True:
        page = harness.call("run.list", **({"cursor": cursor} if cursor else {}))
        runs += page["runs"]
        cursor = page["cursor"]
        if cursor is None:
            return runs


def test_a_reexec_with_invalid_settings_is_refused(harness: DaemonHarness) -> None:
    """With invalid settings a reexec is refused with the reason, and the daemon continues."""
    before = harness.call("daemon.health")
    good = harness.config.read_text()
    for text, word in (("[cpus]\nslots = -1\n", "slots"), ('[retries]\nbackoff = "x"\n', "backoff")):
        harness.config.write_text(text)
        done = harness.ctl("daemon", "reexec")
        assert done.returncode == 5 and word in done.stderr, done
    harness.config.write_text(good)
    after = harness.call("daemon.health")
    assert after["uptime_s"] > before["uptime_s"] and after["epoch"] == before["epoch"]


def test_a_reexec_reads_the_settings_again(harness: DaemonHarness) -> None:
    """A reexec reads the settings again; locks, socket and ledger stay."""
    before = harness.call("daemon.health")
    harness.configure({"cpus": {"slots": 7}})
    reexec(harness)
    after = harness.call("daemon.health")
    assert after["cpus"]["total"] == 7 and after["epoch"] == before["epoch"]
    second = harness.run_daemon("--socket", str(harness.home / "t"))
    assert second.returncode == 2 and f"pid {after['pid']}" in second.stderr
    assert harness.stop() == 0
    assert not harness.socket.exists()
    harness.start()


@pytest.mark.slow
def test_descriptors_do_not_pile_up(harness: DaemonHarness) -> None:
    """After several reexecs the daemon has no more open files than before."""
    assert harness.process is not None
    folder = Path(f"/proc/{harness.process.pid}/fd")

    def count() -> int:
        return len(list(folder.iterdir()))

    harness.call("daemon.health")
    first = count()
    for _ in range(4):
        reexec(harness)
    wait_until(count, lambda seen: seen <= first + 2, f"at most {first} and those of a client")
