"""Turn a submit into a spec, in five steps: check, fill in defaults, program, digest, spec.

`make_spec` is the only function that makes a spec from the parameters of a client.  If there are faults, one
error lists all of them.

Note: if a parameter and the config set the same value, the parameter counts.  The variables of the caller's
shell are below both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mosaicd.core.digest import command_digest, config_digest
from mosaicd.core.params import (
    CHECKED,
    LIVENESS,
    check_config_words,
    check_liveness,
    check_no_grace,
    check_params,
    liveness,
)
from mosaicd.core.program import Defaults, Program, check_worker, command_name, config_program, worker_section
from mosaicd.core.run_environment import check_chosen, merged, without_gpu_variables
from mosaicd.core.schema import check, check_json, filled
from mosaicd.core.spec import Limits, Resources, Spec, Stdin
from mosaicd.protocol import Json, ulid
from mosaicd.protocol.faults import Faults
from mosaicd.protocol.messages import Submit
from mosaicd.protocol.signals import KILL
from mosaicd.protocol.states import Dedup, RunKind

#: The place in a config of each parameter that a config can set as well.
_IN_CONFIG: Mapping[str, tuple[str, ...]] = {
    "name": ("run_name",),
    "cpus": ("resources", "cpus"),
    "gpus": ("resources", "gpus", "requested"),
    "memory_mb": ("resources", "memory_mb"),
    "time_limit_s": ("schedule", "max_duration_seconds"),
    "max_steps": ("schedule", "max_steps"),
}


@dataclass(slots=True, kw_only=True)
class Filled:
    """A checked submit with its defaults; either `config` or `command` names the program."""

    config: Json | None = None
    command: tuple[str, ...] = ()
    run_id: str | None = None
    name: str
    dedup: Dedup
    resources: Resources
    limits: Limits
    #: None: the default of the program's kind.
    cwd: str | None
    environment: Mapping[str, str]
    #: The part of `environment` that counts for the digest.
    chosen: Mapping[str, str]


def make_spec(submit: Submit, defaults: Defaults, stdin: Stdin | None = None) -> Spec:
    """Return the spec of a submit with the input `stdin`; raise InvalidParams with every fault otherwise."""
    _check(submit, defaults)
    if submit.config is not None:
        asked = _filled_config(submit, submit.config, defaults)
    else:
        asked = _filled_command(submit, submit.command or [], defaults)
    program = _program(asked, defaults)
    return Spec(
        kind=program.kind,
        name=asked.name,
        argv=program.argv,
        digest=_digest(asked, None if stdin is None else stdin.sha256),
        dedup=asked.dedup,
        resources=asked.resources,
        limits=asked.limits,
        run_id=asked.run_id,
        worker_kind=program.worker_kind,
        worker_id=program.worker_id,
        config_flag=program.config_flag,
        supports_pause=program.supports_pause,
        supports_checkpoint=program.supports_checkpoint,
        cwd=asked.cwd or (None if program.kind is RunKind.WORKER else defaults.home),
        environment=asked.environment,
        given_names=frozenset(asked.chosen),
        stdin=stdin,
        priority=submit.priority,
        labels=dict(submit.labels),
        key=submit.key,
        hold=submit.hold,
        signal_to=submit.signal_to,
        signal=None if submit.signal == KILL else submit.signal,
        config=asked.config,
        process=submit.process,
    )


# --- check -------------------------------------------------------------------------------------------


def _check(submit: Submit, defaults: Defaults) -> None:
    """Raise InvalidParams with every fault of the parameters and of the config."""
    faults = Faults()
    check_params({name: getattr(submit, name) for name in CHECKED}, faults)
    check_chosen(submit.environment, ("environment",), faults, manages_gpus=defaults.manages_gpus)
    if (submit.config is None) == (submit.command is None):
        faults.add((), "give exactly one of config and command")
    check_no_grace(submit.signal, submit.grace_s, faults)
    if submit.config is not None:
        _check_config(submit.config, defaults, faults)
    faults.refuse()


def _check_config(config: Json, defaults: Defaults, faults: Faults) -> None:
    """Add the faults of the schema; if there are none, the values that cannot be stored or executed."""
    before = faults.count
    check(config, faults)
    check_worker(config, defaults, faults)
    check_liveness(config, faults)
    check_json(config, faults)
    if faults.count == before:
        check_config_words(config, faults)


# --- fill in defaults ----------------------------------------------------------------------------------


def _filled_config(submit: Submit, given: Json, defaults: Defaults) -> Filled:
    config = filled(given)
    _override(config, submit)
    chosen = config.pop("environment") | submit.environment
    if defaults.manages_gpus:
        chosen = without_gpu_variables(chosen)
    resources, schedule = config["resources"], config["schedule"]
    gpus = resources["gpus"]
    return Filled(
        config=config,
        run_id=_own_run_id(config),
        name=config["run_name"],
        dedup=Dedup(submit.dedup or Dedup.ATTACH),
        resources=Resources(
            resources["cpus"], resources.get("memory_mb"), gpus["requested"], gpus["mandatory"]
        ),
        limits=_limits(
            submit, schedule.get("max_duration_seconds"), schedule.get("max_steps"), liveness(config)
        ),
        cwd=submit.cwd,
        environment=merged(submit.caller_environment, chosen, manages_gpus=defaults.manages_gpus),
        chosen=chosen,
    )


def _filled_command(submit: Submit, given: Sequence[str], defaults: Defaults) -> Filled:
    command = tuple(given)
    return Filled(
        command=command,
        name=submit.name or command_name(command),
        dedup=Dedup(submit.dedup or Dedup.NEW),
        resources=Resources(
            submit.cpus or 1, submit.memory_mb, gpus=submit.gpus or 0, gpus_mandatory=bool(submit.gpus)
        ),
        limits=_limits(submit, submit.time_limit_s, submit.max_steps, {}),
        cwd=submit.cwd or defaults.home,
        environment=merged(submit.caller_environment, submit.environment, manages_gpus=defaults.manages_gpus),
        chosen=submit.environment,
    )


def _override(config: Json, submit: Submit) -> None:
    """Put the parameters into a filled config (which is a copy down to `resources` and `schedule`)."""
    for name, (*parents, key) in _IN_CONFIG.items():
        value = getattr(submit, name)
        if value is not None:
            place = config
            for parent in parents:
                place = place[parent]
            place[key] = _whole(value) if isinstance(value, float) else value


def _limits(
    submit: Submit, time_limit_s: float | None, max_steps: int | None, patience: Mapping[str, float]
) -> Limits:
    """Return the limits; `patience` is metadata.worker.liveness, and the parameters replace it."""
    own = ((name, getattr(submit, name)) for name in LIVENESS.fields)
    return Limits(
        time_limit_s=None if time_limit_s is None else float(time_limit_s),
        max_steps=max_steps,
        grace_s=0.0 if submit.signal == KILL else submit.grace_s,
        retries=submit.retries or 0,
        retry_on=None if submit.retry_on is None else tuple(submit.retry_on),
        **{**patience, **{name: value for name, value in own if value is not None}},
    )


# --- program and digest --------------------------------------------------------------------------------


def _program(asked: Filled, defaults: Defaults) -> Program:
    if asked.config is None:
        return Program(RunKind.COMMAND, asked.command)
    return config_program(asked.config, asked.environment, defaults)


def _digest(asked: Filled, stdin_sha256: str | None) -> str:
    if asked.config is not None:
        return config_digest(asked.config, asked.chosen, asked.cwd, stdin_sha256)
    limits = asked.limits
    bounds = {"time_limit_s": _whole(limits.time_limit_s), "max_steps": limits.max_steps}
    resources = asdict(asked.resources)
    return command_digest(asked.command, asked.cwd, asked.chosen, resources, bounds, stdin_sha256)


def _own_run_id(config: Json) -> str | None:
    """Return the client's own run id, canonical, if metadata.worker.config.run_id is a ULID."""
    given = worker_section(config).get("config", {}).get("run_id")
    return ulid.parse(given) if isinstance(given, str) and ulid.is_ulid(given) else None


def _whole(value: float | None) -> float | None:
    """Return an integral number as the integer it is, so that 10 and 10.0 have one digest."""
    return int(value) if value is not None and value.is_integer() else value
