"""The program of a config: `metadata.worker` (module, script or kind), else `entry_point` + `arguments`.

Note: `metadata` may hold anything, so a `worker` that is not an object is no fault; only an object is read,
and then strictly.  `metadata.worker.config` alone makes no worker (a module, a script or a kind does),
but the program still gets it with `--config`, unless its arguments have that flag.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mosaicd.core.schema import check_text, kind_name
from mosaicd.protocol import Json
from mosaicd.protocol.faults import Faults, Path
from mosaicd.protocol.states import RunKind

#: Keys of metadata.worker that mosaicd reads as text; each may be absent or null.
TEXT_KEYS = ("module", "script", "python", "kind", "worker_id")
_SECTION: Path = ("metadata", "worker")
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")


@dataclass(frozen=True, slots=True)
class WorkerProgram:
    """An installed worker: `[workers.KIND]` of the configuration, or what discovery found."""

    module: str | None = None
    python: str | None = None
    takes_worker_id: bool = False
    supports_pause: bool = False
    supports_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a submit depends on: the daemon's interpreter, the owner's home, the installed workers.

    `manages_gpus`: whether the daemon has GPU slots, and so decides the GPUs of a run.
    """

    python: str
    home: str
    workers: Mapping[str, WorkerProgram] = field(default_factory=dict)
    manages_gpus: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """The program of a run; with `config_flag`, it gets its config with `--config`."""

    kind: RunKind
    argv: tuple[str, ...]
    worker_kind: str | None = None
    worker_id: str | None = None
    config_flag: bool = False
    supports_pause: bool = False
    supports_checkpoint: bool = False


def worker_section(config: Mapping[str, Any]) -> Json:
    """Return metadata.worker where it is an object, without nulls; {} otherwise."""
    metadata = config.get("metadata")
    section = metadata.get("worker") if isinstance(metadata, dict) else None
    if not isinstance(section, dict):
        return {}
    return {key: value for key, value in section.items() if value is not None}


def check_worker(config: Mapping[str, Any], defaults: Defaults, faults: Faults) -> None:
    """Add a fault for each place where metadata.worker names a program that cannot be started."""
    section = worker_section(config)
    for key in TEXT_KEYS:
        if key in section:
            check_text(section[key], (*_SECTION, key), faults, least=1)
    arguments = section.get("arguments", [])
    if isinstance(arguments, list):
        for index, item in enumerate(arguments):
            check_text(item, (*_SECTION, "arguments", index), faults)
    else:
        faults.add((*_SECTION, "arguments"), f"must be an array, not {kind_name(arguments)}")
    if not isinstance(section.get("config", {}), dict):
        faults.add((*_SECTION, "config"), f"must be an object, not {kind_name(section['config'])}")
    kind = section.get("kind")
    if isinstance(kind, str) and "module" not in section and "script" not in section:
        known = defaults.workers.get(kind)
        if known is None or known.module is None:
            names = ", ".join(sorted(name for name, worker in defaults.workers.items() if worker.module))
            faults.add(
                (*_SECTION, "kind"), f"no worker {kind[:60]!r} is installed; installed: {names or 'none'}"
            )


def config_program(config: Mapping[str, Any], environment: Mapping[str, str], defaults: Defaults) -> Program:
    """Return the program of a valid config.

    `environment` is the environment of the run: that of the submit, and that of the config.
    """
    section = worker_section(config)
    has_config = "config" in section
    if not section.keys() & {"module", "script", "kind"}:
        arguments = config["arguments"]
        return Program(
            RunKind.COMMAND,
            (config["entry_point"], *arguments),
            worker_id=section.get("worker_id"),
            config_flag=has_config and not _has_flag(arguments, "--config"),
        )
    kind = _worker_kind(section, defaults)
    known = defaults.workers.get(kind, WorkerProgram())
    worker_id = section.get("worker_id", kind)
    arguments = section.get("arguments", [])
    if known.takes_worker_id and not _has_flag(arguments, "--worker-id"):
        arguments = [*arguments, "--worker-id", worker_id]
    if "module" in section or "script" not in section:
        module = str(section.get("module", known.module))
        head = [_interpreter(config, section, known, environment, defaults), "-m", module]
    else:
        head = [section["script"]]
    return Program(
        RunKind.WORKER,
        (*head, *arguments),
        kind,
        worker_id,
        has_config and not _has_flag(arguments, "--config"),
        known.supports_pause,
        known.supports_checkpoint,
    )


def command_name(argv: tuple[str, ...]) -> str:
    """Return a name of 1..120 characters: `train.py` for `python -u train.py`, else the program's own."""
    name = PurePosixPath(argv[0]).name
    if _PYTHON.fullmatch(name):
        rest = iter(argv[1:])
        for word in rest:
            if word == "-m":
                name = next(rest, name)
                break
            if word == "-c" or word == "-":
                break
            if word in ("-W", "-X"):
                next(rest, None)
            elif not word.startswith("-"):
                name = PurePosixPath(word).name or name
                break
    return name[:120] or "command"


def _worker_kind(section: Mapping[str, Any], defaults: Defaults) -> str:
    """Return the given kind, or the kind that follows from the module or the script.

    For a script it is the name of its file.  For a module it is the kind of the installed worker of the same
    package, else the package's name without `_worker`.
    """
    if "kind" in section:
        return str(section["kind"])
    if "module" not in section:
        return PurePosixPath(section["script"]).stem[:120] or "script"
    package = section["module"].split(".")[0]
    for kind, worker in sorted(defaults.workers.items()):
        if worker.module is not None and worker.module.split(".")[0] == package:
            return kind
    return str(package.removesuffix("_worker") or package)


def _interpreter(
    config: Mapping[str, Any],
    section: Mapping[str, Any],
    known: WorkerProgram,
    environment: Mapping[str, str],
    defaults: Defaults,
) -> str:
    """Return metadata.worker.python, else the configured one, else a Python given as entry_point, else ours.

    A bare `python` is the one on the submitter's PATH; without a PATH it names nothing: ours is taken.
    """
    entry_point = str(config["entry_point"])
    if "python" in section:
        return str(section["python"])
    if known.python is not None:
        return known.python
    if _PYTHON.fullmatch(PurePosixPath(entry_point).name) and ("/" in entry_point or "PATH" in environment):
        return entry_point
    return defaults.python


def _has_flag(arguments: list[str], flag: str) -> bool:
    return any(word == flag or word.startswith(flag + "=") for word in arguments)
