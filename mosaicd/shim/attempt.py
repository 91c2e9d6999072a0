"""One attempt of one run: what each event leads to.  `loop` waits, this decides.

Order matters in three places: a record is on the disk before the fact that tells of it; telemetry is in
its file before a cursor that covers it; the tree is empty before the shim leaves.
"""

import time
from typing import Any

from mosaicd import crash_points
from mosaicd.protocol import rundir
from mosaicd.protocol.records.attempt import Exit
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.protocol.records.reports import Advance, Register, Status
from mosaicd.protocol.telemetry import Recognised
from mosaicd.shim import child, ending, record
from mosaicd.shim.dialogue import Dialogue, registration
from mosaicd.shim.ending import BegunStop, Ending
from mosaicd.shim.kill_sequence import KillSequence
from mosaicd.shim.limits import RunLimits
from mosaicd.shim.link import Link, Message
from mosaicd.shim.output import make_ready
from mosaicd.shim.pause import Pause
from mosaicd.shim.post_mortem import PostMortem
from mosaicd.shim.progress import Progress
from mosaicd.shim.segments import FULL
from mosaicd.shim.spool import Spool
from mosaicd.shim.start import StartedWorker, start
from mosaicd.shim.temp_cleanup import TempCleanup
from mosaicd.shim.tree import OwnTree

_SWEEP_GRACE_S = 2.0  # for what a worker leaves behind when it ends by itself
_DAEMON_AWAY_S = 2.0  # with everything on the disk: how long to try to say goodbye
_ANSWER_WAIT_S = 30.0
_DISK_RETRY_S = 1.0


class Attempt:
    """One attempt of one run, from its lock to its empty tree."""

    def __init__(
        self, order: LaunchOrder, held: record.Record, start_ticks: int, setup_error: OSError | None,
        tree: OwnTree, temp_cleanup: TempCleanup,
    ) -> None:  # fmt: skip
        self._order = order
        self._record = held
        self._setup_error = setup_error
        self._born = time.monotonic()
        self._start_ticks = start_ticks
        self._temp_cleanup = temp_cleanup
        self._tree = tree
        self._kill_sequence = KillSequence(self._tree, leader_first=order.is_worker)
        limits = order.limits
        self._limits = RunLimits(limits.time_limit_s, limits.max_steps, limits.steps_before)
        self._post_mortem = PostMortem(tree, held.dir_fd, limits.post_mortem_s)
        self._pause = Pause(self._tree, order.limits.pause_ack_timeout_s, self._paused, self._continued)
        self._progress = Progress()
        self._ending = Ending(order)
        self.link = Link(order.socket)
        self.dialogue = Dialogue(
            self.link, order.run_id, self._registration, self._advance, self._registered, self._refused,
            self._control,
        )  # fmt: skip
        self.spool: Spool | None = None
        self._started: StartedWorker | None = None
        self._exit: Exit | None = None
        self._exit_written = False
        self._exit_retry_at: float | None = None
        self._ended_at: float | None = None
        self._first_sign_at: float | None = None
        self._pause_facts: dict[str, float] = {}  # frozen_at, or thawed_at: as the last fact of either said
        self._is_childless = True
        self._is_emptied = False
        self._beat = False
        self._is_done = False

    # ------------------------------------------------------------------ what the loop asks and does

    @property
    def is_over(self) -> bool:
        """Whether the end has been recorded and told, or there is nothing to live for."""
        return self._is_done

    @property
    def is_emptied(self) -> bool:
        """Whether nothing of the worker's tree is left, or nothing ever was."""
        return self._is_emptied

    def prepare(self) -> None:
        """Make what the worker will need: done while the daemon thinks about the register."""
        if self._setup_error:
            return
        try:
            self.spool = make_ready(self._record, self._order, self._recorded)
        except OSError as error:
            self._setup_error = error

    def next_at(self) -> float | None:
        """When `tick` has something to do."""
        moments = [self.dialogue.next_at(), self._pause.next_at(), self._exit_retry_at]
        if self._exit is None:
            moments.append(None if self._kill_sequence.has_begun else self._limits.next_at())
            moments.append(self._post_mortem.next_at())
            if self._started is None:
                moments.append(self._born + self._order.limits.handshake_timeout_s)
        moments.append(self._leave_at() if self._is_emptied else self._kill_sequence.next_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.dialogue.tick(now)
        if self._started is None and self._exit is None:
            if now >= self._born + self._order.limits.handshake_timeout_s:
                self._handshake_timed_out()
            return
        if self._exit is None:
            self._check_limits(now)
            self._pause.tick(now)
            if self._post_mortem.tick(now) and self._post_mortem.stop:
                self._stop(self._post_mortem.stop, now)
        elif self._is_childless:
            self._consider_empty()
        if not self._is_emptied:
            self._kill_sequence.tick(now)
        if self._exit_retry_at is not None and now >= self._exit_retry_at:
            self._write_exit(now)
        self._consider_leaving(now)

    def finish(self) -> None:
        """Say the last word and close the files."""
        self.dialogue.finish(time.monotonic())
        if self.spool:
            self.spool.close()

    def note_output(self) -> None:
        """The worker printed something."""
        self._beat = True
        self.dialogue.note_change()

    def terminate(self, now: float) -> None:
        """TERM to a shim is a request to stop its run."""
        reason = "the shim was told to terminate"
        self._stop(BegunStop("by_user", None, reason, self._order.limits.grace_s), now)

    def reap(self, now: float) -> None:
        """A child may have ended."""
        if self._started is None:
            return
        ended, self._is_childless = child.reap()
        leader = self._started.worker
        for one in ended:
            if one.pid == leader.pid and not leader.is_reaped:
                leader.note_reaped()
                self._leader_ended(one, now)

    # ------------------------------------------------------------------ output

    def _recorded(self, found: Recognised) -> None:
        """A telemetry line came: count it, and see what it answers."""
        self._progress.note(found)
        if self._first_sign_at is None and found.kind != "error":
            self._first_sign_at = time.time()
            if self._order.is_worker:
                self.dialogue.say({"fact": "started", "at": self._first_sign_at})
        self._pause.note_line(found.kind)

    def _check_limits(self, now: float) -> None:
        if self._kill_sequence.has_begun:
            return
        kind = self._limits.passed(now, self._progress.steps, self._progress.steps_are_global)
        if kind is None:
            return
        ran_s = round(self._limits.ran_s(now), 3)
        self.dialogue.say({
            "fact": "limit_reached", "at": time.time(), "kind": kind, "ran_s": ran_s,
            "steps": self._progress.steps,
        })  # fmt: skip
        self._stop(BegunStop(kind, None, None, self._order.limits.grace_s), now)

    # ------------------------------------------------------------------ the daemon's word

    def _registered(self, reply: Message) -> None:
        now = time.monotonic()
        word = reply.get("order")
        if word == "stop" or (word == "attach" and reply.get("want") == "stop"):
            asked = reply.get("stop") if isinstance(reply.get("stop"), dict) else {}
            self._control("stop", {"grace_s": reply.get("grace_s"), **(asked or {})})
        elif word == "start" and self._started is None and self._exit is None:
            self._launch(now)
        elif word in ("start", "attach") and self._started is not None and self._exit is None:
            if reply.get("want") == "pause" and self._pause.mode is None:
                self._control("pause", {"mode": reply.get("pause_mode")})
            elif reply.get("want") == "run" and self._pause.mode is not None:
                self._control("resume", {})

    def _refused(self) -> None:
        """The daemon does not know us: without a living tree there is nothing to stay for."""
        if self._started is None or (self._is_emptied and self._exit_written):
            self._is_done = True

    def _control(self, word: str, params: Message) -> None:
        now = time.monotonic()
        if word == "stop":
            asked = params.get("grace_s")
            grace_s = float(asked) if isinstance(asked, int | float) else self._order.limits.grace_s
            kind = str(params.get("kind") or "by_user")
            stop = BegunStop(kind, params.get("who"), params.get("reason"), max(0.0, grace_s))
            is_alive = self._started and self._exit is None and not self._kill_sequence.has_begun
            if not (is_alive and self._post_mortem.try_delay(stop, now)):
                self._stop(stop, now)
        elif self._started is None or self._exit is not None or self._kill_sequence.has_begun:
            return
        elif word == "pause" and params.get("mode") == "release":
            self._release(now)
        elif word == "pause":
            self._pause.request(str(params.get("mode") or "freeze"), now)
        elif word == "resume":
            self._pause.resume(now)

    def _registration(self) -> Register:
        started, stop = self._started, self._ending.stop
        status = Status(
            spawned=started.record if started else None,
            sign_of_life=self._first_sign_at is not None,
            started_at=self._first_sign_at,
            frozen=self._pause.is_frozen,
            **self._pause_facts,
            paused_mode=self._pause.mode,
            stop=stop.record(self._kill_sequence.is_forced) if stop else None,
            exit=self._exit,
            swept=self._is_emptied,
        )
        return registration(self._order, self._start_ticks, status)

    def _advance(self, token: str) -> Advance:
        beat, self._beat = self._beat, False
        return Advance(
            run_id=self._order.run_id,
            session_token=token,
            **ending.counts(self.spool, self._progress).to_json(),
            beat_at=time.time(),
            worker_beat=beat,
            total_steps=self._progress.total_steps,
            total_episodes=self._progress.total_episodes,
        )

    # ------------------------------------------------------------------ start, pause, stop

    def _launch(self, now: float) -> None:
        try:
            if self._setup_error or self.spool is None:
                raise self._setup_error or OSError(0, "nothing was made ready")
            self._started = started = start(
                self._order, self._record, self._tree.run_cgroup, self._temp_cleanup
            )
        except OSError as error:
            self._spawn_failed(error)
            return
        self._tree.worker = started.worker
        self._pause.control = started.control
        self._is_childless = False
        self.spool.attach(started.worker.stdout_fd, started.worker.stderr_fd)
        self._ending.started_at = started.at
        self._limits.start(now)
        facts: list[dict[str, Any]] = [{"fact": "spawned", **started.record.to_json()}]
        if not self._order.is_worker:
            self._first_sign_at = started.at
            facts.append({"fact": "started", "at": started.at})
        self.dialogue.say(*facts)

    def _spawn_failed(self, error: OSError) -> None:
        self._ending.fault = ending.DISK_FULL if error.errno in FULL else ending.SPAWN_FAILED
        named = f"{error.filename}: " if error.errno and error.filename else ""
        self._ending.error = f"{named}{error.strerror or error}"
        exit = self._end_without_worker()
        self.dialogue.say({
            "fact": "spawn_failed", "at": exit.finished_at, "errno": error.errno or None,
            "error": exit.error, "exit": exit.to_json(),
        })  # fmt: skip

    def _handshake_timed_out(self) -> None:
        waited_s = self._order.limits.handshake_timeout_s
        self._ending.fault = ending.HANDSHAKE_TIMEOUT
        self._ending.error = f"the daemon did not accept this shim within {waited_s:g} s"
        self._end_without_worker()
        self._is_done = self._exit_written

    def _end_without_worker(self) -> Exit:
        exit = self._ending.record(None, self.spool, self._progress, forced=False, swept=True)
        self._exit = exit
        self._is_emptied = True
        self._ended_at = time.monotonic()
        self._write_exit(self._ended_at)
        return exit

    def _stop(self, stop: BegunStop, now: float) -> None:
        if self._exit is not None:
            if not self._is_emptied:
                self._kill_sequence.begin(now, stop.grace_s)  # shortens the sweep of the remaining processes
            return
        if self._ending.stop is None:
            self._ending.stop = stop
            self._ending.is_release = False
        if self._started is None:
            exit = self._end_without_worker()
            self.dialogue.say({"fact": "exited", "at": exit.finished_at, **exit.to_json()})
            return
        if self._pause.control:
            self._pause.control.say("stop", grace_s=stop.grace_s)
        self._pause.abandon()
        self._kill_sequence.begin(now, stop.grace_s)

    def _release(self, now: float) -> None:
        """Have the worker save and leave; the record says `released`, not stopped."""
        self._ending.begin_release(self._progress)
        grace_s = self._order.limits.grace_s
        if self._pause.control:
            self._pause.control.say("checkpoint")
            self._pause.control.say("stop", grace_s=grace_s)
        self._pause.abandon()
        self._kill_sequence.begin(now, grace_s)

    def _paused(self, mode: str) -> None:
        self._limits.pause(time.monotonic())
        self._pause_facts = {"frozen_at": self._pause_facts.get("frozen_at") or time.time()}
        self.dialogue.say({"fact": "paused", "at": self._pause_facts["frozen_at"], "mode": mode})

    def _continued(self) -> None:
        self._limits.start(time.monotonic())
        self._pause_facts = {"thawed_at": time.time()}
        self.dialogue.say({"fact": "continued", "at": self._pause_facts["thawed_at"]})

    # ------------------------------------------------------------------ the end

    def _leader_ended(self, ended: child.Ended, now: float) -> None:
        crash_points.reach("shim.reaped")
        assert self.spool is not None
        told_bytes = self.spool.read_bytes
        self.spool.read_all()
        if self.spool.read_bytes != told_bytes:
            self.dialogue.note_change()
        self._pause.abandon()
        self._post_mortem.finish()
        self._ending.post_mortem = self._post_mortem.summary
        self._ending.judge(ended, self._limits.ran_s(now), self._tree.run_cgroup.oom())
        self._exit = self._ending.record(
            ended, self.spool, self._progress, self._kill_sequence.is_forced, swept=self._is_childless
        )
        self._ended_at = now
        self._write_exit(now)
        self.dialogue.say({"fact": "exited", "at": self._exit.finished_at, **self._exit.to_json()})
        if self._is_childless:
            return
        if self._kill_sequence.has_begun:
            self._kill_sequence.leader_has_ended()
        else:
            self._kill_sequence.begin(now, min(_SWEEP_GRACE_S, self._order.limits.grace_s))

    def _write_exit(self, now: float) -> None:
        assert self._exit is not None
        try:
            self._record.write_durably(rundir.EXIT, self._exit.to_json())
        except OSError:  # a disk in trouble: the fact still tells the daemon, and we try again
            self._exit_retry_at = now + _DISK_RETRY_S
            return
        self._exit_retry_at = None
        self._exit_written = True
        crash_points.reach("shim.exit_written")

    def _consider_empty(self) -> None:
        """No child is left; after a kill sequence, also look for processes with the marker of the run."""
        if self._is_emptied or (self._kill_sequence.has_begun and self._tree.look().members):
            return
        self._is_emptied = True
        assert self.spool is not None and self._exit is not None
        self.spool.read_all()
        if not self._exit.swept:
            self.dialogue.say({
                "fact": "emptied", "at": time.time(), "telemetry_seq": self.spool.journal.written_seq,
                "stdout_bytes": self.spool.stdout.end_bytes, "stderr_bytes": self.spool.stderr.end_bytes,
            })  # fmt: skip
            self.dialogue.note_change()  # what came after `exited`, which had all until then

    def _leave_at(self) -> float | None:
        """When to leave without the daemon's answer: everything it needs is on the disk."""
        if not self._exit_written or self._ended_at is None:
            return None
        down_since = self.link.down_since
        if down_since is not None:
            return max(self._ended_at, down_since) + _DAEMON_AWAY_S
        return self._ended_at + _ANSWER_WAIT_S

    def _consider_leaving(self, now: float) -> None:
        if self._exit is None or not self._is_emptied:
            return
        if self._exit_written and self.dialogue.is_accepted and not self.dialogue.has_unacknowledged_facts:
            self._is_done = True
            return
        at = self._leave_at()
        self._is_done = at is not None and now >= at
