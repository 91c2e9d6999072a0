"""Where mosaicctl looks for a daemon, and what it says when there is none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicctl.client import SYSTEM_SOCKET, candidates, user_socket
from mosaicd.config.locations import user_locations
from tests.ctl.scripted import Hangup, ScriptedDaemon

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


def test_a_path_too_long_for_a_socket_is_told(ctl: Ctl) -> None:
    """A socket path above the kernel's limit gives a sentence, not a traceback."""
    code, _, err = ctl("--socket", "/" + "x" * 200, "list")
    assert code == 69
    assert "cannot be a socket" in err


def test_a_daemon_that_hangs_up_is_told(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    """A connection that ends in the middle of a question exits 69."""

    def hang_up(params: dict[str, object], peer: object) -> None:
        raise Hangup

    daemon.handlers["run.list"] = hang_up
    code, _, err = ctl("list")
    assert code == 69
    assert err.startswith("mosaicctl: the daemon closed the connection")
