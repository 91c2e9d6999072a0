"""A submit, made whole: every default filled, every range checked, the program chosen, the digest taken.

`normalise_submit` is the only door from what strangers send to what the daemon acts on; it tells all
faults at once.  What a reader would get wrong: parameters beside a config win over the config (they are
the later word of the same person), except for variables that merely describe the submitter's shell;
and `to_dict` holds environment variables by name only, so `from_dict` needs their values handed in.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from mosaicd.core.digest import command_digest, config_digest, is_ambient
from mosaicd.core.params import check_config_words, check_liveness, check_params, liveness
from mosaicd.core.program import Defaults, Program, check_worker, command_name, config_program, worker_section
from mosaicd.core.schema import check, check_json, filled
from mosaicd.protocol import ulid
from mosaicd.protocol.faults import Faults
from mosaicd.protocol.messages import Submit
from mosaicd.protocol.states import Dedup, RunKind


@dataclass(frozen=True, slots=True)
class Resources:
    """What the run asks for; what it gets is the grant's business."""

    cpus: int = 1
    memory_mb: int | None = None
    gpus: int = 0
    gpus_mandatory: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on the run; None where the daemon's own settings apply (or where there is no bound)."""

    time_limit_s: float | None = None
    max_steps: int | None = None
    grace_s: float | None = None
    retries: int = 0
    retry_on: tuple[str, ...] | None = None
    heartbeat_timeout_s: float | None = None
    handshake_timeout_s: float | None = None
    start_timeout_s: float | None = None
    stall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What was accepted.  `config` is canonical and without its environment; None for a plain command."""

    kind: RunKind
    name: str
    argv: tuple[str, ...]
    digest: str
    dedup: Dedup
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    run_id: str | None = None
    worker_kind: str | None = None
    worker_id: str | None = None
    config_flag: bool = False
    supports_pause: bool = False
    supports_checkpoint: bool = False
    cwd: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    hold: bool = False
    resume_from: str | None = None
    config: Mapping[str, Any] | None = None

    @property
    def env_names(self) -> list[str]:
        """The submitted variables, by name."""
        return sorted(self.environment)

    @property
    def worker_config(self) -> dict[str, Any] | None:
        """metadata.worker.config as submitted; the launch overwrites its run_id."""
        return worker_section(self.config).get("config") if self.config is not None else None

    @property
    def metadata(self) -> dict[str, Any]:
        """The config's free part."""
        return dict(self.config["metadata"]) if self.config is not None else {}

    @property
    def artifacts(self) -> dict[str, Any]:
        """What the config says about its artifacts."""
        return dict(self.config["artifacts"]) if self.config is not None else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of spec.json: JSON-safe, environment by name only."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "environment"}
        values |= {"argv": list(self.argv), "labels": dict(self.labels), "env_names": self.env_names}
        values |= {"kind": str(self.kind), "dedup": str(self.dedup), "resources": asdict(self.resources)}
        retry_on = self.limits.retry_on
        values["limits"] = asdict(self.limits) | {"retry_on": None if retry_on is None else list(retry_on)}
        return {"version": 1, **values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Self:
        """Return the spec of `to_dict`; ValueError, KeyError or TypeError for anything else."""
        values = dict(data)
        if values.pop("version") != 1:
            raise ValueError("this spec.json is of a newer mosaicd")
        values.pop("env_names")
        limits = dict(values["limits"])
        if limits["retry_on"] is not None:
            limits["retry_on"] = tuple(limits["retry_on"])
        values["limits"] = Limits(**limits)
        values["resources"] = Resources(**values["resources"])
        values["kind"], values["dedup"] = RunKind(values["kind"]), Dedup(values["dedup"])
        values["argv"] = tuple(values["argv"])
        return cls(**values, environment=dict(environment or {}))


def normalise_submit(submit: Submit, defaults: Defaults) -> Spec:
    """Return the spec of a submit; raise InvalidParams with every fault otherwise.

    Where a config and a parameter say the same (name, cpus, gpus, time limit, steps), the parameter counts.
    """
    faults = Faults()
    check_params(submit, faults)
    if (submit.config is None) == (submit.command is None):
        faults.add((), "give either a config or a command")
    if submit.config is not None:
        _check_config(submit.config, defaults, faults)
    faults.refuse()
    if submit.config is not None:
        return _config_spec(submit, filled(submit.config), defaults)
    return _command_spec(submit, defaults)


def _config_spec(submit: Submit, config: dict[str, Any], defaults: Defaults) -> Spec:
    _override(config, submit)
    given = submit.environment
    explicit = {name: value for name, value in given.items() if not is_ambient(name)}
    chosen = config.pop("environment") | explicit
    environment = {**given, **chosen}
    program = config_program(config, environment, defaults)
    asked = config["resources"]
    return _spec(
        submit,
        program,
        name=config["run_name"],
        digest=config_digest(config, chosen, submit.cwd),
        dedup=Dedup(submit.dedup or Dedup.ATTACH),
        resources=Resources(
            asked["cpus"], asked["memory_mb"], asked["gpus"]["requested"], asked["gpus"]["mandatory"]
        ),
        limits=_limits(
            submit,
            config["schedule"].get("max_duration_seconds"),
            config["schedule"].get("max_steps"),
            liveness(config),
        ),
        run_id=_own_run_id(config),
        cwd=submit.cwd or (None if program.kind is RunKind.WORKER else defaults.home),
        environment=environment,
        config=config,
    )


def _command_spec(submit: Submit, defaults: Defaults) -> Spec:
    argv = tuple(submit.command or ())
    cwd = submit.cwd or defaults.home
    resources = Resources(cpus=submit.cpus or 1, gpus=submit.gpus or 0, gpus_mandatory=bool(submit.gpus))
    bounds = {"time_limit_s": _number(submit.time_limit_s), "max_steps": submit.max_steps}
    return _spec(
        submit,
        Program(RunKind.COMMAND, argv),
        name=submit.name or command_name(argv),
        digest=command_digest(argv, cwd, submit.environment, asdict(resources), bounds),
        dedup=Dedup(submit.dedup or Dedup.NEW),
        resources=resources,
        limits=_limits(submit, submit.time_limit_s, submit.max_steps, {}),
        run_id=None,
        cwd=cwd,
        environment=dict(submit.environment),
        config=None,
    )


def _spec(submit: Submit, program: Program, **values: Any) -> Spec:
    return Spec(
        kind=program.kind,
        argv=program.argv,
        worker_kind=program.worker_kind,
        worker_id=program.worker_id,
        config_flag=program.config_flag,
        supports_pause=program.supports_pause,
        supports_checkpoint=program.supports_checkpoint,
        priority=submit.priority,
        labels=dict(submit.labels),
        key=submit.key,
        hold=submit.hold,
        **values,
    )


def _override(config: dict[str, Any], submit: Submit) -> None:
    """Put the submit's own words into a filled config (a copy down to `resources` and `schedule`)."""
    if submit.name is not None:
        config["run_name"] = submit.name
    if submit.cpus is not None:
        config["resources"]["cpus"] = submit.cpus
    if submit.gpus is not None:
        config["resources"]["gpus"]["requested"] = submit.gpus
    if submit.time_limit_s is not None:
        config["schedule"]["max_duration_seconds"] = _number(submit.time_limit_s)
    if submit.max_steps is not None:
        config["schedule"]["max_steps"] = submit.max_steps


def _limits(
    submit: Submit, time_limit_s: float | None, max_steps: int | None, patience: Mapping[str, float]
) -> Limits:
    """Return the bounds; of `patience` (metadata.worker.liveness), what the submit itself says counts."""

    def seconds(name: str) -> float | None:
        own: float | None = getattr(submit, name)
        return patience.get(name) if own is None else own

    return Limits(
        None if time_limit_s is None else float(time_limit_s),
        max_steps,
        submit.grace_s,
        submit.retries or 0,
        None if submit.retry_on is None else tuple(submit.retry_on),
        seconds("heartbeat_timeout_s"),
        seconds("handshake_timeout_s"),
        seconds("start_timeout_s"),
        seconds("stall_s"),
    )


def _own_run_id(config: Mapping[str, Any]) -> str | None:
    """Return the client's own run id, canonical, where metadata.worker.config.run_id is a ULID."""
    given = worker_section(config).get("config", {}).get("run_id")
    return ulid.parse(given) if isinstance(given, str) and ulid.is_ulid(given) else None


def _check_config(config: Mapping[str, Any], defaults: Defaults, faults: Faults) -> None:
    """Add the schema's faults; where there are none, what nobody could store or execute."""
    before = faults.count
    check(config, faults)
    check_worker(config, defaults, faults)
    check_liveness(config, faults)
    check_json(config, faults)
    if faults.count == before:
        check_config_words(config, faults)


def _number(value: float | None) -> float | None:
    """Return an integral number as the integer it is, so that 10 and 10.0 have one digest."""
    return int(value) if value is not None and float(value).is_integer() else value
