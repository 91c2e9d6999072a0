"""Build launch and teardown orders from files each time: no secret of a run is kept in memory.

Spec and environment come from the run directory, so the first launch, a repeated order and a launch
after a restart are the same code.
"""

import pwd
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from mosaicd.config import Settings
from mosaicd.core.deadlines import grace_s
from mosaicd.core.launch import (
    Budget,
    LaunchSettings,
    Placement,
    base_environment,
    launch_order,
    teardown_order,
)
from mosaicd.core.run import Run
from mosaicd.core.run_environment import without_long_directory
from mosaicd.core.spec import InvalidSpec, Spec
from mosaicd.protocol.records.orders import LaunchOrder, Limits, TeardownOrder
from mosaicd.rundirs.directories import RunDirs


class Secrets(Protocol):
    """The part of `auth` that makes the secrets of an order."""

    def launch_secret(self, run_id: str, attempt: int, nonce: str) -> str: ...


class OrderBuilder:
    """Build the orders of live runs for the launcher."""

    def __init__(self, rundirs: RunDirs, secrets: Secrets, settings: Settings, socket: Path) -> None:
        self._rundirs = rundirs
        self._secrets = secrets
        self._socket = str(socket)
        timeouts, limits = settings.timeouts, settings.limits
        self._settings = LaunchSettings(
            limits=Limits(
                grace_s=timeouts.grace_s,
                handshake_timeout_s=timeouts.handshake_s,
                pause_ack_timeout_s=timeouts.pause_ack_s,
                post_mortem_s=timeouts.post_mortem_s,
                stdout_limit_bytes=limits.stdout_bytes,
                stderr_limit_bytes=limits.stderr_bytes,
                telemetry_limit_bytes=limits.telemetry_bytes,
            ),
            containment=settings.containment.mode,
            memory=settings.containment.memory,
            tasks=settings.containment.tasks,
            manages_gpus=settings.gpus.static > 0,
        )

    def launch_order(self, run: Run) -> LaunchOrder:
        """Return the launch order for the current attempt of `run`.

        Raises OSError or InvalidSpec if spec.json or environment.json cannot be used.
        """
        assert run.nonce is not None, "a dispatched run has a nonce"
        spec, names = self._rundirs.load_spec(run.run_id)
        parts = self._rundirs.load_environment(run.run_id)
        environment = parts.all
        missing = [name for name in names if name not in environment]
        if missing:
            where = self._rundirs.path(run.run_id)
            raise InvalidSpec(f"the values of {', '.join(missing)} are missing in {where}")
        environment = parts._replace(caller=without_long_directory(parts.caller)).all
        return launch_order(
            replace(spec, environment=environment),
            self._placement(run),
            base=_base_environment_of(run.owner_uid),
            nonce=run.nonce,
            secret=self._secrets.launch_secret(run.run_id, run.attempt, run.nonce),
            socket=self._socket,
            uid=run.owner_uid,
            settings=self._settings,
            used=Budget(run.active_s, run.steps_before),
        )

    def teardown_order(self, run: Run, given_up_shim: tuple[int, int] | None = None) -> TeardownOrder:
        """Return the order for a teardown shim, which first ends a shim that was given up."""
        spec = self._try_load_spec(run)
        return teardown_order(
            self._placement(run),
            nonce=run.nonce or "",
            grace_s=grace_s(run),
            signal_to=spec.signal_to if spec else None,
            signal=(run.stop or {}).get("signal") or (spec.signal if spec else None),
            pid=run.pid,
            start_ticks=run.start_ticks,
            given_up_shim=given_up_shim,
        )

    def remove_environment(self, run: Run) -> None:
        """Remove the secrets of the run's environment, which only a live run needs."""
        self._rundirs.forget_environment(run.run_id)

    def _try_load_spec(self, run: Run) -> Spec | None:
        """Return the spec of the run; None if it cannot be used."""
        try:
            return self._rundirs.load_spec(run.run_id)[0]
        except (OSError, InvalidSpec):
            return None

    def _placement(self, run: Run) -> Placement:
        path = str(self._rundirs.path(run.run_id))
        return Placement(run.run_id, run.attempt, path, run.slots, run.cpus_granted or run.cpus)


@lru_cache(maxsize=64)
def _base_environment_of(uid: int) -> dict[str, str]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return base_environment(str(uid), "/", "/bin/sh", "C.UTF-8")
    return base_environment(user.pw_name, user.pw_dir, user.pw_shell or "/bin/sh", "C.UTF-8")
