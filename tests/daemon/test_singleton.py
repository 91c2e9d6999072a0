"""Exactly one daemon a socket and state directory; the second leaves with exit code 2 and names the first."""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosaicd.host import lock
from mosaicd.host.lock import AlreadyRunning, CannotServe
from tests.harness.daemon import DaemonHarness
from tests.harness.places import ROOT
from tests.harness.waiting import DEADLINE_S

#: For a process to start and to end: a matter of the machine, and of no promise.
START_AND_END_S = 60.0

HOLD = """
import sys, time
from pathlib import Path
from mosaicd.host import lock
locks = lock.acquire(Path(sys.argv[1]), Path(sys.argv[2]), started_at=1_800_000_000.0)
listening = lock.bind(Path(sys.argv[2]), locks)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A short directory: a socket's path is limited."""
    with tempfile.TemporaryDirectory(prefix="mosaic-") as made:
        yield Path(made)


@pytest.fixture
def hold() -> Iterator[Callable[[Path, Path], "subprocess.Popen[str]"]]:
    """Start processes that hold locks and listen, until killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(state_dir: Path, path: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(state_dir), str(path)]
        holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    yield begin
    for holder in started:
        with holder:
            holder.kill()


@pytest.mark.parametrize(("same_state", "same_socket"), [(True, True), (True, False), (False, True)])
def test_the_second_daemon_names_the_first(
    harness: DaemonHarness, same_state: bool, same_socket: bool
) -> None:
    """Same state directory, same socket or both: exit code 2 and one sentence; the first serves on."""
    assert harness.process is not None
    state_dir = harness.state_dir if same_state else harness.home / "other"
    path = harness.socket if same_socket else harness.home / "o"
    done = harness.run_daemon("--state-dir", str(state_dir), "--socket", str(path))
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    for named in (f"pid {harness.process.pid}", str(harness.socket), str(harness.state_dir), "--state-dir"):
        assert named in sentence
    assert harness.call("daemon.health")["pid"] == harness.process.pid


def test_a_killed_daemon_leaves_nothing_in_the_way(harness: DaemonHarness) -> None:
    """After kill -9 the socket file is still there, and the next daemon starts at once."""
    harness.kill()
    assert harness.socket.exists()
    harness.start()
    assert harness.call("daemon.health")["ready"]


def test_a_stopped_daemon_takes_its_socket_with_it(harness: DaemonHarness) -> None:
    """After an orderly stop there is no socket file, so clients see that there is no daemon."""
    assert harness.stop() == 0
    assert not harness.socket.exists()


def test_a_lock_is_refused_with_its_holder(home: Path, hold: Callable[[Path, Path], object]) -> None:
    """Each of the two locks is refused alone, and a refusal leaves nothing held."""
    hold(home / "a", home / "a.sock")
    for state_dir, path in ((home / "a", home / "b.sock"), (home / "b", home / "a.sock")):
        with pytest.raises(AlreadyRunning, match=r"mosaicd \S+ \(pid \d+, since 2027-01-15 \d\d:00:00"):
            lock.acquire(state_dir, path, started_at=1.0)
    lock.acquire(home / "b", home / "b.sock", started_at=1.0).close()


def test_the_lock_ends_with_its_holder(
    home: Path, hold: Callable[[Path, Path], "subprocess.Popen[str]"]
) -> None:
    """kill -9 frees both locks; the stale socket file is replaced."""
    holder = hold(home / "a", home / "a.sock")
    holder.kill()
    holder.wait(DEADLINE_S)
    assert (home / "a.sock").is_socket()
    locks = lock.acquire(home / "a", home / "a.sock", started_at=1.0)
    with lock.bind(home / "a.sock", locks) as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home / "a.sock"))
        assert listening.getsockname() == str(home / "a.sock")
    locks.close()


def test_the_lock_file_says_who_holds_it(home: Path) -> None:
    """Both files hold pid, version, socket, state directory and since when; only for people to read."""
    locks = lock.acquire(home / "s", home / "x.sock", started_at=5.0)
    for file in (home / "s/lock", home / "x.sock.lock"):
        said = json.loads(file.read_text())
        assert said["pid"] == os.getpid()
        assert (said["socket"], said["state_dir"]) == (str(home / "x.sock"), str(home / "s"))
        assert said["started_at"] == 5.0
        assert set(said) == {"pid", "version", "socket", "state_dir", "started_at"}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    locks.close()
    locks.close()


def test_a_lock_file_that_says_nothing_still_holds(home: Path) -> None:
    """The lock counts, not what its file says: an unreadable one is refused as well."""
    locks = lock.acquire(home / "s", home / "x.sock", started_at=5.0)
    (home / "s/lock").write_text("{")
    with pytest.raises(AlreadyRunning, match="another daemon"):
        lock.acquire(home / "s", home / "y.sock", started_at=5.0)
    locks.close()


def test_directories_are_made_for_us_alone(home: Path) -> None:
    """Missing directories are made 0700, and the socket is 0600 from its first moment."""
    locks = lock.acquire(home / "p/state", home / "r/m.sock", started_at=1.0)
    with lock.bind(home / "r/m.sock", locks):
        names = ("p", "p/state", "r", "r/m.sock")
        modes = {name: stat.S_IMODE((home / name).stat().st_mode) for name in names}
    assert modes == {"p": 0o700, "p/state": 0o700, "r": 0o700, "r/m.sock": 0o600}
    lock.remove(home / "r/m.sock", locks)
    assert not (home / "r/m.sock").exists()
    locks.close()


@pytest.mark.parametrize("name", ["state", "run"])
def test_a_directory_that_others_write_to_is_refused(home: Path, name: str) -> None:
    """A directory in which another user could replace our files or socket is refused."""
    (home / name).mkdir()
    (home / name).chmod(0o777)
    with pytest.raises(CannotServe, match=f"chmod go-w {home / name}"):
        lock.acquire(home / "state", home / "run/s", started_at=1.0)


@pytest.mark.root
def test_a_directory_of_somebody_else_is_refused(home: Path) -> None:
    """A directory that another user made where ours should be is not used."""
    for name in ("state", "run"):
        (home / name).mkdir(mode=0o700)
    os.chown(home / "run", 12345, -1)
    with pytest.raises(CannotServe, match="uid 12345"):
        lock.acquire(home / "state", home / "run/s", started_at=1.0)
    os.chown(home / "run", 0, -1)
    os.chown(home / "state", 12345, -1)
    with pytest.raises(CannotServe, match="uid 12345"):
        lock.acquire(home / "state", home / "run/s", started_at=1.0)


def test_a_file_in_the_way_is_not_removed(home: Path) -> None:
    """A file that is not a socket is not replaced."""
    (home / "x").write_text("precious")
    locks = lock.acquire(home / "s", home / "x", started_at=1.0)
    with pytest.raises(CannotServe, match=str(home / "x")):
        lock.bind(home / "x", locks)
    assert (home / "x").read_text() == "precious"
    locks.close()


def test_a_socket_that_answers_is_not_taken_over(home: Path) -> None:
    """A socket with a listener without our lock (systemd, for socket activation) is not replaced."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(home / "x"))
        other.listen()
        locks = lock.acquire(home / "s", home / "x", started_at=1.0)
        with pytest.raises(CannotServe, match=str(home / "x")):
            lock.bind(home / "x", locks)
        locks.close()
        other.setblocking(False)
        with pytest.raises(BlockingIOError):  # no connection was made: the check woke no service
            other.accept()


def test_only_a_fitting_socket_is_adopted(home: Path) -> None:
    """systemd must pass one listening Unix stream socket with a path."""
    with socket.socket(socket.AF_UNIX) as right, socket.socket(socket.AF_UNIX) as deaf:
        right.bind(str(home / "x"))
        right.listen()
        deaf.bind(str(home / "y"))
        assert lock.adopt([right]) == (right, home / "x")
        for wrong in ([], [right, right], [deaf]):
            with pytest.raises(CannotServe):
                lock.adopt(wrong)
    with socket.socket(socket.AF_UNIX) as nameless:
        nameless.bind(f"\0mosaicd-test-{os.getpid()}")
        nameless.listen()
        with pytest.raises(CannotServe, match="ListenStream=/"):
            lock.adopt([nameless])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system"], "--system"),
        (["--config", "/nonexistent/x.toml"], "/nonexistent/x.toml"),
        (["--socket", "/" + "s" * 200], "has 201 bytes"),
        (["--log-level", "loud"], "debug, info, warning, error"),
        (["--state-dir", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_a_bad_start_is_one_sentence(home: Path, arguments: list[str], words: str) -> None:
    """What is wrong with the command line or the settings is said in one line, no traceback; exit code 2."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "mosaicd", *arguments],
        env=environment, capture_output=True, text=True, timeout=START_AND_END_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("mosaicd: ")
    assert words in line


def test_a_bad_start_that_nobody_can_read_of(home: Path) -> None:
    """With a full disk behind stderr the exit code is still 2: a supervisor goes by it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    command = [sys.executable, "-m", "mosaicd", "--state-dir", "/proc/nothing"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=environment, stderr=full, timeout=START_AND_END_S, check=False)
    assert done.returncode == 2
