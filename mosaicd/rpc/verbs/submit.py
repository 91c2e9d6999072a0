"""run.submit: accept a new run.

Input: a config or a command, and parameters that apply to both.  Output: the run; `duplicate` is true if it
existed before; if its environment is another, `differing_variables` has the names.  `overwritten_variables`
has the names of submitted variables whose values do not count, `cut_attributes` the names of limits that the
daemon's own limits cut.
Caveats: the reply leaves after COMMIT and means that the run is saved.  The files are written first.  A crash
between them and the COMMIT leaves the directory of a run that no client knows.  A file in the directory marks
it as such and is removed between COMMIT and reply.  So the next start removes the directory, also if the
registry is lost.  With `dry_run` nothing is kept, and all is checked but whether the id or the key is used
already.
"""

import asyncio
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from mosaicd import crash_points
from mosaicd.core import new_run
from mosaicd.core.environment_parts import parts_of
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.program import Defaults, WorkerProgram, worker_section
from mosaicd.core.run import Progress, Run
from mosaicd.core.run_environment import overwritten_names
from mosaicd.core.slots import check_possible
from mosaicd.core.spec import Spec
from mosaicd.core.submit import make_spec
from mosaicd.host.descriptors import cut_attributes
from mosaicd.protocol import Json, ulid
from mosaicd.protocol.errors import Conflict, MosaicError, Unavailable
from mosaicd.protocol.messages import Submit
from mosaicd.rpc.attached import with_differing_variables
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.uploads import FinishedUpload

_HOMES: dict[int, str] = {}
#: One submit of an id at a time: if a client repeats a submit that is under way, it gets the same run back.
_UNDER_WAY: "WeakValueDictionary[str, asyncio.Lock]" = WeakValueDictionary()


async def handle(services: Services, caller: Caller, params: Submit) -> Json:
    """Check, write the run's directory, commit, and return the run."""
    async with services.uploads.used(caller, params.stdin) as upload:
        return await _submit(services, caller, params, upload)


async def _submit(services: Services, caller: Caller, params: Submit, upload: FinishedUpload | None) -> Json:
    defaults = await _defaults(services, caller, params)
    spec = make_spec(params, defaults, None if upload is None else upload.stdin)
    check_possible(spec.resources.gpus, spec.resources.gpus_mandatory, services.scheduler.capacity())
    run = make_run(services, caller, spec)
    told = _values_that_do_not_count(services, params)
    if params.dry_run:
        return {**services.runs.view(run, progress=Progress()), **told}
    async with _UNDER_WAY.setdefault(run.run_id, asyncio.Lock()):
        known = await _run_with_same_id(services, caller, spec)
        if known is not None:
            reply = services.runs.view(known, duplicate=True)
        else:
            place_stdin = None if upload is None else upload.move_to
            reply = await accept(services, caller, run, spec, place_stdin)
    if reply["duplicate"]:
        reply = await with_differing_variables(services, reply, spec)
    return {**reply, **told}


def _values_that_do_not_count(services: Services, params: Submit) -> Json:
    """Return the part of the reply about submitted values that do not count; {} if all count."""
    names = overwritten_names(
        (params.config or {}).get("environment", {}), params.environment,
        manages_gpus=services.settings.gpus.static > 0,
    )  # fmt: skip
    told: Json = {"overwritten_variables": names} if names else {}
    cut = cut_attributes(params.process or {})
    return {**told, "cut_attributes": cut} if cut else told


async def accept(
    services: Services, caller: Caller, run: Run, spec: Spec,
    place_stdin: Callable[[Path], None] | None = None,
) -> Json:  # fmt: skip
    """Write directory and row of a checked run, and return it (or the live run it is a duplicate of).

    `place_stdin` puts the input of the run into its directory (see `RunDirs.create`).
    """
    event = Event(Kind.SUBMITTED, run.created_at, caller.name, {"run": run.to_dict()})
    directories = services.rundirs
    words = services.settings.environment.secret_words
    environment = parts_of(spec.environment, spec.given_names, words)
    try:
        await asyncio.to_thread(directories.create, run.run_id, spec.to_dict(), environment, place_stdin)
    except FileExistsError:
        raise Conflict(f"the run id {run.run_id} is already used", run_id=run.run_id) from None
    except OSError as error:
        raise Unavailable(
            f"cannot write {directories.runs}: {error.strerror}", path=str(directories.runs)
        ) from error
    crash_points.reach("submit.directory_written")
    try:
        stored, duplicate = await services.registry.add(event, dedup=spec.dedup, key=spec.key)
    except MosaicError:  # after any other error the row may be stored: the next start decides
        await asyncio.to_thread(directories.remove, run.run_id)
        raise
    finish = directories.remove if duplicate else directories.acknowledge
    await asyncio.to_thread(finish, run.run_id)
    crash_points.reach("submit.before_reply")
    return services.runs.view(stored, duplicate=duplicate)


async def _run_with_same_id(services: Services, caller: Caller, spec: Spec) -> Run | None:
    """Return the run that an earlier submit with this id made; raise Conflict if its config is another."""
    if spec.run_id is None:
        return None
    live = services.registry.live.get(spec.run_id)
    found = live or next(iter(await services.history.get(spec.run_id) or ()), None)
    if not isinstance(found, Run):
        return None
    if found.owner_uid != caller.uid or found.digest != spec.digest:
        raise Conflict(f"the run id {spec.run_id} is already used for another config", run_id=spec.run_id)
    return found


def make_run(services: Services, caller: Caller, spec: Spec, origin: str | None = None) -> Run:
    """Return the run of a spec, not yet stored."""
    at = services.clock.wall()
    run_id = spec.run_id or ulid.encode(int(at * 1000), os.urandom(10))
    return new_run.of_spec(spec, run_id, at, (caller.uid, caller.name), services.settings.timeouts, origin)


async def _defaults(services: Services, caller: Caller, params: Submit) -> Defaults:
    """Return the defaults of a submit; workers are listed only if a config may name one."""
    home = _HOMES.get(caller.uid)
    if home is None:  # in a thread: a directory service may be slow
        home = _HOMES[caller.uid] = await asyncio.to_thread(_home_of, caller.uid)
    workers: dict[str, WorkerProgram] = {}
    if params.config is not None and worker_section(params.config):
        workers = {row["kind"]: _program(row) for row in await services.discovery.list() if "kind" in row}
        for kind, worker in services.settings.workers.items():
            workers.setdefault(kind, WorkerProgram(module=worker.module, python=worker.python))
    manages_gpus = services.settings.gpus.static > 0
    return Defaults(sys.executable, home, workers, manages_gpus)


def _program(row: Json) -> WorkerProgram:
    can = row.get("capabilities") or {}
    return WorkerProgram(
        module=row.get("module"),
        python=row.get("python"),
        supports_pause=bool(can.get("supports_pause_resume")),
        supports_checkpoint=bool(can.get("supports_checkpointing")),
    )


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"
