"""The files that a worker's output goes to, made when the shim starts."""

from collections.abc import Callable

from mosaicd.protocol import rundir
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.protocol.telemetry import Recognised
from mosaicd.shim import record
from mosaicd.shim.index import Index
from mosaicd.shim.journal import Journal
from mosaicd.shim.segments import Segments
from mosaicd.shim.spool import Log, Spool


def make_ready(held: record.Record, order: LaunchOrder, on_record: Callable[[Recognised], None]) -> Spool:
    """Claim the block of exit.json, make the run's directories, open its logs; OSError where one refuses."""
    limits = order.limits
    held.reserve_exit()
    record.make_files(order.files_dir, order.is_worker)
    files = held.open_log, held.remove
    journal = Journal(Segments(*files, rundir.TELEMETRY, limits.telemetry_limit_bytes))
    index = Index(held.open_log(rundir.LOG_INDEX))
    return Spool(
        Log("stdout", Segments(*files, rundir.STDOUT, limits.stdout_limit_bytes), journal, index),
        Log("stderr", Segments(*files, rundir.STDERR, limits.stderr_limit_bytes), journal, index),
        journal, index, on_record,
    )  # fmt: skip
