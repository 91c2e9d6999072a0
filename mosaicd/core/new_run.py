"""The new run of a spec; settings fill in the values that the spec leaves open."""

from typing import Protocol

from mosaicd.core.params import retry_causes
from mosaicd.core.run import Run
from mosaicd.core.spec import Spec
from mosaicd.protocol.states import RunKind


class Timeouts(Protocol):
    """The timeouts that a run copies from the settings at its submit, in seconds."""

    @property
    def handshake_s(self) -> float: ...
    @property
    def start_s(self) -> float: ...
    @property
    def heartbeat_s(self) -> float: ...
    @property
    def stall_s(self) -> float: ...
    @property
    def grace_s(self) -> float: ...


def of_spec(
    spec: Spec, run_id: str, at: float, owner: tuple[int, str], timeouts: Timeouts, origin: str | None = None
) -> Run:
    """Return the run of `spec` in INIT, submitted at `at` by `owner` (uid and name)."""
    limits, resources = spec.limits, spec.resources
    is_worker = spec.kind is RunKind.WORKER
    grace = timeouts.grace_s if limits.grace_s is None else limits.grace_s
    start, heartbeat = limits.start_timeout_s, limits.heartbeat_timeout_s
    handshake = limits.handshake_timeout_s
    return Run(
        run_id=run_id, owner_uid=owner[0], owner=owner[1], kind=spec.kind, name=spec.name, command=spec.argv,
        digest=spec.digest, created_at=at, worker_kind=spec.worker_kind, worker_id=spec.worker_id,
        key=spec.key, origin=origin, labels=dict(spec.labels), priority=spec.priority, cwd=spec.cwd,
        cpus=resources.cpus, gpus=resources.gpus, gpus_mandatory=resources.gpus_mandatory,
        memory_mb=resources.memory_mb, stdin_bytes=None if spec.stdin is None else spec.stdin.bytes,
        time_limit_s=limits.time_limit_s, max_steps=limits.max_steps, grace_s=grace, retries=limits.retries,
        retry_on=retry_causes(limits.retry_on),
        handshake_timeout_s=timeouts.handshake_s if handshake is None else handshake,
        start_timeout_s=timeouts.start_s if is_worker and start is None else start if is_worker else None,
        heartbeat_timeout_s=timeouts.heartbeat_s if is_worker and heartbeat is None else heartbeat,
        stall_s=(timeouts.stall_s if is_worker and limits.stall_s is None else limits.stall_s) or None,
        can_pause=is_worker and spec.supports_pause, can_checkpoint=is_worker and spec.supports_checkpoint,
        held=spec.hold,
    )  # fmt: skip
