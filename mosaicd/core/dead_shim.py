"""The events that a run lacks after its shim has died, from the files of the attempt.

Only this module decides what these files mean.  Reconcile and the dispatcher use it for a shim that has
ended, recovery for runs that the registry lacks, and the simulation for simulated files.

Note: only the launcher can confirm that a process tree is empty.  So the last event here is an exit or
`lost`, never the end of the run.
"""

from mosaicd.core import missed_events
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.records.reports import Status
from mosaicd.protocol.states import CauseKind, State


def is_launch_owed(run: Run, files: AttemptFiles) -> bool:
    """Return whether no shim has begun the attempt, so that the daemon must send the same order again."""
    return files.launch is None and files.exit is None and run.state is State.HSHK


def events_of(run: Run, files: AttemptFiles, boot_id: str, at: float) -> list[Event]:
    """Return the events that `run` lacks; [] after its exit, in another attempt, or if its launch is owed.

    `boot_id`: the present boot of the machine.  `at`: the time of events for which the files have no time.
    """
    is_current = run.is_holding and run.attempt == files.number
    if not is_current or run.exit is not None or is_launch_owed(run, files):
        return []
    status = _status_of(run, files)
    events = missed_events.from_status(run, status, at, "files") if status is not None else []
    has_exit = any(event.kind is Kind.EXITED for event in events)
    if not has_exit and run.state is not State.FAULT:  # in FAULT the dead shim is the teardown shim
        events.append(_lost_event(run, files, boot_id, at))
    return events


def _status_of(run: Run, files: AttemptFiles) -> Status | None:
    """Return the status that the files prove, or None if they add nothing to the run."""
    if files.exit is not None and files.exit.has_values:
        return missed_events.status_from_files(run.kind, files.started, files.exit)
    # Without an exit record only the identity of the worker still matters, and only to a run in RDY.
    return Status(spawned=files.started) if run.state is State.RDY else None


def _lost_event(run: Run, files: AttemptFiles, boot_id: str, at: float) -> Event:
    """Return the `lost` event; its cause is `rebooted` if the attempt ran under another boot id."""
    newest = files.started if files.started is not None and files.started.has_values else files.launch
    last_boot_id = (newest.boot_id if newest is not None else None) or run.boot_id
    is_rebooted = last_boot_id is not None and last_boot_id != boot_id
    kind = CauseKind.REBOOTED if is_rebooted else CauseKind.SHIM_LOST
    return Event(Kind.LOST, at, data={"kind": kind})
