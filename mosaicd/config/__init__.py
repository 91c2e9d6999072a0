"""Settings: the only reader of the environment and of the config file.

Flags have precedence over the file, the file over the defaults (settings.py has each default once).  The
environment gives only directories (XDG) and facts of systemd; it never changes a limit.  An unknown key is
refused, because a typo would silently keep a default.  All faults are reported together.
"""

import os
import tomllib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mosaicd import crash_points
from mosaicd.config import locations
from mosaicd.config.reading import read_groups, to_toml
from mosaicd.config.settings import LEVELS, Log, Paths, Settings, Supervisor, Worker
from mosaicd.protocol.faults import Fault, Faults

__all__ = [
    "LEVELS", "ConfigError", "Log", "Overrides", "Paths", "Settings", "Supervisor", "Worker",
    "load", "process_environment", "to_toml", "with_socket",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Overrides:
    """The settings of the command line; None if not given."""

    config: str | None = None
    state_dir: str | None = None
    socket: str | None = None
    log_level: str | None = None
    system: bool = False


class ConfigError(Exception):
    """The settings cannot be used; `source` is a file name or None."""

    def __init__(self, source: str | None, faults: list[Fault]) -> None:
        self.source = source
        self.faults = faults
        super().__init__("\n".join(self._line(path, rule) for path, rule in faults))

    def _line(self, path: str, rule: str) -> str:
        """Return the line of one fault; a fault in the file begins with the name of the file."""
        is_in_file = self.source and not path.startswith(("--", "the default "))
        return (f"{self.source}: " if is_in_file else "") + f"{path} {rule}".lstrip()


def process_environment() -> MutableMapping[str, str]:
    """Return the live environment of this process; `systemd.listen_fds` removes variables from it."""
    return os.environ


def load(overrides: Overrides | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the effective settings; raise ConfigError with every fault, and create and change nothing."""
    overrides = overrides or Overrides()
    environ = os.environ if environ is None else environ
    defaults = locations.SYSTEM if overrides.system else locations.user_locations(environ, os.getuid())
    file = _config_file(overrides, defaults.config_file)
    document = _parse(file) if file else {}
    faults = Faults()
    groups = read_groups(document, faults)
    paths = _paths(overrides, document, defaults, faults)
    if "retries" in groups and groups["retries"].backoff_max_s < groups["retries"].backoff_s:
        faults.add("[retries] backoff_max_s", "must not be less than backoff_s")
    if overrides.log_level is not None:
        if overrides.log_level not in LEVELS:
            faults.add("--log-level", f"must be one of {', '.join(LEVELS)}, not {overrides.log_level!r}")
        groups["log"] = Log(overrides.log_level)
    crash_at = _crash_at(environ, faults)
    if faults.count:
        raise ConfigError(str(file) if file else None, faults.to_list())
    supervisor = _supervisor(environ)
    return Settings(paths=paths, supervisor=supervisor, config_file=file, crash_at=crash_at, **groups)


def _config_file(overrides: Overrides, default: Path) -> Path | None:
    if overrides.config is not None:
        return locations.absolute(overrides.config)
    try:
        return default if default.is_file() else None
    except PermissionError:
        return default  # the file may exist: reading it reports the error


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError(
            None, [Fault("", f"cannot read the settings file {file}: {error.strerror}")]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), [Fault("", f"is not UTF-8 (byte {error.start})")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(file), [Fault("", f"is not valid TOML: {error}")]) from error


def _paths(
    overrides: Overrides, document: Mapping[str, Any], defaults: locations.Locations, faults: Faults
) -> Paths:
    """Return both paths: from the flag, else the file, else the default, which can also be too long."""
    table = document.get("paths", {})
    if not isinstance(table, dict):
        faults.add("paths", "must be a section: [paths]")
        table = {}
    for key in table.keys() - {"state_dir", "socket"}:
        faults.add(f"[paths] {key}", "is not a setting; [paths] has state_dir, socket")
    chosen = {}
    for key, limit in (("state_dir", None), ("socket", locations.SOCKET_PATH_LIMIT_BYTES)):
        flag, value = getattr(overrides, key), table.get(key)
        if flag is not None:
            subject, path = "--" + key.replace("_", "-"), locations.absolute(flag)
        elif value is None:
            subject, path = f"the default {key}", getattr(defaults, key)
        elif isinstance(value, str) and value:
            subject, path = f"[paths] {key}", Path(value)
        else:
            faults.add(f"[paths] {key}", f"must be an absolute path, not {value!r}")
            continue
        fault = locations.path_fault(path, limit)
        if fault:
            faults.add(subject, fault)
        chosen[key] = path
    return Paths(**{"state_dir": defaults.state_dir, "socket": defaults.socket, **chosen})


def _crash_at(environ: Mapping[str, str], faults: Faults) -> str | None:
    crash_at = environ.get(crash_points.VARIABLE) or None
    try:
        if crash_at is not None:
            crash_points.parse(crash_at)
    except ValueError as fault:
        faults.add(crash_points.VARIABLE, str(fault))
    return crash_at


def _supervisor(environ: Mapping[str, str]) -> Supervisor:
    """Return the facts from systemd for this process; variables for a parent process are ignored."""
    watchdog_s = None
    usec = environ.get("WATCHDOG_USEC", "")
    if usec.isascii() and usec.isdigit() and int(usec) and _is_ours(environ.get("WATCHDOG_PID")):
        watchdog_s = int(usec) / 1e6
    return Supervisor(environ.get("NOTIFY_SOCKET") or None, watchdog_s, environ.get("JOURNAL_STREAM") or None)


def _is_ours(pid: str | None) -> bool:
    return pid is None or pid == str(os.getpid())


def with_socket(settings: Settings, socket: Path) -> Settings:
    """Return `settings` with the path of a socket that systemd passed."""
    return replace(settings, paths=replace(settings.paths, socket=socket))
