"""The start of a worker: its environment, its config file, and the launch order.

The environment has three layers, each over the one before: a minimal base, the submitted variables, the
variables in `SET_BY_LAUNCH` and, where GPUs are managed, in `GPU_NAMES`.  Note: no others are overwritten;
`MOSAIC_ROOT` and `MOSAIC_FASTLANE_ENABLED`, for example, belong to the worker.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mosaicd.core.digest import REWRITTEN, SET_BY_LAUNCH
from mosaicd.core.run_environment import (
    gpu_variables,
    is_of_a_service,
    thread_counts,
    without_gpu_variables,
)
from mosaicd.core.spec import Spec
from mosaicd.protocol import Json, rundir
from mosaicd.protocol.process_limits import limit_number
from mosaicd.protocol.records.orders import (
    Containment,
    LaunchOrder,
    Limits,
    Process,
    ProcessAttributes,
    SignalTo,
    TeardownLimits,
    TeardownOrder,
)
from mosaicd.protocol.records.packets import ForkFailed
from mosaicd.protocol.signals import StopSignal
from mosaicd.protocol.states import RunKind

MIB = 1 << 20
MINIMAL_PATH = "/usr/local/bin:/usr/bin:/bin"

_BASE = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG"})


class LaunchFailed(Exception):
    """The launcher could not fork a shim."""


class NoProcess(LaunchFailed):
    """The machine had no process, memory or descriptor for the fork; a later try may succeed."""


#: Temporary errors of a fork: the limit of processes, no memory, no descriptor.
TEMPORARY_ERRORS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def fork_error(reply: ForkFailed) -> LaunchFailed:
    """Return the error for a refusal of the launcher."""
    kind = NoProcess if reply.errno in TEMPORARY_ERRORS else LaunchFailed
    return kind(reply.error)


@dataclass(frozen=True, slots=True)
class Placement:
    """The run id, attempt, directory and slots of one attempt, as the daemon decided them."""

    run_id: str
    attempt: int
    run_dir: str
    slots: tuple[int, ...] = ()
    cpus: int = 1

    @property
    def attempt_dir(self) -> str:
        """The attempt's own directory."""
        return rundir.attempt_dir(self.run_dir, self.attempt)

    @property
    def files_dir(self) -> str:
        """The worker's directory, shared by all attempts."""
        return str(PurePosixPath(self.run_dir) / rundir.FILES)

    @property
    def stdin(self) -> str:
        """The submitted input of the run."""
        return str(PurePosixPath(self.run_dir) / rundir.STDIN)

    @property
    def checkpoint_dir(self) -> str:
        """The directory of the worker's checkpoints."""
        return str(PurePosixPath(self.files_dir) / rundir.CHECKPOINTS)

    @property
    def config_file(self) -> str:
        """The flat config that the shim writes."""
        return str(PurePosixPath(self.attempt_dir) / rundir.WORKER_CONFIG)


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """The daemon's settings for values that a spec leaves open."""

    limits: Limits = field(default_factory=Limits)
    containment: str = "auto"
    memory: str = "enforce"
    tasks: int | None = None
    manages_gpus: bool = True


@dataclass(frozen=True, slots=True)
class Budget:
    """The part of the run's limits that earlier attempts have used.

    Seconds count over a release but not over a retry (then 0); `steps` are the records of all attempts, for a
    worker without a count of its own.
    """

    seconds: float = 0.0
    steps: int = 0


def base_environment(user: str, home: str, shell: str, lang: str, path: str = MINIMAL_PATH) -> dict[str, str]:
    """Return the minimal environment of a program."""
    return {"PATH": path, "HOME": home, "USER": user, "LOGNAME": user, "SHELL": shell, "LANG": lang}


def worker_environment(
    base: Mapping[str, str], spec: Spec, at: Placement, settings: LaunchSettings
) -> dict[str, str]:
    """Return the complete environment of one attempt; only the names in `_BASE` are used of `base`.

    Python buffers the output to a pipe, and a killed program loses what it has buffered; so a command has
    PYTHONUNBUFFERED, unless the submitter set it.  A worker flushes its lines itself, through the SDK.
    """
    environment = {name: base[name] for name in sorted(_BASE & base.keys())}
    if spec.kind is RunKind.COMMAND:
        environment["PYTHONUNBUFFERED"] = "1"
    given = {
        name: value
        for name, value in spec.environment.items()
        if name not in SET_BY_LAUNCH and not is_of_a_service(name)
    }
    ours = _launch_variables(spec, at, given)
    if settings.manages_gpus or at.slots:
        given = without_gpu_variables(given)
        ours |= gpu_variables(at.slots)
    if spec.resources.memory_mb is not None and settings.memory == "enforce":
        ours["MOSAIC_MEMORY_MB"] = str(spec.resources.memory_mb)
    return environment | given | thread_counts(given, at.cpus) | ours


def worker_config(spec: Spec, run_id: str) -> Json | None:
    """Return the flat config for worker-config.json, with `run_id` and a default `worker_id`, or None."""
    submitted = spec.worker_config
    if submitted is None:
        return None
    config = {**submitted, "run_id": run_id}
    if config.get("worker_id") is None and spec.worker_id is not None:
        config["worker_id"] = spec.worker_id
    return config


def grace_s(spec: Spec, settings: LaunchSettings) -> float:
    """Return the grace period of the spec, else the setting."""
    return settings.limits.grace_s if spec.limits.grace_s is None else spec.limits.grace_s


def launch_order(
    spec: Spec,
    at: Placement,
    *,
    base: Mapping[str, str],
    nonce: str,
    secret: str,
    socket: str,
    uid: int,
    settings: LaunchSettings,
    used: Budget | None = None,
) -> LaunchOrder:
    """Return the launch order of one attempt."""
    return LaunchOrder(
        run_id=at.run_id,
        attempt=at.attempt,
        nonce=nonce,
        secret=secret,
        socket=socket,
        run_dir=at.run_dir,
        attempt_dir=at.attempt_dir,
        files_dir=at.files_dir,
        kind=str(spec.kind),
        argv=tuple(spec.argv),
        cwd=_directory(spec, at),
        environment=worker_environment(base, spec, at, settings),
        stdin=at.stdin if spec.stdin is not None else None,
        worker_id=_worker_id(spec),
        worker_kind=spec.worker_kind or str(spec.kind),
        worker_config=worker_config(spec, at.run_id),
        config_flag=spec.config_flag,
        cooperative=spec.kind is RunKind.WORKER and spec.supports_pause,
        supports_checkpoint=spec.supports_checkpoint,
        slots=at.slots,
        cpus=at.cpus,
        uid=uid,
        signal_to=spec.signal_to,
        signal=spec.signal,
        limits=_limits(spec, settings, used or Budget()),
        containment=_containment(spec, settings),
        process=process_attributes(spec.process or {}),
    )


def process_attributes(process: Mapping[str, Any]) -> ProcessAttributes:
    """Return the checked `process` of a submit as the order has it."""
    limits = process.get("limits")
    numbers = None if limits is None else {name: limit_number(limit) for name, limit in limits.items()}
    affinity = process.get("affinity")
    return ProcessAttributes(
        umask=process.get("umask"),
        nice=process.get("nice"),
        limits=numbers,
        affinity=None if affinity is None else tuple(affinity),
    )


def teardown_order(
    at: Placement,
    *,
    nonce: str,
    grace_s: float,
    signal_to: SignalTo | None,
    signal: StopSignal | None,
    pid: int | None,
    start_ticks: int | None,
    given_up_shim: tuple[int, int] | None = None,
) -> TeardownOrder:
    """Return the order to end an orphaned process tree; pid and ticks are those of started.json.

    `given_up_shim`: pid and start time of a live, silent shim that must be ended first.
    """
    process = Process(pid=given_up_shim[0], start_ticks=given_up_shim[1]) if given_up_shim else None
    return TeardownOrder(
        run_id=at.run_id,
        attempt=at.attempt,
        nonce=nonce,
        attempt_dir=at.attempt_dir,
        limits=TeardownLimits(grace_s=grace_s),
        signal_to=signal_to,
        signal=signal,
        pid=pid,
        start_ticks=start_ticks,
        given_up_shim=process,
    )


def _launch_variables(spec: Spec, at: Placement, given: Mapping[str, str]) -> dict[str, str]:
    ours = {
        "MOSAIC_ATTEMPT": str(at.attempt),
        "MOSAIC_CHECKPOINT_DIR": at.checkpoint_dir,
        "MOSAIC_CPUS": str(at.cpus),
        "PWD": _directory(spec, at),
        "MOSAIC_RUN_DIR": at.files_dir,
        "MOSAIC_STACKS_FILE": str(PurePosixPath(at.attempt_dir) / rundir.STACKS),
        rundir.MARKER: at.run_id,
        "RUN_ID": at.run_id,
        "WORKER_ID": _worker_id(spec),
    }
    if spec.resume_from is not None:
        ours["MOSAIC_RESUME_FROM"] = spec.resume_from
    if spec.worker_config is not None:
        ours["MOSAIC_CONFIG_FILE"] = at.config_file
    return ours | dict.fromkeys(REWRITTEN & given.keys(), at.run_id)


def _directory(spec: Spec, at: Placement) -> str:
    """Return the working directory as it was submitted: symbolic links are kept."""
    return spec.cwd or at.files_dir


def _worker_id(spec: Spec) -> str:
    return spec.worker_id or str(spec.kind)


def _containment(spec: Spec, settings: LaunchSettings) -> Containment:
    is_limited = settings.memory == "enforce" and spec.resources.memory_mb is not None
    return Containment(
        required=settings.containment == "cgroup",
        memory_bytes=(spec.resources.memory_mb or 0) * MIB if is_limited else None,
        tasks=settings.tasks,
    )


def _limits(spec: Spec, settings: LaunchSettings, used: Budget) -> Limits:
    asked = spec.limits
    default_s = settings.limits.handshake_timeout_s
    return settings.limits.changed(
        time_limit_s=None if asked.time_limit_s is None else max(0.0, asked.time_limit_s - used.seconds),
        max_steps=asked.max_steps,
        steps_before=used.steps,
        grace_s=grace_s(spec, settings),
        handshake_timeout_s=default_s if asked.handshake_timeout_s is None else asked.handshake_timeout_s,
    )
