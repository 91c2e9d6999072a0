"""The environment variables that mosaicd sets for a worker; the SDK reads `os.environ` only in this module.

Every variable is optional: outside mosaicd a worker runs from its config alone.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class WorkerEnvironment:
    """The variables of man page mosaic-worker(7), decoded; None for an absent one."""

    run_id: str | None = None
    run_dir: Path | None = None
    checkpoint_dir: Path | None = None
    config_file: Path | None = None
    attempt: int = 1
    worker_id: str | None = None
    control_fd: int | None = None
    resume_from: Path | None = None
    stacks_file: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> WorkerEnvironment:
        """Decode `environ` (default: the process's own); an invalid number counts as absent."""
        env = os.environ if environ is None else environ
        return cls(
            run_id=env.get("MOSAIC_RUN_ID") or env.get("RUN_ID") or None,
            run_dir=_path_or_none(env.get("MOSAIC_RUN_DIR")),
            checkpoint_dir=_path_or_none(env.get("MOSAIC_CHECKPOINT_DIR")),
            config_file=_path_or_none(env.get("MOSAIC_CONFIG_FILE")),
            attempt=_integer_or_none(env.get("MOSAIC_ATTEMPT")) or 1,
            worker_id=env.get("WORKER_ID") or None,
            control_fd=_integer_or_none(env.get("MOSAIC_CONTROL_FD")),
            resume_from=_path_or_none(env.get("MOSAIC_RESUME_FROM")),
            stacks_file=_path_or_none(env.get("MOSAIC_STACKS_FILE")),
        )


def forget_control_fd() -> None:
    """Remove MOSAIC_CONTROL_FD from the environment: child processes do not inherit the descriptor."""
    os.environ.pop("MOSAIC_CONTROL_FD", None)


def new_run_id() -> str:
    """Return a new ULID, for a run without an id."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def _path_or_none(text: str | None) -> Path | None:
    return Path(text) if text else None


def _integer_or_none(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
