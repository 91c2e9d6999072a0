"""The files for a worker's output; the shim creates them when it starts."""

from collections.abc import Callable

from mosaicd.protocol import rundir
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.protocol.telemetry import Recognised
from mosaicd.shim.attempt_dir import AttemptDir, make_files_dir
from mosaicd.shim.index import Index
from mosaicd.shim.segments import Segments
from mosaicd.shim.spool import RawLog, Spool
from mosaicd.shim.telemetry_file import TelemetryFile


def open_spool(attempt_dir: AttemptDir, order: LaunchOrder, on_record: Callable[[Recognised], None]) -> Spool:
    """Reserve space for exit.json, make the run's directories, open the logs.

    Raises OSError if one step fails.
    """
    limits = order.limits
    attempt_dir.reserve_exit()
    make_files_dir(order.files_dir, order.is_worker)
    files = attempt_dir.open_log, attempt_dir.remove
    telemetry_file = TelemetryFile(Segments(*files, rundir.TELEMETRY, limits.telemetry_limit_bytes))
    index = Index(attempt_dir.open_log(rundir.LOG_INDEX))
    return Spool(
        RawLog("stdout", Segments(*files, rundir.STDOUT, limits.stdout_limit_bytes), telemetry_file, index),
        RawLog("stderr", Segments(*files, rundir.STDERR, limits.stderr_limit_bytes), telemetry_file, index),
        telemetry_file, index, on_record,
    )  # fmt: skip
