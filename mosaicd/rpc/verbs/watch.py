"""run.watch and run.unwatch: events of the ledger from a cursor on, then live.

Input: `since` (0: the complete ledger; default: from now on) or `since_at` (a time), `epoch` (of the cursor),
`run_id` (only this run), `progress` (progress notifications too).
Output: subscription, epoch, cursor, last_seq, pruned_seq (events up to it may be missing because of pruned
runs) and, if the watch begins now, the live runs at that cursor.
Caveats: raises Conflict for another epoch, or for a cursor after the end of the ledger.  If `complete`
is false, there are more live runs than the reply has; run.list returns all.
"""

from dataclasses import replace

from mosaicd.broadcaster import Watch
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.messages import Unwatch, WatchRuns
from mosaicd.rpc import validate
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.streams import Stream

SNAPSHOT_RUNS = 100


async def handle(services: Services, caller: Caller, params: WatchRuns) -> Json:
    """Subscribe; events follow once the reply has left."""
    validate.at_least(params, 0, "since", "since_at")
    broadcaster = services.broadcaster
    if params.epoch is not None and params.epoch != broadcaster.epoch:
        raise Conflict(
            f"the cursor is of epoch {params.epoch[:64]}, but the ledger has epoch {broadcaster.epoch}; "
            "begin again without a cursor",
            epoch=broadcaster.epoch, yours=params.epoch[:64],
        )  # fmt: skip
    if params.since is not None and params.since > broadcaster.last_seq:
        raise Conflict(
            f"the ledger ends at {broadcaster.last_seq}, before your cursor {params.since}; "
            "begin again without a cursor",
            epoch=broadcaster.epoch, last_seq=broadcaster.last_seq,
        )  # fmt: skip
    run_id = None
    if params.run_id is not None:
        run_id = (await services.runs.find(caller, params.run_id)).run_id
    if params.since_at is not None:
        before = await services.history.seq_before(params.since_at)
        params = replace(params, since=max(params.since or 0, before))
    return _begin(services, caller, params, run_id)


def _begin(services: Services, caller: Caller, params: WatchRuns, run_id: str | None) -> Json:
    # This function awaits nothing, so the live runs are those at the cursor.
    broadcaster = services.broadcaster
    cursor = broadcaster.last_seq if params.since is None else params.since
    owner_uid = None if caller.is_admin else caller.uid

    async def feed(stream: Stream) -> None:
        watch = Watch(stream.subscription, cursor, caller.uid, run_id, owner_uid, params.progress)

        async def write(lines: bytes) -> None:
            await stream.write(lines)
            stream.cursor = watch.cursor

        await broadcaster.feed(watch, write)

    stream = caller.open_stream("run.watch", cursor, feed)
    matching = [
        run
        for run in services.registry.live.values()
        if params.since is None and run_id in (None, run.run_id) and owner_uid in (None, run.owner_uid)
    ]
    return {
        "subscription": stream.subscription,
        "epoch": broadcaster.epoch,
        "cursor": cursor,
        "last_seq": broadcaster.last_seq,
        "pruned_seq": services.registry.retention.pruned_seq,
        "runs": [services.runs.view(run) for run in matching[-SNAPSHOT_RUNS:]],
        "complete": len(matching) <= SNAPSHOT_RUNS,
    }


async def handle_unwatch(services: Services, caller: Caller, params: Unwatch) -> Json:
    """End one stream of the caller's connection."""
    cursor = caller.streams.unsubscribe(params.subscription)
    return {"subscription": params.subscription, "cursor": cursor}
