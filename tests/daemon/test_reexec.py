"""reexec: the daemon becomes the program that is installed now; no run and no client loses anything."""

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

Away = Callable[[DaemonHarness], None]


def reexec(harness: DaemonHarness) -> None:
    """Replace the daemon in place; the pid stays the same."""
    said = harness.ctl("daemon", "reexec")
    assert said.returncode == 0, said.stderr


def kill(harness: DaemonHarness) -> None:
    harness.restart()


def stop(harness: DaemonHarness) -> None:
    assert harness.stop() == 0
    harness.start()


@contextmanager
def client(harness: DaemonHarness, name: str, *arguments: str) -> Iterator[Path]:
    """Run mosaicctl beside the test; its output goes to the file that is given."""
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
    """The whole lines of a file, as numbers."""
    return [int(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def is_longer(than: int, found: list[int]) -> bool:
    return len(found) > than


@pytest.mark.parametrize("away", [reexec, kill, stop], ids=lambda away: str(away.__name__))
def test_streams_go_on_from_their_cursor(harness: DaemonHarness, away: Away) -> None:
    """`logs -f` and `watch` from before the daemon went away have every line and every event, once."""
    gate = harness.home / "gate"
    run_id = harness.program("ticker", str(gate))
    pid = harness.until(run_id, "EXEC")["pid"]
    with (
        client(harness, "lines", "logs", "-f", run_id) as lines,
        client(harness, "events", "-o", "jsonl", "watch", "--since", "0", run_id) as events,
    ):
        wait_until(lambda: events.stat().st_size, bool, "the watcher is there")
        for _ in range(2):
            seen = len(numbers(lines))
            wait_until(partial(numbers, lines), partial(is_longer, seen + 5), "lines come")
            away(harness)
            assert harness.get(run_id)["pid"] == pid
            harness.call("run.set", run_id=run_id, priority=harness.get(run_id)["priority"] + 1)
        gate.touch()
        assert harness.ended(run_id)["exit_code"] == 7
    assert lines.read_bytes() == harness.stdout(run_id)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    seqs = [event["seq"] for event in told if "seq" in event]
    assert seqs == [event["seq"] for event in harness.events(run_id)]


@pytest.mark.parametrize("away", [reexec, stop], ids=lambda away: str(away.__name__))
def test_every_stream_is_told_to_come_again(build: Build, away: Away) -> None:
    """Thirty that read a run's output as fast as it comes: each is told that the daemon drains, none of an
    error."""
    harness = build(timeouts={"shutdown_s": 15.0})  # thirty readers in one process are slow ones
    run_id = harness.submit("sh", "-c", "while :; do echo line; done")
    harness.until(run_id, "EXEC")
    reading: list[int] = []
    reasons: list[str] = []

    def reads() -> None:
        with harness.client() as link:
            link.call("run.logs", {"run_id": run_id, "follow": True})
            reading.append(1)
            while (told := link.next_notification(DEADLINE_S)) is not None:
                if told[0] == "run.end":
                    reasons.append(told[1]["reason"])
                    return

    readers = [threading.Thread(target=reads) for _ in range(30)]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(reading), lambda count: count == 30, "all read")
    away(harness)
    for reader in readers:
        reader.join(DEADLINE_S)
    assert reasons == ["draining"] * 30


def test_nobody_is_refused(harness: DaemonHarness) -> None:
    """Clients that come at any moment of a reexec are answered; what they submit is there, once."""
    ends = threading.Event()
    submitted: list[str] = []
    trouble: list[str] = []

    def ask(number: int) -> None:
        count = 0
        while not ends.is_set():
            count += 1
            try:
                with connect(str(harness.socket)) as link:
                    run = link.call(
                        "run.submit", {"command": ["true"], "key": f"{number}-{count}", "hold": True}
                    )
                    submitted.append(run["run_id"])
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is a refusal
                trouble.append(repr(error))

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for asker in askers:
        asker.start()
    assert harness.process is not None
    pid = harness.process.pid
    for _ in range(2):
        reexec(harness)
    ends.set()
    for asker in askers:
        asker.join(DEADLINE_S)
    assert not trouble, trouble[:3]
    assert harness.process.poll() is None and harness.call("daemon.health")["pid"] == pid
    stored = [run["run_id"] for run in every_run(harness)]
    assert sorted(stored) == sorted(submitted) and len(set(submitted)) == len(submitted)


def every_run(harness: DaemonHarness) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = None
    while True:
        page = harness.call("run.list", **({"cursor": cursor} if cursor else {}))
        found += page["runs"]
        cursor = page["cursor"]
        if cursor is None:
            return found


def test_what_would_not_start_is_not_begun(harness: DaemonHarness) -> None:
    """Settings that cannot be used, or that would serve another place: a sentence, and the daemon goes on."""
    before = harness.call("daemon.health")
    good = harness.config.read_text()
    for text, word in (("[cpus]\nslots = -1\n", "slots"), ('[retries]\nbackoff = "x"\n', "backoff")):
        harness.config.write_text(text)
        said = harness.ctl("daemon", "reexec")
        assert said.returncode == 5 and word in said.stderr, said
    harness.config.write_text(good)
    after = harness.call("daemon.health")
    assert after["uptime_s"] > before["uptime_s"] and after["epoch"] == before["epoch"]


def test_settings_are_read_again(harness: DaemonHarness) -> None:
    """The program that comes reads the settings as they are then; locks, socket and ledger stay."""
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
    """A daemon that was replaced many times has as many open files as one that was not."""
    assert harness.process is not None
    folder = Path(f"/proc/{harness.process.pid}/fd")

    def count() -> int:
        return len(list(folder.iterdir()))

    harness.call("daemon.health")
    first = count()
    for _ in range(4):
        reexec(harness)
    wait_until(count, lambda seen: seen <= first + 2, f"as few as {first}, or a client's more")
