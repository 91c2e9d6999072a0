"""worker.register: the handshake of a shim, at its start and again after every lost connection.

Input: the attempt, its launch secret, and the status of the attempt.
Output: a new session token (only the newest is valid) and the order: start, attach or stop.
Caveats: the reply leaves after `registered` is committed, so no worker runs before the ledger knows its
shim.  Facts of the status that the row lacks are recorded in the same transaction.  The reply has the state
of the row at the moment when the connection is attached.  A later notification may reach the shim before the
reply; the shim then follows the notification.
"""

from functools import reduce

from mosaicd import crash_points
from mosaicd.core import missed_events
from mosaicd.core.fsm import Event, Kind, apply
from mosaicd.core.replay_rundir import WHO
from mosaicd.core.run import Run
from mosaicd.protocol import PROTOCOL_VERSION, Json
from mosaicd.protocol.errors import MosaicError, NotFound
from mosaicd.protocol.faults import invalid
from mosaicd.protocol.records import untrusted
from mosaicd.protocol.records.attempt import Exit, Started
from mosaicd.protocol.records.control import ATTACH, START, STOP, Registered
from mosaicd.protocol.records.reports import Register, Status
from mosaicd.protocol.states import PauseMode, State, Want
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: Register) -> Json:
    """Record the missed facts and attach the connection; the router has checked the launch secret."""
    if params.proto_version != PROTOCOL_VERSION:
        rule = f"this daemon speaks version {PROTOCOL_VERSION}, not {params.proto_version}"
        raise invalid("proto_version", rule)
    status = untrusted.read(Status, params.status)
    crash_points.reach("register.before_record")
    is_unconfirmed = params.run_id in services.unconfirmed
    try:
        await services.registry.record_if(
            params.run_id, lambda now: _missed_events(services, now, params, status)
        )
    except MosaicError:
        if is_unconfirmed:  # nothing was recorded: the next register counts as the first
            services.unconfirmed.add(params.run_id)
        raise
    run = services.registry.live.get(params.run_id)  # more may have been recorded since
    if run is None or not _is_of(run, params):  # the run may have ended or been requeued
        raise NotFound(f"there is no live attempt {params.attempt} of run {params.run_id}")
    token = services.auth.issue_token(params.run_id)
    services.shims.attach(
        params.run_id, params.attempt, caller.connection, params.shim_pid, params.shim_start_ticks
    )
    services.dispatcher.note_registered(params.run_id)
    crash_points.reach("register.before_reply")
    reply = Registered(
        accepted_version=PROTOCOL_VERSION, session_token=token, order=_order(run, status), want=_want(run),
        pause_mode=run.pause_mode, grace_s=run.grace_s, stop=dict(run.stop or run.fault or {}) or None,
    )  # fmt: skip
    return reply.to_json()


def _is_of(run: Run, params: Register) -> bool:
    return run.is_holding and run.attempt == params.attempt


def _want(run: Run) -> Want:
    """Return the want for the shim; a pause of a run that is starting is sent once the run works."""
    return Want.RUN if run.want is Want.PAUSE and run.state is State.RDY else run.want


def _missed_events(services: Services, run: Run, params: Register, status: Status) -> list[Event]:
    """Return the events that the row lacks: `registered`, and those that follow from the status."""
    if not _is_of(run, params):
        return []
    events: list[Event] = []
    if run.run_id in services.unconfirmed:
        services.unconfirmed.discard(run.run_id)
        events += _lost_pause_request(services, run, status)
        run = reduce(apply, events, run)
    if run.state is State.HSHK:
        identity = {"shim_pid": params.shim_pid, "shim_start_ticks": params.shim_start_ticks}
        events.append(Event(Kind.REGISTERED, services.clock.wall(), "shim", identity))
        run = apply(run, events[-1])
    return events + missed_events.from_status(run, status, services.clock.wall())


def _lost_pause_request(services: Services, run: Run, status: Status) -> list[Event]:
    """Return the pause request that a frozen tree implies; the registry that had the request is lost."""
    mode = status.paused_mode
    may_run = run.want is Want.RUN and run.state is not State.FAULT
    if not may_run or _has_values(status.exit) or not (status.frozen or mode):
        return []
    data = {"mode": mode if mode in (PauseMode.FREEZE, PauseMode.COOPERATIVE) else PauseMode.FREEZE}
    return [Event(Kind.PAUSE_REQUESTED, services.clock.wall(), WHO, data)]


def _has_values(record: Started | Exit | None) -> bool:
    return record is not None and record.has_values


def _order(run: Run, status: Status) -> str:
    """Return the order for the shim; a shim that has started its worker attaches."""
    has_worker = _has_values(status.spawned) or _has_values(status.exit)
    if run.want is Want.STOP or run.state is State.FAULT:
        return STOP
    return ATTACH if has_worker else START
