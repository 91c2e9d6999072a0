"""The spec of a run: everything that was accepted at the submit, and its form in spec.json.

Note: spec.json holds the names of environment variables without their values.  The values are in
environment.json and in the files beside it, so the environment of a spec from `from_dict` is empty.

A user may write into these files.  `Spec.from_dict` and `environment_of` decide whether their content is
valid, and raise InvalidSpec for everything that `to_dict` does not write.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from mosaicd.core.params import MAX_NUMBER, check_params
from mosaicd.core.program import worker_section
from mosaicd.core.schema import (
    Flag,
    Free,
    Nullable,
    Number,
    Record,
    Text,
    TextMap,
    Texts,
    Whole,
    check_json,
    check_rule,
    filled_record,
)
from mosaicd.protocol import Json, signals
from mosaicd.protocol.faults import Faults, shown
from mosaicd.protocol.records.orders import TO_LEADER, TO_TREE, SignalTo
from mosaicd.protocol.signals import StopSignal
from mosaicd.protocol.states import Dedup, RunKind

VERSION = 1

_COUNT = Whole(0, MAX_NUMBER)
_SECONDS = Nullable(Number(0, MAX_NUMBER))
_TEXT = Nullable(Text())
#: The content of spec.json.  The ranges of parameters that have a range of their own: see `check_params`.
_SPEC_JSON = Record(
    {
        "version": Whole(VERSION, VERSION),
        "kind": Text(), "name": Text(), "argv": Texts(), "digest": Text(), "dedup": Text(),
        "resources": Record(
            {
                "cpus": _COUNT, "memory_mb": Nullable(_COUNT), "gpus": _COUNT,
                "gpus_mandatory": Flag(False),
            }
        ),
        "limits": Record(
            {
                "time_limit_s": _SECONDS, "max_steps": Nullable(_COUNT), "grace_s": _SECONDS,
                "retries": _COUNT, "retry_on": Nullable(Texts()), "heartbeat_timeout_s": _SECONDS,
                "handshake_timeout_s": _SECONDS, "start_timeout_s": _SECONDS, "stall_s": _SECONDS,
            },
            frozenset({"retry_on"}),
        ),
        "stdin": Nullable(
            Record({"bytes": _COUNT, "sha256": Text(64, 64)}, frozenset({"bytes", "sha256"}))
        ),
        "run_id": _TEXT, "worker_kind": _TEXT, "worker_id": _TEXT, "config_flag": Flag(False),
        "supports_pause": Flag(False), "supports_checkpoint": Flag(False), "cwd": _TEXT,
        "env_names": Texts(), "priority": Whole(-MAX_NUMBER, MAX_NUMBER), "labels": TextMap(), "key": _TEXT,
        "hold": Flag(False), "signal_to": _TEXT, "signal": _TEXT, "resume_from": _TEXT,
        "config": Nullable(Free()), "process": Nullable(Free()),
    },
    frozenset({"version", "kind", "name", "argv", "digest", "dedup", "resources", "limits", "env_names"}),
)  # fmt: skip


#: Fields of a spec that spec.json does not have.
_NOT_WRITTEN = ("environment", "given_names")


class InvalidSpec(ValueError):
    """The content of a spec.json or of an environment.json is not valid."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The requested resources; the scheduler decides which of them are granted."""

    cpus: int = 1
    memory_mb: int | None = None
    gpus: int = 0
    gpus_mandatory: bool = False


@dataclass(frozen=True, slots=True)
class Stdin:
    """The submitted input: its size and the SHA-256 of its content, in hexadecimal digits."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the run; None: the setting of the daemon applies, or there is no limit."""

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
    """An accepted submit.  `config` is canonical and without its environment; None for a plain command."""

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
    #: The submitted variables, those of the caller's shell included.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The names of the variables that the submit or its config gave.
    given_names: frozenset[str] = frozenset()
    stdin: Stdin | None = None
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    hold: bool = False
    signal_to: SignalTo | None = None
    signal: StopSignal | None = None
    resume_from: str | None = None
    config: Mapping[str, Any] | None = None
    #: What the worker's process has from its submitter: umask, nice, limits, affinity.
    process: Mapping[str, Any] | None = None

    @property
    def env_names(self) -> list[str]:
        """The submitted variables, by name."""
        return sorted(self.environment)

    @property
    def worker_config(self) -> Json | None:
        """metadata.worker.config as submitted; the launch overwrites its run_id."""
        return worker_section(self.config).get("config") if self.config is not None else None

    @property
    def metadata(self) -> Json:
        """The `metadata` of the config."""
        return dict(self.config["metadata"]) if self.config is not None else {}

    @property
    def artifacts(self) -> Json:
        """The `artifacts` of the config."""
        return dict(self.config["artifacts"]) if self.config is not None else {}

    def to_dict(self) -> Json:
        """Return the content of spec.json, with the names of the environment variables but no values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_WRITTEN}
        values |= {"argv": list(self.argv), "labels": dict(self.labels), "env_names": self.env_names}
        values |= {"kind": str(self.kind), "dedup": str(self.dedup), "resources": asdict(self.resources)}
        retry_on = self.limits.retry_on
        values["limits"] = asdict(self.limits) | {"retry_on": None if retry_on is None else list(retry_on)}
        values["stdin"] = None if self.stdin is None else asdict(self.stdin)
        return {"version": VERSION, **values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the spec of `to_dict`, without its environment; raise InvalidSpec for anything else."""
        version = data.get("version")
        if isinstance(version, int) and version > VERSION:
            raise InvalidSpec(f"version {shown(version)} is of a newer mosaicd")
        faults = Faults()
        check_rule(_SPEC_JSON, data, (), faults)
        _refuse(faults)
        _check_values(data, faults)
        _refuse(faults)
        values = filled_record(_SPEC_JSON, data)
        del values["version"], values["env_names"]
        limits = values["limits"]
        retry_on = None if limits["retry_on"] is None else tuple(limits["retry_on"])
        values["limits"] = Limits(**limits | {"retry_on": retry_on})
        values["resources"] = Resources(**values["resources"])
        if values.get("stdin") is not None:
            values["stdin"] = Stdin(**values["stdin"])
        values["kind"], values["dedup"] = RunKind(values["kind"]), Dedup(values["dedup"])
        values["argv"] = tuple(values["argv"])
        return cls(**values)


def environment_of(data: Json) -> dict[str, str]:
    """Return the variables of an environment.json; raise InvalidSpec if one of them is not text."""
    faults = Faults()
    check_rule(TextMap(), data, (), faults)
    check_json(data, faults)
    _refuse(faults)
    return dict(data)


def _check_values(data: Mapping[str, Any], faults: Faults) -> None:
    """Add the faults of a spec.json with the right types: unknown words, numbers out of range, bad config."""
    for name, words in (("kind", RunKind), ("dedup", Dedup)):
        if data[name] not in set(words):
            faults.add((name,), f"{shown(data[name])} is none of {', '.join(words)}")
    if data.get("signal_to") not in (None, TO_LEADER, TO_TREE):
        faults.add(("signal_to",), f"{shown(data['signal_to'])} is none of {TO_LEADER}, {TO_TREE}")
    if data.get("signal") not in (None, *signals.NAMES):
        faults.add(("signal",), f"{shown(data['signal'])} is none of {', '.join(signals.NAMES)}")
    if not data["argv"]:
        faults.add(("argv",), "must not be empty")
    check_json({name: value for name, value in data.items() if name != "config"}, faults)
    ranged = ("name", "key", "labels", "priority", "process")
    check_params({name: data.get(name) for name in ranged} | {**data["limits"], **data["resources"]}, faults)
    if data.get("config") is not None:
        check_json(data["config"], faults)
        check_rule(
            Free(),
            worker_section(data["config"]).get("config", {}),
            ("config", "metadata", "worker", "config"),
            faults,
        )


def _refuse(faults: Faults) -> None:
    """Raise InvalidSpec with the first fault, if there is any."""
    if faults.count:
        path, rule = faults.to_list()[0]
        raise InvalidSpec(f"{path}: {rule}" if path else rule)
