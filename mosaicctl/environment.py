"""The environment of the caller that a run receives: all of it, less a table of patterns with reasons.

A run outlives the session of its caller and is no process of another launcher, so variables that belong to
one of these are left out.  `-e NAME` passes a variable all the same.  With --env-clean only an allow-list is
passed.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from mosaicd.protocol import Json
from mosaicd.protocol.secrets import is_secret

SESSION = "of your session"
LAUNCHER = "of another launcher"
LAUNCH = "set by mosaicd for every run"
NOT_UTF8 = "not UTF-8"

#: The variables that are left out.  A pattern is a name, or the beginning of names with a `*` at its end.
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    # Sockets of agents and buses, the display, the terminal and the shell: they end with the session.
    # LISTEN_* to JOURNAL_STREAM are the service manager's words to one process.
    SESSION: (
        "SSH_*", "GPG_AGENT_INFO", "GPG_TTY", "GNOME_KEYRING_*", "DBUS_*", "AT_SPI_BUS_ADDRESS",
        "SESSION_MANAGER", "XDG_RUNTIME_DIR", "XDG_SESSION_*", "XDG_SEAT*", "XDG_VTNR",
        "DISPLAY", "WAYLAND_*", "XAUTHORITY", "WINDOWID", "DESKTOP_STARTUP_ID", "VSCODE_*",
        "TMUX*", "STY", "SHLVL", "_", "PWD", "OLDPWD",
        "LISTEN_*", "NOTIFY_SOCKET", "WATCHDOG_*", "INVOCATION_ID", "JOURNAL_STREAM",
    ),
    # A launcher means these for its own process: its ranks, its ports, its job server.
    LAUNCHER: (
        "SLURM_*", "PMI*", "OMPI_*", "PBS_*", "TORCHELASTIC_*", "RANK", "WORLD_SIZE", "LOCAL_RANK",
        "MASTER_*", "RAY_JOB_ID", "MAKEFLAGS", "MAKELEVEL",
    ),
    # CUDA_VISIBLE_DEVICES is not in the list: the daemon decides whether it counts.
    LAUNCH: (
        "RUN_ID", "WORKER_ID", "MOSAIC_RUN_ID", "MOSAIC_ATTEMPT", "MOSAIC_CHECKPOINT_DIR",
        "MOSAIC_CONFIG_FILE", "MOSAIC_CONTROL_FD", "MOSAIC_RESUME_FROM", "MOSAIC_RUN_DIR",
        "MOSAIC_STACKS_FILE", "MOSAIC_CPUS", "MOSAIC_MEMORY_MB",
    ),
}  # fmt: skip

#: The allow-list of --env-clean: the user, the directories, the toolchain, the locale, proxies, and the
#: switches of well-known libraries.
CLEAN = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TMPDIR",
    "VIRTUAL_ENV", "CONDA_*", "PYTHON*", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CPATH", "LIBRARY_PATH",
    "MODULEPATH", "LOADEDMODULES",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TORCH_HOME", "MPLCONFIGDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
    "MPLBACKEND", "MUJOCO_GL", "PYOPENGL_PLATFORM", "SDL_VIDEODRIVER", "SDL_AUDIODRIVER",
    "KMP_DUPLICATE_LIB_OK", "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH",
    "HF_*", "TRANSFORMERS_*", "WANDB_*", "MLFLOW_*", "TORCH_*", "JAX_*", "XLA_*", "NCCL_*", "RAY_*",
)  # fmt: skip

#: Marks the environment of a run that submits another run; its own variables are no news to the user.
_IN_A_RUN = "MOSAIC_RUN_ID"
#: The most names in one line.
_MOST_SHOWN = 10


class Captured(NamedTuple):
    """The variables that are passed, and for each variable that is not: its name, the pattern, the reason."""

    values: dict[str, str]
    left_out: list[tuple[str, str, str]]


def capture(environment: Mapping[str, str], drop: Collection[str] = ()) -> Captured:
    """Return the variables of `environment` that a run receives.

    `drop` has the patterns of --env-drop; the names that they match are not in `left_out`.
    """
    values: dict[str, str] = {}
    left_out: list[tuple[str, str, str]] = []
    for name, value in environment.items():
        if drop and _is_dropped(name, drop):
            continue
        pattern, reason = _rule_for(name, value, environment)
        if reason:
            left_out.append((name, pattern, reason))
        else:
            values[name] = value
    return Captured(values, left_out)


def clean_environment(environment: Mapping[str, str], drop: Collection[str] = ()) -> Captured:
    """Return the variables that a run receives with --env-clean, none of which marks a secret."""
    allowed = {
        name: value
        for name, value in environment.items()
        if _match(name, CLEAN) and not is_secret(name, value)
    }
    return Captured(capture(allowed, drop).values, [])


def left_out_line(captured: Captured, given: Collection[str]) -> str:
    """Return the line about variables that the user may miss in the run; "" if there are none.

    Variables of the session are no news.  `given` has the names that -e, --env-file or the config pass.
    """
    is_in_a_run = any(name == _IN_A_RUN for name, _, _ in captured.left_out)
    parts = []
    for reason, advice in ((LAUNCHER, "; -e NAME passes one"), (LAUNCH, ""), (NOT_UTF8, "")):
        if reason == LAUNCH and is_in_a_run:
            continue
        shown = [
            printable(name if reason == NOT_UTF8 else pattern)
            for name, pattern, why in captured.left_out
            if why == reason and name not in given
        ]
        if shown:
            parts.append(f"{', '.join(sorted(set(shown)))} ({reason}{advice})")
    return f"mosaicctl: the run does not receive {', '.join(parts)}\n" if parts else ""


def differing_line(run: Json) -> str:
    """Return the line about variables in which the live run of an attach differs; "" if there are none."""
    names = run.get("differing_variables") or []
    shown = names[:_MOST_SHOWN] + ([f"{len(names) - _MOST_SHOWN} more"] if len(names) > _MOST_SHOWN else [])
    return (
        f"mosaicctl: the live run keeps its own environment, which differs in {', '.join(shown)}\n"
        if names
        else ""
    )


def printable(text: str) -> str:
    """Return `text` with each byte that is not UTF-8 as \\xNN."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def is_text(text: str) -> bool:
    """Return whether `text` of os.environ is UTF-8 and can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rule_for(name: str, value: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the pattern and the reason for which a variable is left out; two empty texts if it is passed."""
    for reason, patterns in LEFT_OUT.items():
        pattern = _match(name, patterns)
        if pattern:
            return pattern, reason
    if name == "TMPDIR" and _IN_A_RUN in environment and _is_of_a_run(value):
        return name, SESSION
    return ("", "") if is_text(name) and is_text(value) else (name, NOT_UTF8)


def _is_of_a_run(directory: str) -> bool:
    """Return whether a temporary directory is that of a run, and is removed with the end of that run."""
    from mosaicd.protocol.rundir import parse_temporary_name

    return parse_temporary_name(directory.rpartition("/")[2]) is not None


def _match(name: str, patterns: Iterable[str]) -> str:
    """Return the first pattern that `name` matches; "" if there is none."""
    for pattern in patterns:
        if name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1])):
            return pattern
    return ""


def _is_dropped(name: str, drop: Collection[str]) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in drop)
