"""The default paths of the two modes, from the environment and the user database.

The rule for the socket is a contract with clients (mosaicd(8), FILES): mosaicctl tries the same paths.  A
relative XDG path counts as unset, as the XDG base directory specification requires.
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: sun_path holds 108 bytes with its closing NUL.
SOCKET_PATH_LIMIT_BYTES = 107


@dataclass(frozen=True, slots=True)
class Locations:
    """The default paths of one mode."""

    socket: Path
    state_dir: Path
    config_file: Path


SYSTEM = Locations(
    Path("/run/mosaicd/mosaicd.sock"), Path("/var/lib/mosaicd"), Path("/etc/mosaicd/mosaicd.toml")
)


def user_locations(environ: Mapping[str, str], uid: int, run_user: Path = Path("/run/user")) -> Locations:
    """Return the paths of user mode for `uid`; creates nothing, and only checks directories."""
    config_home = _xdg(environ, "XDG_CONFIG_HOME") or _home(environ, uid) / ".config"
    state_home = _xdg(environ, "XDG_STATE_HOME") or _home(environ, uid) / ".local/state"
    return Locations(
        runtime_dir(environ, uid, run_user) / "mosaicd.sock",
        state_home / "mosaicd",
        config_home / "mosaicd/mosaicd.toml",
    )


def runtime_dir(environ: Mapping[str, str], uid: int, run_user: Path = Path("/run/user")) -> Path:
    """Return the directory of the socket.  The daemon checks its owner; the client checks who listens."""
    runtime = _xdg(environ, "XDG_RUNTIME_DIR")
    if runtime:
        return runtime / "mosaicd"
    own = run_user / str(uid)
    return own / "mosaicd" if own.is_dir() else Path(f"/tmp/mosaicd-{uid}")


def _xdg(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else None


def _home(environ: Mapping[str, str], uid: int) -> Path:
    value = environ.get("HOME", "")
    return Path(value if value.startswith("/") else pwd.getpwuid(uid).pw_dir)


def path_fault(path: Path, limit_bytes: int | None = None) -> str | None:
    """Return what is wrong with a path of the daemon, as a phrase that follows its name; None if it is valid.

    It is the path of the state directory or of the socket, from a flag, the settings or the defaults.
    `limit_bytes` is given for the socket only.
    """
    try:
        size = len(str(path).encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not path.is_absolute():
        return f"must be an absolute path, not {str(path)!r}"
    if "\0" in str(path):
        return "must not contain a NUL character"
    if limit_bytes is not None and size > limit_bytes:
        return (
            f"has {size} bytes, but the path of a socket can have at most {limit_bytes}: {path}; "
            "give a shorter path with --socket"
        )
    return None


def absolute(text: str) -> Path:
    """Return a path of the command line, absolute from the working directory; links are kept."""
    return Path(os.path.abspath(text))
