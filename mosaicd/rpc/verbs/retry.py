"""run.retry: submit an ended run again as a new run.

Input: run_id of a run in TERM, environment variables, `fresh`, `key`.  Output: the new run; its `origin` is
the old run.  Caveats: of an ended run, the daemon keeps its variables without the secrets, so their values
come from the caller.  Missing secrets are an error that lists them.  Unless `fresh`, the worker gets the
checkpoints of the nearest run in the chain of origins that has a complete checkpoint.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mosaicd.core.digest import GPU_NAMES, SET_BY_LAUNCH, retry_digest
from mosaicd.core.environment_parts import Parts
from mosaicd.core.params import check_params
from mosaicd.core.run import Run
from mosaicd.core.run_environment import check_chosen, merged
from mosaicd.core.slots import check_possible
from mosaicd.core.spec import InvalidSpec, Spec, Stdin
from mosaicd.protocol import Json, rundir
from mosaicd.protocol.errors import Conflict, InvalidParams, NotFound, Unavailable
from mosaicd.protocol.faults import Faults
from mosaicd.protocol.messages import Retry
from mosaicd.protocol.states import Dedup
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.verbs.submit import accept, make_run
from mosaicd.rundirs.directories import RunDirs
from mosaicd.rundirs.uploads import Input
from mosaicd.safe_files import read_regular
from mosaicd.store.history import History

#: The most runs in the chain of origins that are searched for checkpoints.
MOST_ORIGINS = 100
CHECKPOINT_PREFIX = "checkpoint-"
MOVED_ASIDE = ".old"
MANIFEST = "manifest.json"
MANIFEST_LIMIT_BYTES = 1 << 20


async def handle(services: Services, caller: Caller, params: Retry) -> Json:
    """Make the new run from the old run's directory, and accept it like a submitted run."""
    origin, _ = await services.runs.newest(params.run_id)
    if not origin.is_final:
        raise Conflict(
            f"run {origin.run_id} has not ended; only an ended run can be retried", state=origin.state
        )
    if origin.owner_uid != caller.uid:
        rule = f"run {origin.run_id} is {origin.owner}'s: a retry would run as you"
        raise Conflict(rule, owner=origin.owner)
    spec, names, kept = await _spec_of(services.rundirs, origin)
    environment = new_environment(names, kept, params, manages_gpus=services.settings.gpus.static > 0)
    check_possible(spec.resources.gpus, spec.resources.gpus_mandatory, services.scheduler.capacity())
    resume_from = None if params.fresh else await _checkpoints(services.rundirs, services.history, origin)
    spec = replace(
        spec, run_id=None, dedup=Dedup.NEW, key=params.key, hold=False, resume_from=resume_from,
        environment=environment, given_names=frozenset(kept.given.keys() | params.environment.keys()),
        digest=retry_digest(origin.digest, params.environment, params.without), name=origin.name,
        labels=dict(origin.labels), priority=origin.priority,
    )  # fmt: skip
    run = make_run(services, caller, spec, origin.run_id)
    if spec.stdin is None:
        return await accept(services, caller, run, spec)
    stdin = await _input_of(services.rundirs, origin, spec.stdin)
    try:
        return await accept(services, caller, run, spec, stdin.link_to)
    finally:
        stdin.close()


def new_environment(
    names: Sequence[str], kept: Parts, params: Retry, *, manages_gpus: bool
) -> dict[str, str]:
    """Return the variables of the new run: those of the origin, its secrets as the caller has them.

    `names` has all variables of the origin.  InvalidParams lists the secrets that the caller does not have.
    """
    faults = Faults()
    asked = {name: getattr(params, name) for name in ("environment", "caller_environment", "key")}
    check_params(asked, faults)
    check_chosen(params.environment, ("environment",), faults, manages_gpus=manages_gpus)
    faults.refuse()
    for index, name in enumerate(params.without):
        if name not in names:
            faults.add(("without", index), f"the old run had no variable {name[:60]}")
    faults.refuse()
    known = {**params.caller_environment, **kept.all}
    needed = [name for name in names if name not in params.without]
    inherited = {name: known[name] for name in needed if name in known}
    others = SET_BY_LAUNCH.union(params.environment, GPU_NAMES if manages_gpus else ())
    missing = [name for name in needed if name not in known and name not in others]
    if missing:
        for name in missing:
            faults.add(("environment", name), "the old run had this secret, and its value is not kept")
        raise InvalidParams(
            f"missing secrets: {', '.join(missing)}", errors=faults.to_dicts(), missing=missing,
            help="pass each with -e NAME=VALUE, or leave it out with --without NAME",
        )  # fmt: skip
    return merged(inherited, params.environment, manages_gpus=manages_gpus)


async def _spec_of(rundirs: RunDirs, origin: Run) -> tuple[Spec, list[str], Parts]:
    """Return the origin's spec, the names of the variables that it was submitted with, and the kept ones."""
    try:
        spec, names = await asyncio.to_thread(rundirs.load_spec, origin.run_id)
        return spec, names, await asyncio.to_thread(rundirs.load_kept, origin.run_id)
    except FileNotFoundError:
        raise NotFound(
            f"the directory of run {origin.run_id} does not exist, so the run cannot be retried"
        ) from None
    except (OSError, InvalidSpec) as error:
        raise Unavailable(f"the files of run {origin.run_id} cannot be read: {error}") from error


async def _input_of(rundirs: RunDirs, origin: Run, stdin: Stdin) -> Input:
    """Return the input of the origin, open; raise Conflict if it is not the file that was submitted."""
    path = rundirs.path(origin.run_id) / rundir.STDIN
    try:
        return await asyncio.to_thread(Input, path, stdin.bytes)
    except OSError as error:
        raise Conflict(
            f"the input of run {origin.run_id} cannot be used again: {path}: {error.strerror}; "
            "submit the run with --stdin instead",
            path=str(path),
        ) from error


async def _checkpoints(rundirs: RunDirs, history: History, origin: Run) -> str | None:
    """Return the checkpoint directory of the nearest origin that has a complete checkpoint.

    If no origin has one, return the nearest with any checkpoint: a worker may use a format of its own.
    """
    run: Run | None = origin
    nearest: str | None = None
    for _ in range(MOST_ORIGINS):
        if run is None:
            break
        directory = rundirs.path(run.run_id) / rundir.FILES / rundir.CHECKPOINTS
        has_any, has_complete = await asyncio.to_thread(_find_checkpoints, directory)
        if has_complete:
            return str(directory)
        if has_any:
            nearest = nearest or str(directory)
        found = await history.get(run.origin) if run.origin is not None else None
        run = found[0] if found is not None else None
    return nearest


def _find_checkpoints(directory: Path) -> tuple[bool, bool]:
    """Return whether the directory has checkpoints, and whether one of them looks complete."""
    try:
        checkpoints = [entry for entry in directory.iterdir() if _is_checkpoint(entry.name)]
    except OSError:
        return False, False
    return bool(checkpoints), any(map(_looks_complete, checkpoints))


def _is_checkpoint(name: str) -> bool:
    """Return whether the name is of a checkpoint, or of one that the worker was replacing at a crash."""
    return name.startswith(CHECKPOINT_PREFIX) or (
        name.startswith(f".{CHECKPOINT_PREFIX}") and name.endswith(MOVED_ASIDE)
    )


def _looks_complete(checkpoint: Path) -> bool:
    """Return whether every file has the size in the manifest; the worker verifies the contents."""
    try:
        files = json.loads(read_regular(checkpoint / MANIFEST, limit_bytes=MANIFEST_LIMIT_BYTES))["files"]
        return all((checkpoint / name).stat().st_size == files[name]["size_bytes"] for name in files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
