"""Authentication: the identity of a peer, launch secrets and session tokens."""

import os
import socket
from pathlib import Path

import pytest

from mosaicd.core.run import Run
from mosaicd.host.auth import KEY_FILE, Auth
from mosaicd.protocol.errors import NotPermitted, Unauthenticated
from mosaicd.protocol.states import RunKind, State

RUN = Run(
    run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", owner_uid=os.getuid(), owner="ada", kind=RunKind.COMMAND, name="r",
    command=("true",), digest="d", created_at=1.0, state=State.HSHK, attempt=2, nonce="abc",
)  # fmt: skip


def test_the_key_is_created_once_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """Launch secrets stay valid after a restart and differ between state directories."""
    one, again = Auth.open(tmp_path), Auth.open(tmp_path)
    (tmp_path / "other").mkdir()
    secret = one.launch_secret("r", 1, "n")
    assert (
        secret == again.launch_secret("r", 1, "n") != Auth.open(tmp_path / "other").launch_secret("r", 1, "n")
    )
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY_FILE, "other"]


@pytest.mark.parametrize("spoil", ["mode", "short", "link"])
def test_an_untrusted_key_prevents_the_start(spoil: str, tmp_path: Path) -> None:
    """A key that other users can read, that is incomplete, or that is a link is refused."""
    path = tmp_path / KEY_FILE
    Auth.open(tmp_path)
    if spoil == "mode":
        path.chmod(0o640)
    elif spoil == "short":
        path.write_bytes(b"x")
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises((ValueError, OSError)):
        Auth.open(tmp_path)


@pytest.mark.parametrize(
    "parts", [("x", 2, "abc"), (RUN.run_id, 1, "abc"), (RUN.run_id, 2, "abd"), (RUN.run_id + "\0", 2, "abc")]
)
def test_a_launch_secret_is_valid_for_one_attempt(parts: tuple[str, int, str], tmp_path: Path) -> None:
    """The secret of another run, attempt or nonce is refused."""
    auth = Auth.open(tmp_path)
    auth.check_secret(RUN, 2, auth.launch_secret(RUN.run_id, 2, "abc"))
    with pytest.raises(Unauthenticated):
        auth.check_secret(RUN, 2, auth.launch_secret(*parts))


def test_a_launch_secret_is_refused_after_its_attempt(tmp_path: Path) -> None:
    """A launch secret is refused if the run waits again, or for another attempt number."""
    from dataclasses import replace

    auth = Auth.open(tmp_path)
    secret = auth.launch_secret(RUN.run_id, 2, "abc")
    for run, attempt in ((replace(RUN, state=State.INIT), 2), (RUN, 1), (replace(RUN, nonce=None), 2)):
        with pytest.raises(Unauthenticated):
            auth.check_secret(run, attempt, secret)


def test_only_the_newest_session_token_is_valid(tmp_path: Path) -> None:
    """Each register invalidates the token before; the daemon keeps no token in clear text."""
    auth = Auth.open(tmp_path)
    first, second = auth.issue_token("r"), auth.issue_token("r")
    auth.check_token("r", second)
    for run_id, token in (("r", first), ("r", ""), ("other", second), ("r", second.upper())):
        with pytest.raises(Unauthenticated):
            auth.check_token(run_id, token)
    assert len(second) == 32 and second not in repr(vars(auth))


def test_only_the_daemons_own_user_is_served(tmp_path: Path) -> None:
    """The identity comes from the kernel; the error for another user has both uids."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = Auth.open(tmp_path).principal(ours)
        assert (peer.uid, peer.pid, peer.is_admin) == (os.getuid(), os.getpid(), True)
        stranger = Auth(b"k" * 32, uid=os.getuid() + 1)
        with pytest.raises(NotPermitted) as refusal:
            stranger.principal(ours)
        assert refusal.value.data == {"uid": os.getuid(), "serves": os.getuid() + 1}
