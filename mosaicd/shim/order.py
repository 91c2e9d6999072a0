"""The order a shim is forked for, decoded from the descriptor that came with it.

It holds the launch secret and the worker's environment, so it is read after the fork, lives only in
this process, and is never written anywhere.
"""

import json
import os
from typing import Any

from mosaicd.shim import run_cgroup

_NAME_LIMIT = 128


class Limits:
    """Durations in seconds, sizes in bytes; None where the run has no such limit."""

    __slots__ = (
        "grace_s", "handshake_timeout_s", "max_steps", "pause_ack_timeout_s", "post_mortem_s",
        "stderr_limit_bytes", "stdout_limit_bytes", "steps_before", "telemetry_limit_bytes", "time_limit_s",
    )  # fmt: skip

    def __init__(self, raw: dict[str, Any]) -> None:
        self.grace_s = float(raw.get("grace_s", 5.0))
        self.handshake_timeout_s = float(raw.get("handshake_timeout_s", 30.0))
        self.pause_ack_timeout_s = float(raw.get("pause_ack_timeout_s", 10.0))
        self.time_limit_s: float | None = raw.get("time_limit_s")
        self.post_mortem_s = float(raw.get("post_mortem_s", 2.0))
        self.max_steps: int | None = raw.get("max_steps")
        self.steps_before = int(raw.get("steps_before", 0))
        self.stdout_limit_bytes = int(raw.get("stdout_limit_bytes", 1 << 30))
        self.stderr_limit_bytes = int(raw.get("stderr_limit_bytes", 1 << 30))
        self.telemetry_limit_bytes = int(raw.get("telemetry_limit_bytes", 1 << 32))


class LaunchOrder:
    """Everything a shim needs to start one attempt of one run."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.run_id: str = raw["run_id"]
        self.attempt: int = raw["attempt"]
        self.nonce: str = raw["nonce"]
        self.secret: str = raw["secret"]
        self.socket: str = raw["socket"]
        self.run_dir: str = raw["run_dir"]
        self.attempt_dir: str = raw["attempt_dir"]
        self.files_dir: str = raw["files_dir"]
        self.kind: str = raw["kind"]
        self.argv: list[str] = list(raw["argv"])
        self.cwd: str = raw["cwd"]
        self.environment: dict[str, str] = raw["environment"]
        self.worker_config: dict[str, Any] | None = raw.get("worker_config")
        self.config_flag = bool(raw.get("config_flag"))
        self.cooperative = bool(raw.get("cooperative"))
        self.slots: list[int] = raw.get("slots", [])
        self.cpus: int | None = raw.get("cpus")
        self.limits = Limits(raw.get("limits", {}))
        self.containment = run_cgroup.wanted(raw.get("containment", {}), self.cpus)

    @property
    def is_worker(self) -> bool:
        """Whether this is a MOSAIC worker rather than a plain command."""
        return self.kind == "worker"

    @property
    def worker_id(self) -> str:
        """The worker's own name, as it finds it in its environment."""
        name = self.environment.get("WORKER_ID") or self.run_id
        return name[:_NAME_LIMIT].encode("utf-8", "replace").decode()


class TeardownOrder:
    """Whose orphaned tree to end; `pid` and `start_ticks` are the leader's, None where it never started.

    `given_up` is the shim that lives, says nothing and is to be ended first, where there is one.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        self.run_id: str = raw["run_id"]
        self.attempt: int = raw["attempt"]
        self.nonce: str = raw.get("nonce", "")
        self.attempt_dir: str = raw["attempt_dir"]
        self.pid: int | None = raw.get("pid")
        self.start_ticks: int | None = raw.get("start_ticks")
        self.given_up: dict[str, int] | None = raw.get("given_up")
        self.grace_s = float(raw.get("limits", {}).get("grace_s", 5.0))


def read(fd: int) -> dict[str, Any]:
    """Return the JSON object in `fd`, wherever its offset stands, and close it."""
    with os.fdopen(fd, "rb") as file:
        if file.seekable():
            file.seek(0)
        order: dict[str, Any] = json.loads(file.read())
    return order
