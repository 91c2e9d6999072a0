"""The spec of a run: everything that was accepted at the submit, and its form in spec.json.

Note: `to_dict` holds the names of environment variables without their values, so `from_dict` needs the
values.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from mosaicd.core.program import worker_section
from mosaicd.protocol import Json
from mosaicd.protocol.states import Dedup, RunKind


@dataclass(frozen=True, slots=True)
class Resources:
    """The requested resources; the scheduler decides which of them are granted."""

    cpus: int = 1
    memory_mb: int | None = None
    gpus: int = 0
    gpus_mandatory: bool = False


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
