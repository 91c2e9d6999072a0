"""Identity: the peer of a connection from the kernel, launch secrets and session tokens of shims.

A launch secret is not stored: it is an HMAC that the daemon can compute again after a restart.  Session
tokens are in memory only, hashed; after a restart every shim registers again.  Names are only displayed; the
uid decides.
"""

import hashlib
import hmac
import os
import pwd
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mosaicd.core.run import Run
from mosaicd.protocol.errors import NotPermitted, Unauthenticated
from mosaicd.safe_files import create_synced, open_regular
from mosaicd.store.registry import Committed

KEY_FILE = "launch.key"
KEY_BYTES = 32
_CREDENTIALS = struct.Struct("3i")


class HasOptions(Protocol):
    """The socket method that returns the peer's credentials."""

    def getsockopt(self, level: int, name: int, buflen: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Principal:
    """The peer process, as the kernel recorded it at connect time."""

    uid: int
    gid: int
    pid: int
    name: str
    is_admin: bool


def user_name(uid: int) -> str:
    """Return the account's name, or its uid as text if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def peer_of(connection: HasOptions) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the process that connected."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid


class Auth:
    """Principals, launch secrets and session tokens of a daemon that serves its own uid."""

    def __init__(self, key: bytes, uid: int | None = None) -> None:
        self._key = key
        self._uid = os.getuid() if uid is None else uid
        self._tokens: dict[str, bytes] = {}
        self._names: dict[int, str] = {}

    @classmethod
    def open(cls, state_dir: Path) -> "Auth":
        """Open the key in the state directory, or create it; raise OSError, or ValueError for a bad key."""
        return cls(_load_key(state_dir / KEY_FILE))

    def principal(self, connection: HasOptions) -> Principal:
        """Return the peer; raise NotPermitted for users that this daemon does not serve."""
        pid, uid, gid = peer_of(connection)
        if uid != self._uid:
            raise NotPermitted(
                f"this daemon serves only {self._name(self._uid)} (uid {self._uid}); you are uid {uid}",
                uid=uid, serves=self._uid,
            )  # fmt: skip
        return Principal(uid, gid, pid, self._name(uid), self.is_admin(uid))

    def is_admin(self, uid: int) -> bool:
        """Return whether the user is an admin: the daemon's own user."""
        return uid == self._uid

    def _name(self, uid: int) -> str:
        if uid not in self._names:
            self._names[uid] = user_name(uid)
        return self._names[uid]

    # --- launch secrets ------------------------------------------------------------------------------

    def launch_secret(self, run_id: str, attempt: int, nonce: str) -> str:
        """Return the secret that only the shim of this attempt receives."""
        message = f"{run_id}\0{attempt}\0{nonce}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def check_secret(self, run: Run, attempt: int, secret: str) -> None:
        """Raise Unauthenticated unless `secret` is that of the run's present attempt."""
        expected = self.launch_secret(run.run_id, run.attempt, run.nonce or "")
        is_known = hmac.compare_digest(expected.encode(), secret.encode())
        if not (is_known and run.nonce and run.is_holding and attempt == run.attempt):
            raise Unauthenticated("this is not the launch secret of the run's present attempt")

    # --- session tokens ------------------------------------------------------------------------------

    def issue_token(self, run_id: str) -> str:
        """Return a new session token; the previous one becomes invalid."""
        token = secrets.token_hex(16)
        self._tokens[run_id] = _hashed(token)
        return token

    def check_token(self, run_id: str, token: str) -> None:
        """Raise Unauthenticated unless `token` is the run's newest."""
        if not hmac.compare_digest(self._tokens.get(run_id, b""), _hashed(token)):
            raise Unauthenticated("this is not the session token of a live run")

    def drop_tokens(self, batch: Sequence[Committed]) -> None:
        """Delete the tokens of ended attempts; a subscriber of the registry."""
        for commit in batch:
            if not commit.run.is_holding:
                self._tokens.pop(commit.run.run_id, None)


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _load_key(path: Path) -> bytes:
    """Return the key in `path`; create it atomically if it is absent, and never replace another one."""
    try:
        return _read_key(path)
    except FileNotFoundError:
        pass
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        create_synced(fresh, secrets.token_bytes(KEY_BYTES))
        os.link(fresh, path)
    except FileExistsError:
        pass  # another daemon created one meanwhile: use that key
    finally:
        fresh.unlink(missing_ok=True)
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    with os.fdopen(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ValueError(f"{path} must belong to uid {os.getuid()} and be closed to others (chmod 600)")
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} must hold {KEY_BYTES} bytes, not {len(key)}")
    return key
