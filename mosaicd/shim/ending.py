"""The content of exit.json: how an attempt ended.

The shim writes exit.json when it has reaped the leader and read the pipes, and once more, within a second,
when it has counted the processes that the program left behind.
Note: processes that still run may print more, so a log can be longer than its count in exit.json.
"""

import signal
import time

from mosaicd.protocol import signals
from mosaicd.protocol.records.attempt import Counts, Exit, OutOfMemory, PostMortemSummary, Shed, Stop, Usage
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.shim.child import Ended
from mosaicd.shim.progress import Progress
from mosaicd.shim.spool import Spool

_TEXT_LIMIT = 256

HANDSHAKE_TIMEOUT = "handshake_timeout"
SPAWN_FAILED = "spawn_failed"
DISK_FULL = "disk_full"
OOM = "oom"
CHECKPOINT_INVALID = "checkpoint_invalid"
_MIB = 1 << 20


class BegunStop:
    """A stop that has begun: its kind (a user's stop, or a limit or timeout), user, reason and grace.

    `signal`: its name; None: that of the run.
    """

    def __init__(
        self, kind: str, who: str | None, reason: str | None, grace_s: float, signal: str | None = None
    ) -> None:
        self.kind = kind
        self.who = _short(who)
        self.reason = _short(reason)
        self.grace_s = grace_s
        self.signal = signal
        self.at = time.time()

    def record(self, forced: bool) -> Stop:
        """Return the stop's record for exit.json and worker.register; `forced`: the leader needed KILL."""
        return Stop(
            kind=self.kind, who=self.who, reason=self.reason, forced=forced, grace_s=self.grace_s, at=self.at
        )


class Ending:
    """The facts about the end of an attempt, collected until exit.json is written."""

    def __init__(self, order: LaunchOrder) -> None:
        self._order = order
        self.started_at: float | None = None
        self.stop: BegunStop | None = None
        self.is_release = False
        self._checkpoints_before = 0
        self.post_mortem: PostMortemSummary | None = None
        self.fault: str | None = None
        self.error: str | None = None
        self.active_s = 0.0
        self.oom: OutOfMemory | None = None

    def note_end(self, ended: Ended, active_s: float, oom: OutOfMemory | None) -> None:
        """Note the facts at the end of the leader; a failure after an OOM kill gets the fault `oom`."""
        self.active_s = round(active_s, 3)
        self.oom = oom
        if oom and (ended.signal is not None or ended.code) and self.stop is None:
            self.fault = OOM
            self.error = _oom_sentence(oom)

    def begin_release(self, progress: Progress) -> None:
        """Note that the worker is asked to save a checkpoint and end; a later attempt continues the run."""
        self.is_release = True
        self._checkpoints_before = progress.checkpoints

    def _is_released(self, ended: Ended | None, progress: Progress, forced: bool) -> bool:
        """Return whether the worker ended for a release and has a checkpoint or an orderly end.

        A worker that needed KILL counts if it saved a checkpoint after the request.  A worker that died of
        another signal, such as TERM, counts if it has any checkpoint, also one that it only loaded.
        """
        if not self.is_release or ended is None or progress.last_word in ("run_completed", "run_failed"):
            return False
        if forced:
            return progress.checkpoints > self._checkpoints_before
        if ended.signal is not None:
            return progress.checkpoint is not None
        codes = (0, 128 + signal.SIGTERM, 128 + signals.number_of(self._order.signal or "TERM"))
        return progress.last_word == "run_cancelled" or ended.code in codes

    def record(
        self, ended: Ended | None, spool: Spool | None, progress: Progress, forced: bool, swept: bool
    ) -> Exit:
        """Return the content of exit.json; `ended` is None if no worker was started."""
        released = self._is_released(ended, progress, forced)
        if self.is_release and forced and not released and self.fault is None and self.stop is None:
            self.fault = CHECKPOINT_INVALID
            self.error = (
                "the worker was asked to release its slots, but saved no checkpoint and did not end in time"
            )
        return Exit(
            run_id=self._order.run_id,
            attempt=self._order.attempt,
            nonce=self._order.nonce,
            exit_code=ended.code if ended else None,
            signal=ended.signal if ended else None,
            core_dumped=bool(ended and ended.core_dumped),
            started_at=self.started_at,
            finished_at=time.time(),
            rusage=_usage(ended),
            stop=self.stop.record(forced) if self.stop else None,
            released=released,
            last_word=progress.last_word,
            error=_short(self.error or progress.failure),
            fault=self.fault,
            oom=self.oom,
            active_s=self.active_s,
            post_mortem=self.post_mortem,
            steps_are_global=progress.steps_are_global,
            **counts(spool, progress).values(),
            unparsed_lines=spool.unparsed_lines if spool else 0,
            shed=_shed(spool),
            swept=swept,
            left_processes=None,
        )


def _oom_sentence(oom: OutOfMemory) -> str:
    killed = "one of its processes" if oom.victims == 1 else f"{oom.victims} of its processes"
    if oom.limit_bytes is None:
        return f"the kernel killed {killed}: the machine was out of memory"
    return f"the kernel killed {killed}: over its memory limit of {oom.limit_bytes // _MIB} MiB"


def counts(spool: Spool | None, progress: Progress) -> Counts:
    """Return cursors and last values for exit.json and worker.advance."""
    return Counts(
        telemetry_seq=spool.telemetry_file.written_seq if spool else 0,
        stdout_bytes=spool.stdout.end_bytes if spool else 0,
        stderr_bytes=spool.stderr.end_bytes if spool else 0,
        steps=progress.steps,
        episodes=progress.episodes,
        metrics=dict(progress.metrics),
        resumed_from=progress.resumed_from,
        checkpoint=progress.checkpoint,
    )


def _usage(ended: Ended | None) -> Usage | None:
    if ended is None:
        return None
    return Usage(utime_s=round(ended.utime_s, 6), stime_s=round(ended.stime_s, 6), maxrss_kb=ended.maxrss_kb)


def _shed(spool: Spool | None) -> Shed:
    """Return how much output is not in the files because of size limits and disk errors."""
    if spool is None:
        return Shed(stdout_bytes=0, stderr_bytes=0, telemetry_records=0)
    telemetry_file = spool.telemetry_file
    return Shed(
        stdout_bytes=spool.stdout.lost_bytes,
        stderr_bytes=spool.stderr.lost_bytes,
        telemetry_records=telemetry_file.shed_records + telemetry_file.dropped_records,
    )


def _short(text: str | None) -> str | None:
    """Return the beginning of `text`, as valid UTF-8 that fits into a small message."""
    return None if text is None else str(text)[:_TEXT_LIMIT].encode("utf-8", "replace").decode()
