"""The digest of a submit: SHA-256 over canonical JSON.  Two submits with one digest are the same run.

The digest leaves out values that do not change the work: run ids (of the client, and variables that a launch
overwrites), the environment of the caller's shell (so a submit from two terminals has one digest), and the
treatment of the run (priority, labels, retries, grace period, liveness limits).  The order of keys does not
matter; all other values do.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mosaicd.protocol import Json

#: Variables that the launch sets for every run; submitted values of them have no effect.
SET_BY_LAUNCH = frozenset(
    {
        "MOSAIC_ATTEMPT", "MOSAIC_CHECKPOINT_DIR", "MOSAIC_CONFIG_FILE", "MOSAIC_CONTROL_FD", "MOSAIC_CPUS",
        "MOSAIC_MEMORY_MB", "MOSAIC_RESUME_FROM", "MOSAIC_RUN_DIR", "MOSAIC_RUN_ID", "MOSAIC_STACKS_FILE",
        "PWD", "RUN_ID", "WORKER_ID",
    }
)  # fmt: skip

#: Variables that choose GPUs.  Where GPUs are managed, the launch decides them; elsewhere the submitter does.
GPU_NAMES = frozenset(
    {"CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}
)

#: Variables that the launch sets to the run id if the submitter set them.
REWRITTEN = frozenset({"CLEANRL_RUN_ID", "XUANCE_RUN_ID"})


def canonical(value: object) -> bytes:
    """Return JSON with sorted keys at every level, no spaces and ASCII only; raise ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def config_digest(
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    cwd: str | None = None,
    stdin_sha256: str | None = None,
) -> str:
    """Return the digest of a config with its defaults filled and the run's own `environment` and `cwd`.

    `environment` replaces that of the config: all variables but those of the caller's shell.
    """
    identity = {key: value for key, value in config.items() if key != "run_id"}
    identity["metadata"] = _work_of(config.get("metadata", {}))
    identity["environment"] = _without_launch_variables(environment)
    if cwd is not None:
        identity["cwd"] = cwd
    return _hexdigest({"config": identity, **_stdin(stdin_sha256)})


def command_digest(
    argv: Sequence[str],
    cwd: str | None,
    environment: Mapping[str, str],
    resources: Mapping[str, object],
    limits: Mapping[str, object],
    stdin_sha256: str | None = None,
) -> str:
    """Return the digest of a plain command; the working directory is part of it."""
    return _hexdigest(
        {
            "command": list(argv),
            "cwd": cwd,
            "environment": _without_launch_variables(environment),
            "resources": dict(resources),
            "limits": dict(limits),
            **_stdin(stdin_sha256),
        }
    )


def retry_digest(origin: str, extra: Mapping[str, str], without: Collection[str] = ()) -> str:
    """Return the digest of a retry: the digest `origin`, unless other variables change the work."""
    chosen = _without_launch_variables(extra)
    identity: dict[str, object] = {"retry_of": origin, "environment": chosen}
    if without:
        identity["without"] = sorted(without)
    return _hexdigest(identity) if chosen or without else origin


def _stdin(sha256: str | None) -> dict[str, str]:
    """Return the entry of the input, which a run without an input does not have."""
    return {} if sha256 is None else {"stdin": sha256}


def _hexdigest(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical(identity)).hexdigest()


def _without_launch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in SET_BY_LAUNCH and name not in REWRITTEN
    }


def _work_of(metadata: Json) -> Json:
    """Return `metadata` without worker.config.run_id and worker.liveness; all other values are shared."""
    worker = metadata.get("worker")
    if not isinstance(worker, dict):
        return metadata
    bare = {key: value for key, value in worker.items() if key != "liveness"}
    config = bare.get("config")
    if isinstance(config, dict):
        bare["config"] = {key: value for key, value in config.items() if key != "run_id"}
    if worker and not bare:
        return {key: value for key, value in metadata.items() if key != "worker"}
    return {**metadata, "worker": bare}
