"""One daemon for each socket and state directory; a second one exits with code 2 and names the first."""

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

#: Time for a process to start and to end, also on a slow machine.
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
    """Return a directory with a short path, because the path of a socket is limited."""
    with tempfile.TemporaryDirectory(prefix="mosaic-") as made:
        yield Path(made)


@pytest.fixture
def hold() -> Iterator[Callable[[Path, Path], "subprocess.Popen[str]"]]:
    """Return a function that starts a process that holds the locks and listens; all are killed at the end."""
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
def test_a_second_daemon_is_refused_and_names_the_first(
    harness: DaemonHarness, same_state: bool, same_socket: bool
) -> None:
    """With the same state directory or socket, a second daemon exits with code 2 and an error that names the
    first, which continues."""
    assert harness.process is not None
    state_dir = harness.state_dir if same_state else harness.home / "other"
    path = harness.socket if same_socket else harness.home / "o"
    done = harness.run_daemon("--state-dir", str(state_dir), "--socket", str(path))
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    for name in (f"pid {harness.process.pid}", str(harness.socket), str(harness.state_dir), "--state-dir"):
        assert name in sentence
    assert harness.call("daemon.health")["pid"] == harness.process.pid


def test_a_daemon_starts_after_kill_9_of_the_previous_one(harness: DaemonHarness) -> None:
    """After kill -9 the socket file still exists, and the next daemon starts immediately."""
    harness.kill()
    assert harness.socket.exists()
    harness.start()
    assert harness.call("daemon.health")["ready"]


def test_a_stopped_daemon_removes_its_socket(harness: DaemonHarness) -> None:
    """After an orderly stop the socket file does not exist."""
    assert harness.stop() == 0
    assert not harness.socket.exists()


def test_a_held_lock_is_refused_with_its_holder(home: Path, hold: Callable[[Path, Path], object]) -> None:
    """Each of the two locks alone is refused with its holder, and a refusal leaves no lock held."""
    hold(home / "a", home / "a.sock")
    for state_dir, path in ((home / "a", home / "b.sock"), (home / "b", home / "a.sock")):
        with pytest.raises(AlreadyRunning, match=r"mosaicd \S+ \(pid \d+, since 2027-01-15 \d\d:00:00"):
            lock.acquire(state_dir, path, started_at=1.0)
    lock.acquire(home / "b", home / "b.sock", started_at=1.0).close()


def test_kill_9_frees_the_locks(home: Path, hold: Callable[[Path, Path], "subprocess.Popen[str]"]) -> None:
    """kill -9 of the holder frees both locks; the stale socket file is replaced."""
    holder = hold(home / "a", home / "a.sock")
    holder.kill()
    holder.wait(DEADLINE_S)
    assert (home / "a.sock").is_socket()
    locks = lock.acquire(home / "a", home / "a.sock", started_at=1.0)
    with lock.bind(home / "a.sock", locks) as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home / "a.sock"))
        assert listening.getsockname() == str(home / "a.sock")
    locks.close()


def test_lock_files_describe_their_holder(home: Path) -> None:
    """Both lock files contain pid, version, socket, state directory and start time, for users to read."""
    locks = lock.acquire(home / "s", home / "x.sock", started_at=5.0)
    for file in (home / "s/lock", home / "x.sock.lock"):
        record = json.loads(file.read_text())
        assert record["pid"] == os.getpid()
        assert (record["socket"], record["state_dir"]) == (str(home / "x.sock"), str(home / "s"))
        assert record["started_at"] == 5.0
        assert set(record) == {"pid", "version", "socket", "state_dir", "started_at"}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    locks.close()
    locks.close()


def test_a_lock_with_an_unreadable_file_is_refused(home: Path) -> None:
    """The lock counts, not the content of its file: a lock with an unreadable file is refused too."""
    locks = lock.acquire(home / "s", home / "x.sock", started_at=5.0)
    (home / "s/lock").write_text("{")
    with pytest.raises(AlreadyRunning, match="another daemon"):
        lock.acquire(home / "s", home / "y.sock", started_at=5.0)
    locks.close()


def test_directories_are_made_with_mode_0700(home: Path) -> None:
    """Missing directories are made with mode 0700, and the socket has 0600 from its first moment."""
    locks = lock.acquire(home / "p/state", home / "r/m.sock", started_at=1.0)
    with lock.bind(home / "r/m.sock", locks):
        names = ("p", "p/state", "r", "r/m.sock")
        modes = {name: stat.S_IMODE((home / name).stat().st_mode) for name in names}
    assert modes == {"p": 0o700, "p/state": 0o700, "r": 0o700, "r/m.sock": 0o600}
    lock.remove(home / "r/m.sock", locks)
    assert not (home / "r/m.sock").exists()
    locks.close()


@pytest.mark.parametrize("name", ["state", "run"])
def test_a_directory_that_others_can_write_to_is_refused(home: Path, name: str) -> None:
    """A directory in which another user could replace files or the socket is refused."""
    (home / name).mkdir()
    (home / name).chmod(0o777)
    with pytest.raises(CannotServe, match=f"chmod go-w {home / name}"):
        lock.acquire(home / "state", home / "run/s", started_at=1.0)


@pytest.mark.root
def test_a_directory_of_another_user_is_refused(home: Path) -> None:
    """A state or socket directory of another user is refused."""
    for name in ("state", "run"):
        (home / name).mkdir(mode=0o700)
    os.chown(home / "run", 12345, -1)
    with pytest.raises(CannotServe, match="uid 12345"):
        lock.acquire(home / "state", home / "run/s", started_at=1.0)
    os.chown(home / "run", 0, -1)
    os.chown(home / "state", 12345, -1)
    with pytest.raises(CannotServe, match="uid 12345"):
        lock.acquire(home / "state", home / "run/s", started_at=1.0)


def test_a_file_at_the_path_of_the_socket_is_kept(home: Path) -> None:
    """A file that is not a socket is not replaced by the socket."""
    (home / "x").write_text("precious")
    locks = lock.acquire(home / "s", home / "x", started_at=1.0)
    with pytest.raises(CannotServe, match=str(home / "x")):
        lock.bind(home / "x", locks)
    assert (home / "x").read_text() == "precious"
    locks.close()


def test_a_socket_with_a_listener_is_not_replaced(home: Path) -> None:
    """A socket with a listener that does not hold the lock (systemd, for socket activation) is not
    replaced."""
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


def test_only_a_valid_socket_is_adopted(home: Path) -> None:
    """The daemon adopts only one listening Unix stream socket with a path from systemd."""
    with socket.socket(socket.AF_UNIX) as valid, socket.socket(socket.AF_UNIX) as not_listening:
        valid.bind(str(home / "x"))
        valid.listen()
        not_listening.bind(str(home / "y"))
        assert lock.adopt([valid]) == (valid, home / "x")
        for sockets in ([], [valid, valid], [not_listening]):
            with pytest.raises(CannotServe):
                lock.adopt(sockets)
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0mosaicd-test-{os.getpid()}")
        abstract.listen()
        with pytest.raises(CannotServe, match="ListenStream=/"):
            lock.adopt([abstract])


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
def test_an_invalid_start_is_one_line_and_exit_code_2(home: Path, arguments: list[str], words: str) -> None:
    """An invalid command line or setting is reported in one line without a traceback; the exit code is 2."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "mosaicd", *arguments],
        env=environment, capture_output=True, text=True, timeout=START_AND_END_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("mosaicd: ")
    assert words in line


def test_exit_code_2_if_stderr_cannot_be_written(home: Path) -> None:
    """If stderr is on a full disk, the exit code is still 2, because a supervisor depends on it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    command = [sys.executable, "-m", "mosaicd", "--state-dir", "/proc/nothing"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=environment, stderr=full, timeout=START_AND_END_S, check=False)
    assert done.returncode == 2
