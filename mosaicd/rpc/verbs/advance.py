"""worker.advance: cursors, last values and signs of life of a live attempt.

Input: see records/reports.  Output: nothing (sent as a notification).  Caveats: makes no event and no commit;
the values replace those in memory, and the registry writes them with the run's next
event, or within about a second.
"""

from mosaicd.core.evidence import checkpoint
from mosaicd.core.run import Progress
from mosaicd.protocol import Json
from mosaicd.protocol.records.reports import Advance
from mosaicd.protocol.records.untrusted import numbers
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services

#: Weight of the newest rate in the smoothed steps per second.
SMOOTHING = 0.3
MOST_RATE = 1e12


async def handle(services: Services, caller: Caller, params: Advance) -> Json:
    """Replace the run's progress, note output and new counts for its deadlines, and wake its followers."""
    before = services.registry.progress.get(params.run_id) or Progress()
    progress = Progress(
        telemetry_seq=params.telemetry_seq,
        stdout_bytes=params.stdout_bytes,
        stderr_bytes=params.stderr_bytes,
        steps=params.steps,
        episodes=params.episodes,
        total_steps=params.total_steps if params.total_steps is not None else before.total_steps,
        total_episodes=params.total_episodes if params.total_episodes is not None else before.total_episodes,
        steps_per_s=_rate(before, params),
        resumed_from=checkpoint(params.resumed_from) or before.resumed_from,
        checkpoint=checkpoint(params.checkpoint) or before.checkpoint,
        last_heartbeat_at=params.beat_at,
        metrics=numbers(params.metrics) or {},
    )
    services.registry.advance(params.run_id, progress)
    services.shims.note_message(params.run_id)
    if params.worker_beat:
        services.dispatcher.note_beat(params.run_id)
    if (progress.steps, progress.episodes) != (before.steps, before.episodes):
        services.dispatcher.note_progress(params.run_id)
    services.broadcaster.advanced(params.run_id)
    return {}


def _rate(before: Progress, now: Advance) -> float | None:
    """Return the smoothed steps per second."""
    passed = now.beat_at - (before.last_heartbeat_at or now.beat_at)
    if now.steps is None or before.steps is None or passed <= 0 or now.steps < before.steps:
        return before.steps_per_s
    newest = min((now.steps - before.steps) / passed, MOST_RATE)  # `passed` may be tiny
    if before.steps_per_s is None:
        return round(newest, 3)
    return round(SMOOTHING * newest + (1 - SMOOTHING) * before.steps_per_s, 3)
