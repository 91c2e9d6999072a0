"""The course of a shim process: leave the launcher's session, read the order, carry it out, exit.

A shim keeps no terminal, descriptor or signal handler of the launcher.  For example, `mosaicd | tee log`
would not end if a shim kept the pipe open.
"""

import json
import os
import time
from typing import NoReturn

from mosaicd import crash_points, procfs
from mosaicd.protocol import Json
from mosaicd.protocol.records.attempt import Launch
from mosaicd.protocol.records.orders import LaunchOrder, TeardownOrder
from mosaicd.shim import child, start, teardown
from mosaicd.shim.attempt import Attempt
from mosaicd.shim.attempt_dir import AttemptDir, AttemptTaken
from mosaicd.shim.loop import Loop
from mosaicd.shim.run_cgroup import CgroupRoot, RunCgroup, limits_of, make
from mosaicd.shim.signal_pipe import SignalPipe
from mosaicd.shim.temp_cleanup import TempCleanup
from mosaicd.shim.tree import OwnTree

_CRASHED = 70
_TITLE = "mosaic-shim"


def leave_launcher() -> None:
    """Leave the launcher's session and standard streams; the order is not needed yet."""
    os.setsid()
    _redirect_standard_streams()
    child.become_subreaper()


def carry_out(order_fd: int, signals: SignalPipe, root: CgroupRoot) -> int:
    """Carry out the order in `order_fd`, with control groups below `root`; return the exit status."""
    child.set_name(_TITLE)
    crash_points.reach("shim.forked")
    content = _read_order(order_fd)
    attempt_dir: str = content["attempt_dir"]
    try:
        if content["order"] == "teardown":
            return teardown.run(TeardownOrder.from_json(content), signals, root)
        return _run_attempt(LaunchOrder.from_json(content), signals, root)
    except BaseException:
        _write_crash(attempt_dir)
        raise


def _read_order(order_fd: int) -> Json:
    """Return the complete order in the descriptor, whatever its offset, and close the descriptor."""
    with os.fdopen(order_fd, "rb") as file:
        if file.seekable():
            file.seek(0)
        content: Json = json.loads(file.read())
    return content


def _run_attempt(launch: LaunchOrder, signals: SignalPipe, root: CgroupRoot) -> int:
    start_ticks = procfs.read_start_ticks(os.getpid())
    assert start_ticks is not None, "/proc has no start time of this process"
    try:
        attempt_dir = AttemptDir(launch.attempt_dir)
        crash_points.reach("shim.locked")
        setup_error = _try_write_launch(attempt_dir, start.launch_record(launch, start_ticks))
    except AttemptTaken:
        return 0  # the order was repeated: another shim carries it out, or did so earlier
    crash_points.reach("shim.launch_written")
    run_cgroup, refusal = _make_cgroup(launch, root)
    temp_cleanup = TempCleanup(launch.run_id, launch.attempt, attempt_dir)
    tree = OwnTree(launch.run_id, run_cgroup)
    attempt = Attempt(launch, attempt_dir, start_ticks, setup_error or refusal, tree, temp_cleanup)
    Loop(attempt, signals).run()
    if attempt.is_emptied:
        run_cgroup.remove()
        temp_cleanup.clean_up()
    return 0


def _make_cgroup(launch: LaunchOrder, root: CgroupRoot) -> tuple[RunCgroup, OSError | None]:
    """Make the attempt's control groups; return the error if they are required and cannot be made."""
    try:
        limits = limits_of(launch.containment, launch.cpus)
        return make(root, launch.run_id, launch.attempt, limits), None
    except OSError as error:
        return RunCgroup(None, {}, {}), OSError(0, error.strerror)


def _try_write_launch(attempt_dir: AttemptDir, launch: Launch) -> OSError | None:
    """Write launch.json; return the error if that fails; raise AttemptTaken if the file exists."""
    try:
        attempt_dir.write_launch(launch)
    except OSError as error:
        return error
    return None


def _redirect_standard_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def _write_crash(attempt_dir: str) -> None:
    """Append the traceback of this shim's crash to shim-crash.txt in the attempt directory."""
    import traceback  # imported only for a crash: it needs 0.25 MB

    try:
        with open(os.path.join(attempt_dir, "shim-crash.txt"), "a") as file:
            file.write(f"{time.time():.3f} pid {os.getpid()}\n{traceback.format_exc()}\n")
    except OSError:
        pass


def carry_out_and_exit(order_fd: int, signals: SignalPipe, root: CgroupRoot) -> NoReturn:
    """Carry out the order in a fresh fork, and exit without the clean-up of the launcher's code."""
    status = _CRASHED
    try:
        leave_launcher()
        status = carry_out(order_fd, signals, root)
    finally:
        os._exit(status)
