"""The start of a worker: its config, environment and control channel, then the fork, then started.json."""

import os
import socket
import time

from mosaicd import crash_points
from mosaicd.protocol import rundir
from mosaicd.protocol.records.attempt import EnforcedLimits, Launch, Started
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.shim import child
from mosaicd.shim.attempt_dir import AttemptDir, boot_id
from mosaicd.shim.pause import ControlChannel
from mosaicd.shim.run_cgroup import RunCgroup
from mosaicd.shim.temp_cleanup import TempCleanup

_CONTROL_FD = "MOSAIC_CONTROL_FD"


class StartedWorker:
    """A started worker, its control channel, and its record in started.json.

    `leave_error`: why this shim is still in the control groups of the worker; None if it is not.
    """

    def __init__(
        self, worker: child.Worker, control: ControlChannel | None, at: float, record: Started,
        leave_error: OSError | None,
    ) -> None:  # fmt: skip
        self.worker = worker
        self.control = control
        self.at = at
        self.record = record
        self.leave_error = leave_error


def start(
    order: LaunchOrder, attempt_dir: AttemptDir, run_cgroup: RunCgroup, temp_cleanup: TempCleanup
) -> StartedWorker:
    """Start the worker and write started.json.

    Raises OSError if the worker's config cannot be written, its control group cannot be entered, or the
    program cannot be executed.
    """
    crash_points.reach("shim.accepted")
    argv = list(order.argv)
    if order.worker_config is not None:
        path = attempt_dir.write_worker_config(order.worker_config)
        if order.config_flag:
            argv += ["--config", path]
    environment = dict(order.environment)
    temp_cleanup.prepare(environment)
    shim_end = worker_end = None
    if order.cooperative:
        shim_end, worker_end = socket.socketpair()
        environment[_CONTROL_FD] = str(worker_end.fileno())
    worker = leave_error = None
    try:
        with run_cgroup.entered():
            worker = child.spawn(argv, order.cwd, environment, worker_end, order.process, order.stdin)
    except OSError as error:
        if worker is None:
            if shim_end:
                shim_end.close()
            raise
        leave_error = error  # the worker lives
    finally:
        if worker_end:
            worker_end.close()
    crash_points.reach("shim.spawned")
    at = time.time()
    started = Started(
        pid=worker.pid, start_ticks=worker.start_ticks, boot_id=boot_id(),
        pgid=worker.pid, sid=worker.pid, containment=run_cgroup.kind,
        limits=EnforcedLimits(**run_cgroup.limits), cgroup=run_cgroup.run_dir, at=at,
    )  # fmt: skip
    try:
        attempt_dir.write_durably(rundir.STARTED, started.to_json())
    except OSError:
        pass  # a full disk does not fail the attempt: the fact `spawned` contains the same record
    crash_points.reach("shim.started_written")
    control = ControlChannel(shim_end) if shim_end else None
    return StartedWorker(worker, control, at, started, leave_error)


def launch_record(order: LaunchOrder, shim_start_ticks: int) -> Launch:
    """Return the content of launch.json: the order without its secrets."""
    return Launch(
        run_id=order.run_id, attempt=order.attempt, nonce=order.nonce, argv=order.argv,
        cwd=order.cwd, slots=order.slots, cpus=order.cpus, kind=order.kind,
        shim_pid=os.getpid(), shim_started_at=shim_start_ticks, boot_id=boot_id(), at=time.time(),
    )  # fmt: skip
