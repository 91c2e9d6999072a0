"""Mistakes of a submit that only the user's machine and the worker's schema can tell, before it is sent."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from mosaicctl.client import Client, NoDaemon
from mosaicctl.exits import USAGE, UsageError
from mosaicctl.program_check import DEFAULT_PATH, Subject, look, refusal
from mosaicctl.timed_look import LOOK_TIMEOUT_S, NoAnswer, timed_look
from mosaicd.protocol import Json


class NotExecutable(UsageError):
    """The program of a submit cannot be executed; `run` exits with 127 or 126 as a shell does."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def check_submit(get_client: Callable[[], Client], params: Json, args: Any) -> None:
    """Raise an error if the program of run.submit cannot be executed, or its worker refuses its config.

    If the file system does not answer in time, print a line of warning; the submit is then sent unchecked.
    """
    subject = subject_of(params, is_installed=args.worker is not None)
    if subject.argv or subject.cwd is not None:
        try:
            fault = timed_look(partial(look, subject))
        except NoAnswer:
            sys.stderr.write(
                f"mosaicctl: the look at the program had no result within {LOOK_TIMEOUT_S:g} s; "
                "it is submitted unchecked\n"
            )
        else:
            if fault is not None:
                code, text = refusal(subject, (fault[0], fault[1]))
                raise NotExecutable(text, code if args.verb == "run" else USAGE)
    _check_worker_config(get_client, params.get("config"))


def subject_of(params: Json, is_installed: bool = False) -> Subject:
    """Return the program and the directory that the run will have.

    `is_installed`: the daemon has found the worker and has started its interpreter, as its own user.
    """
    config = params.get("config")
    config = config if isinstance(config, dict) else {}
    path = DEFAULT_PATH
    for variables in (params.get("caller_environment"), params.get("environment"), config.get("environment")):
        if isinstance(variables, dict) and isinstance(variables.get("PATH"), str):
            path = variables["PATH"]
    if params.get("command"):
        return Subject(params["command"], params["cwd"], path)
    section = worker_section(config)
    is_worker = bool(section.keys() & {"module", "script", "kind"})
    program = _config_program(section) if is_worker else config.get("entry_point")
    argv = [program] if isinstance(program, str) and program and not is_installed else []
    cwd = params.get("cwd") or (None if is_worker else _home())
    return Subject(argv, cwd, path, is_command=False)


def worker_section(config: Json) -> Json:
    """Return metadata.worker of a config without nulls; {} if it is no object."""
    metadata = config.get("metadata")
    section = metadata.get("worker") if isinstance(metadata, dict) else None
    return (
        {key: value for key, value in section.items() if value is not None}
        if isinstance(section, dict)
        else {}
    )


def _config_program(section: Json) -> Any:
    """Return the program of a config for a worker; None if the daemon's settings decide it."""
    if "script" in section and "module" not in section:
        return section["script"]
    return section.get("python")


def _home() -> str | None:
    """Return the home of the user, where a config's command starts without --cwd."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def _check_worker_config(get_client: Callable[[], Client], config: Any) -> None:
    """Raise InvalidParams if the schema of an installed worker refuses metadata.worker.config."""
    section = worker_section(config) if isinstance(config, dict) else {}
    if not isinstance(section.get("config"), dict) or not section.keys() & {"kind", "module"}:
        return
    try:
        workers = get_client().call("worker.list", {})["workers"]
    except NoDaemon:
        return  # the submit itself reports that, and --dry-run works without a daemon
    from mosaicctl.workerschema import check_config

    for worker in workers:
        # Another interpreter may have another version of the worker.
        if all(
            worker.get(key) == section[key] for key in ("kind", "module", "python") if key in section
        ) and isinstance(worker.get("config_schema"), dict):
            check_config(worker["config_schema"], section["config"])
            return
