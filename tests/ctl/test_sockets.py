"""The sockets at which mosaicctl tries a daemon, its errors, and its retries after a restart."""

import os
import socket
import time
from collections.abc import Callable
from errno import EACCES
from pathlib import Path

import pytest

from mosaicctl.client import SYSTEM_SOCKET, socket_paths, user_socket
from mosaicd.config.locations import user_locations
from mosaicd.protocol.errors import Draining
from tests.ctl.scripted import Hangup, ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]


def test_given_socket_is_the_only_one() -> None:
    """--socket has precedence over $MOSAICD_SOCKET; with either, no other socket is tried."""
    assert socket_paths("/a", {"MOSAICD_SOCKET": "/b"}) == ["/a"]
    assert socket_paths(None, {"MOSAICD_SOCKET": "/b"}) == ["/b"]


def test_user_socket_is_tried_before_the_system_socket() -> None:
    """Without a given socket, the user's socket is tried first, then the system's."""
    paths = socket_paths(None, {"XDG_RUNTIME_DIR": "/run/user/7"})
    assert paths == ["/run/user/7/mosaicd/mosaicd.sock", SYSTEM_SOCKET]


@pytest.mark.parametrize(
    "environment", [{}, {"XDG_RUNTIME_DIR": "/x"}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "x"}]
)
def test_client_and_daemon_agree_on_the_user_socket(environment: dict[str, str]) -> None:
    """Client and daemon use the same user socket for every value of XDG_RUNTIME_DIR."""
    assert user_socket(environment) == str(user_locations(environment, os.getuid()).socket)


def test_no_daemon_exits_69_and_names_the_tried_sockets(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a daemon, mosaicctl exits with 69, every tried socket and its error, and how to start one."""
    monkeypatch.delenv("MOSAICD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("mosaicctl.client.SYSTEM_SOCKET", str(tmp_path / "system"))
    code, out, err = ctl("list")
    assert (code, out) == (69, "")
    assert f"{tmp_path}/mosaicd/mosaicd.sock: No such file or directory" in err
    assert f"{tmp_path}/system" in err
    assert "systemctl --user start mosaicd" in err


def test_socket_without_a_daemon_exits_69(ctl: Ctl, tmp_path: Path) -> None:
    """A socket file without a daemon exits with 69 and "Connection refused"."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind(str(path))
    code, _, err = ctl("--socket", str(path), "list")
    assert code == 69
    assert f"{path}: Connection refused" in err
    assert "systemctl --user start mosaicd" in err


def test_socket_without_permission_exits_69(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket without permission exits with 69 and "Permission denied"."""

    def refuse(link: socket.socket, path: str) -> None:
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    code, _, err = ctl("--socket", str(tmp_path), "list")
    assert code == 69
    assert f"{tmp_path}: Permission denied" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as another user")
def test_listener_of_another_user_at_the_own_socket_gets_nothing(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who listens first at another user's default socket is refused before a byte is sent."""
    monkeypatch.delenv("MOSAICD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("mosaicctl.client.SYSTEM_SOCKET", str(tmp_path / "system"))
    (tmp_path / "mosaicd").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(user_socket())
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        monkeypatch.setattr("os.geteuid", lambda: 4242)  # the caller: neither root nor the listener
        code, out, err = ctl("list")
        assert (code, out) == (69, "")
        assert f"{user_socket()}: Permission denied" in err
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""


def test_socket_path_that_is_too_long_exits_69(ctl: Ctl) -> None:
    """A socket path above the kernel's limit exits with 69 and an error with the path."""
    code, _, err = ctl("--socket", "/" + "x" * 200, "list")
    assert code == 69
    assert "/xxx" in err and "too long" in err


@pytest.mark.usefixtures("descriptors_from_1024")
def test_socket_descriptor_above_1023_works(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    """mosaicctl works with a socket whose descriptor is above 1023."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run()], "cursor": None}
    assert ctl("-o", "name", "list") == (0, f"{a_run()['run_id']}\n", "")


def fails_first(
    times: int, answer: object, error: type[Exception] = Hangup
) -> Callable[[dict[str, object], object], object]:
    """Return a handler that raises `error` for the first `times` requests, then returns `answer`."""
    remaining = times

    def handle(params: dict[str, object], peer: object) -> object:
        nonlocal remaining
        remaining -= 1
        if remaining >= 0:
            raise error
        return answer

    return handle


def test_daemon_that_closes_every_connection_exits_69(
    ctl: Ctl, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the daemon closes the connection for every try of a request, mosaicctl exits with 69."""
    monkeypatch.setattr("mosaicctl.client.RECONNECT_TIMEOUT_S", 0.1)
    daemon.handlers["run.list"] = fails_first(1000, None)
    code, _, err = ctl("list")
    assert code == 69
    assert err.startswith("mosaicctl: ") and err.count("\n") == 1


@pytest.mark.parametrize("error", [Hangup, Draining])
def test_read_is_repeated_after_a_restart(ctl: Ctl, daemon: ScriptedDaemon, error: type[Exception]) -> None:
    """If the daemon restarts or drains before it answers a read, mosaicctl repeats the request and prints the
    answer."""
    daemon.handlers["run.list"] = fails_first(2, {"runs": [a_run()], "cursor": None}, error)
    code, out, err = ctl("-o", "name", "list")
    assert (code, out.strip(), err) == (0, a_run()["run_id"], "")
    assert daemon.connections == 3


@pytest.mark.parametrize("error", [Hangup, Draining])
def test_submit_is_repeated_with_the_same_key(
    ctl: Ctl, daemon: ScriptedDaemon, error: type[Exception]
) -> None:
    """A submit whose answer was lost is repeated with the same key, so that it makes one run."""
    accepted = a_run(state="INIT", duplicate=True, created_at=time.time() + 60)
    daemon.handlers["run.submit"] = fails_first(1, accepted, error)
    code, out, err = ctl("submit", "--", "true")
    assert (code, err) == (0, "")
    assert "accepted" in out
    first, second = daemon.requests("run.submit")
    assert first == second and first["key"]


def test_two_submits_have_different_keys(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    """Two submits of the same command have different keys, so that they make two runs."""
    daemon.handlers["run.submit"] = fails_first(0, a_run(state="INIT"))
    for _ in range(2):
        assert ctl("submit", "--", "true")[0] == 0
    first, second = daemon.requests("run.submit")
    assert first["key"] != second["key"]
