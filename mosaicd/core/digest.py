"""What makes two submits the same run: SHA-256 over canonical JSON.

Left out is what cannot change the work: run ids (the client's, and the variables that a launch
overwrites), and the submitter's ambient environment (a config sent from two terminals is one config).
Also left out is how the run is treated (priority, labels, retries, grace, and when it counts as dead,
which a config may say, too): asking for the same work with more patience is still the same work.  Key
order never counts; everything else does.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mosaicd.protocol import Json

#: Set by the launch for every run, whatever was submitted (compatibility.md).
OURS = frozenset(
    {
        "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "MOSAIC_ATTEMPT", "MOSAIC_CHECKPOINT_DIR",
        "MOSAIC_CONFIG_FILE", "MOSAIC_CONTROL_FD", "MOSAIC_RESUME_FROM", "MOSAIC_RUN_DIR",
        "MOSAIC_RUN_ID", "MOSAIC_STACKS_FILE", "RUN_ID", "WORKER_ID",
    }
)  # fmt: skip

#: Rewritten to the run's id where the submitter set them.
REWRITTEN = frozenset({"CLEANRL_RUN_ID", "XUANCE_RUN_ID"})

#: What a client hands over from the shell it happens to run in, unasked.
AMBIENT = frozenset(
    {
        "COLORTERM", "CONDA_DEFAULT_ENV", "CONDA_PREFIX", "DISPLAY", "HOME", "LANG", "LANGUAGE", "LOGNAME",
        "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "XAUTHORITY",
    }
)  # fmt: skip


def is_ambient(name: str) -> bool:
    """Whether a variable describes the submitter's shell rather than the work."""
    return name in AMBIENT or name.startswith(("LC_", "XDG_"))


def canonical(value: object) -> bytes:
    """Return JSON with sorted keys at every depth, no spaces and ASCII only; ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def config_digest(config: Mapping[str, Any], environment: Mapping[str, str], cwd: str | None = None) -> str:
    """Return the digest of a config with its defaults filled and the run's own `environment` and `cwd`.

    `environment` takes the place of the config's: its variables and those beside it, less the ambient.
    """
    identity = {key: value for key, value in config.items() if key != "run_id"}
    identity["metadata"] = _work_of(config.get("metadata", {}))
    identity["environment"] = _chosen(environment)
    if cwd is not None:
        identity["cwd"] = cwd
    return _hexdigest({"config": identity})


def command_digest(
    argv: Sequence[str],
    cwd: str | None,
    environment: Mapping[str, str],
    resources: Mapping[str, object],
    limits: Mapping[str, object],
) -> str:
    """Return the digest of a plain command; the working directory is part of it (lifecycle.md)."""
    chosen = {name: value for name, value in environment.items() if not is_ambient(name)}
    return _hexdigest(
        {
            "command": list(argv),
            "cwd": cwd,
            "environment": _chosen(chosen),
            "resources": dict(resources),
            "limits": dict(limits),
        }
    )


def retry_digest(origin: str, extra: Mapping[str, str]) -> str:
    """Return the digest of a retry: its origin's, but where other variables make it other work."""
    chosen = {name: value for name, value in _chosen(extra).items() if not is_ambient(name)}
    return _hexdigest({"retry_of": origin, "environment": chosen}) if chosen else origin


def _hexdigest(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical(identity)).hexdigest()


def _chosen(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OURS and name not in REWRITTEN}


def _work_of(metadata: Json) -> Json:
    """Return `metadata` without worker.config.run_id and worker.liveness; anything else is shared."""
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
