"""Where mosaicctl looks for a daemon, and what it says when there is none."""

import os
import socket
import time
from collections.abc import Callable
from errno import EACCES
from pathlib import Path

import pytest

from mosaicctl.client import SYSTEM_SOCKET, candidates, user_socket
from mosaicd.config.locations import user_locations
from mosaicd.protocol.errors import Draining
from tests.ctl.scripted import Hangup, ScriptedDaemon, a_run

Ctl = Callable[..., tuple[int, str, str]]


def test_a_named_socket_is_the_only_one() -> None:
    """--socket wins over $MOSAICD_SOCKET, and either keeps us from talking to another daemon."""
    assert candidates("/a", {"MOSAICD_SOCKET": "/b"}) == ["/a"]
    assert candidates(None, {"MOSAICD_SOCKET": "/b"}) == ["/b"]


def test_the_user_socket_goes_before_the_systems() -> None:
    """Without a name: the user's daemon, then the system's."""
    found = candidates(None, {"XDG_RUNTIME_DIR": "/run/user/7"})
    assert found == ["/run/user/7/mosaicd/mosaicd.sock", SYSTEM_SOCKET]


@pytest.mark.parametrize(
    "environment", [{}, {"XDG_RUNTIME_DIR": "/x"}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "x"}]
)
def test_client_and_daemon_agree_on_the_user_socket(environment: dict[str, str]) -> None:
    """The client looks where the daemon listens, whatever XDG_RUNTIME_DIR says."""
    assert user_socket(environment) == str(user_locations(environment, os.getuid()).socket)


def test_no_daemon_is_69_and_says_where_it_looked(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a daemon: exit 69, every socket that was tried with its reason, and how to start one."""
    monkeypatch.delenv("MOSAICD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("mosaicctl.client.SYSTEM_SOCKET", str(tmp_path / "system"))
    code, out, err = ctl("list")
    assert (code, out) == (69, "")
    assert f"{tmp_path}/mosaicd/mosaicd.sock: No such file or directory" in err
    assert f"{tmp_path}/system" in err
    assert "systemctl --user start mosaicd" in err


def test_a_socket_that_nobody_listens_at_is_told(ctl: Ctl, tmp_path: Path) -> None:
    """A file that a daemon left behind is not mistaken for one that starts."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    code, _, err = ctl("--socket", str(path), "list")
    assert code == 69
    assert f"{path}: Connection refused" in err
    assert "systemctl --user start mosaicd" in err


def test_a_socket_of_somebody_else_is_told(ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission is not the absence of a daemon, and is called by its name."""

    def refuse(link: socket.socket, path: str) -> None:
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    code, _, err = ctl("--socket", str(tmp_path), "list")
    assert code == 69
    assert f"{tmp_path}: Permission denied" in err


def test_a_path_too_long_for_a_socket_is_told(ctl: Ctl) -> None:
    """A socket path above the kernel's limit gives a sentence, not a traceback."""
    code, _, err = ctl("--socket", "/" + "x" * 200, "list")
    assert code == 69
    assert "/xxx" in err and "too long" in err


@pytest.mark.usefixtures("descriptors_from_1024")
def test_a_caller_with_many_open_files(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    """A client whose socket has a number above 1023, inherited files being below it, works like any other."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run()], "cursor": None}
    assert ctl("-o", "name", "list") == (0, f"{a_run()['run_id']}\n", "")


def hangs_up(
    times: int, answer: object, how: type[Exception] = Hangup
) -> Callable[[dict[str, object], object], object]:
    """A handler that ends the connection so often before it answers, or says why it does not."""
    left = times

    def handle(params: dict[str, object], peer: object) -> object:
        nonlocal left
        left -= 1
        if left >= 0:
            raise how
        return answer

    return handle


def test_a_daemon_that_hangs_up_is_told(
    ctl: Ctl, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends in the middle of a question, and never comes back to it, exits 69."""
    monkeypatch.setattr("mosaicctl.client.PATIENCE_S", 0.1)
    daemon.handlers["run.list"] = hangs_up(1000, None)
    code, _, err = ctl("list")
    assert code == 69
    assert err.startswith("mosaicctl: ") and err.count("\n") == 1


@pytest.mark.parametrize("how", [Hangup, Draining])
def test_a_question_is_asked_again_of_a_restarted_daemon(
    ctl: Ctl, daemon: ScriptedDaemon, how: type[Exception]
) -> None:
    """A daemon that goes away before it answers a read, or says that it is about to, is asked again when it
    is back, and the caller gets the answer."""
    daemon.handlers["run.list"] = hangs_up(2, {"runs": [a_run()], "cursor": None}, how)
    code, out, err = ctl("-o", "name", "list")
    assert (code, out.strip(), err) == (0, a_run()["run_id"], "")
    assert daemon.connections == 3


@pytest.mark.parametrize("how", [Hangup, Draining])
def test_a_submit_is_asked_again_under_one_key(
    ctl: Ctl, daemon: ScriptedDaemon, how: type[Exception]
) -> None:
    """A submit whose answer was lost is repeated with the key of the first: one run, no twin of another."""
    accepted = a_run(state="INIT", duplicate=True, created_at=time.time() + 60)
    daemon.handlers["run.submit"] = hangs_up(1, accepted, how)
    code, out, err = ctl("submit", "--", "true")
    assert (code, err) == (0, "")
    assert "accepted" in out
    first, second = daemon.asked("run.submit")
    assert first == second and first["key"]


def test_two_submits_have_two_keys(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    """The key is the client's for this one submit: the same words again are another run."""
    daemon.handlers["run.submit"] = hangs_up(0, a_run(state="INIT"))
    for _ in range(2):
        assert ctl("submit", "--", "true")[0] == 0
    first, second = daemon.asked("run.submit")
    assert first["key"] != second["key"]
