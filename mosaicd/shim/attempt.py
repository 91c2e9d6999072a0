"""One attempt of one run: `loop` waits for events, `Attempt` decides what the shim does on each.

Three orders hold: started.json and exit.json are written before their facts are sent (if the write fails,
the fact is sent all the same); telemetry is in its file before a cursor covers it; the process tree is empty
before the shim leaves.
"""

import time

from mosaicd import crash_points
from mosaicd.protocol import Json
from mosaicd.protocol.records import facts
from mosaicd.protocol.records.attempt import Exit
from mosaicd.protocol.records.control import Registered
from mosaicd.protocol.records.facts import Emptied, SpawnFailed
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.protocol.records.reports import Advance, Register, Status
from mosaicd.protocol.telemetry import Recognised
from mosaicd.shim import child, commands, ending
from mosaicd.shim.attempt_dir import AttemptDir
from mosaicd.shim.commands import Command
from mosaicd.shim.departure import Departure
from mosaicd.shim.dialogue import Dialogue, registration
from mosaicd.shim.ending import BegunStop, Ending
from mosaicd.shim.left_behind import LeftBehind
from mosaicd.shim.link import Link
from mosaicd.shim.output import open_spool
from mosaicd.shim.progress import Progress
from mosaicd.shim.segments import FULL
from mosaicd.shim.spool import Spool
from mosaicd.shim.start import StartedWorker, start
from mosaicd.shim.start_sizes import too_large_to_start
from mosaicd.shim.temp_cleanup import TempCleanup
from mosaicd.shim.tree import OwnTree
from mosaicd.shim.worker_control import WorkerControl


class Attempt:
    """One attempt of one run, from its lock to its empty process tree."""

    def __init__(
        self, order: LaunchOrder, attempt_dir: AttemptDir, start_ticks: int, setup_error: OSError | None,
        tree: OwnTree, temp_cleanup: TempCleanup,
    ) -> None:  # fmt: skip
        self._order = order
        self._attempt_dir = attempt_dir
        self._setup_error = setup_error
        self._handshake_by = time.monotonic() + order.limits.handshake_timeout_s
        self._start_ticks = start_ticks
        self._temp_cleanup = temp_cleanup
        self._tree = tree
        self._progress = Progress()
        self._ending = Ending(order)
        self.link = Link(order.socket)
        self.dialogue = Dialogue(
            self.link, order.run_id, self._registration, self._advance, self._registered, self._refused,
            self._notified,
        )  # fmt: skip
        self._control = WorkerControl(order, tree, attempt_dir.dir_fd, self.dialogue.add_facts, self._stop)
        self._departure = Departure(order, attempt_dir, self.link, self.dialogue)
        self._left = LeftBehind(tree, order.limits.grace_s)
        self.spool: Spool | None = None
        self._started: StartedWorker | None = None
        self._exit: Exit | None = None
        self._sign_of_life_at: float | None = None
        self._is_childless = True
        self._is_emptied = False
        self._has_new_output = False

    # ------------------------------------------------------------------ calls of the loop

    @property
    def is_over(self) -> bool:
        """Return whether the shim leaves now: it has reported the end of the run, or has nothing to do."""
        return self._departure.is_due

    @property
    def is_emptied(self) -> bool:
        """Return whether the worker's process tree is empty; also True if no worker was ever started."""
        return self._is_emptied

    def prepare(self) -> None:
        """Make the files for the worker's output, while the daemon handles worker.register."""
        if self._setup_error:
            return
        try:
            self.spool = open_spool(self._attempt_dir, self._order, self._note_record)
        except OSError as error:
            self._setup_error = error

    def next_at(self) -> float | None:
        """Return the time (monotonic) at which `tick` is due, or None."""
        moments = [self.dialogue.next_at(), self._departure.next_at(is_emptied=self._is_emptied)]
        if self._exit is None:
            moments.append(self._control.next_at() if self._started else self._handshake_by)
        moments.append(self._left.next_at())
        if not self._is_emptied:
            moments.append(self._control.kill_sequence.next_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def tick(self, now: float) -> None:
        """Do all work that is due at `now` (monotonic)."""
        self.dialogue.tick(now)
        if self._started is None and self._exit is None:
            if now >= self._handshake_by:
                self._handshake_timed_out()
        elif self._exit is None:
            self._control.tick(now, self._progress)
        else:
            self._tick_after_end(now)
        if not self._is_emptied:
            self._control.kill_sequence.tick(now)
        self._departure.tick(now, is_emptied=self._is_emptied)

    def finish(self) -> None:
        """Send the last advance and close the files."""
        self.dialogue.finish(time.monotonic())
        if self.spool:
            self.spool.close()

    def note_output(self) -> None:
        """Note that the worker has printed something; the next advance reports it."""
        self._has_new_output = True
        self.dialogue.note_change()

    def terminate(self, now: float) -> None:
        """Stop the run, because the shim received SIGTERM."""
        reason = "the shim received SIGTERM"
        self._stop(BegunStop("by_user", None, reason, self._order.limits.grace_s), now)

    def reap(self, now: float) -> None:
        """Reap the children that have ended."""
        if self._started is None:
            return
        ended, self._is_childless = child.reap()
        leader = self._started.worker
        for child_end in ended:
            if child_end.pid == leader.pid and not leader.is_reaped:
                leader.note_reaped()
                self._leader_ended(child_end, now)
        if ended:
            self._control.kill_sequence.note_end(now)

    # ------------------------------------------------------------------ the daemon

    def _registered(self, reply: Registered) -> None:
        command = commands.from_reply(
            reply,
            is_started=self._started is not None,
            has_ended=self._exit is not None,
            paused_mode=self._control.pause.mode,
        )
        if command is not None:
            self._carry_out(command, time.monotonic())

    def _refused(self) -> None:
        """Leave, unless processes are alive or exit.json is not written: the daemon has refused this shim."""
        has_nothing = self._started is None and self._exit is None
        if has_nothing or (self._is_emptied and self._departure.is_settled):
            self._departure.leave()

    def _notified(self, name: str, params: Json) -> None:
        command = commands.from_notification(name, params)
        if command is not None:
            self._carry_out(command, time.monotonic())

    def _carry_out(self, command: Command, now: float) -> None:
        is_alive = self._started is not None and self._exit is None
        is_working = is_alive and not self._control.is_stopping
        match command.name:
            case commands.START:
                self._start_worker(now)
            case commands.STOP:
                stop = command.begin_stop(self._order.limits.grace_s)
                if not (is_working and self._control.post_mortem.try_delay(stop, now)):
                    self._stop(stop, now)
            case _ if not is_working:
                return
            case commands.RELEASE:
                self._ending.begin_release(self._progress)
                self._control.release(now)
            case commands.PAUSE:
                self._control.pause.request(command.pause_mode, now)
            case commands.RESUME:
                self._control.pause.resume(now)

    def _registration(self) -> Register:
        started, stop, pause = self._started, self._ending.stop, self._control.pause
        status = Status(
            spawned=started.record if started else None,
            sign_of_life=self._sign_of_life_at is not None,
            started_at=self._sign_of_life_at,
            frozen=pause.is_frozen,
            frozen_at=pause.frozen_at,
            thawed_at=pause.thawed_at,
            paused_mode=pause.mode,
            stop=stop.record(self._control.kill_sequence.is_forced) if stop else None,
            exit=None if self._left.is_settling else self._exit,
            swept=self._is_emptied,
        )
        return registration(self._order, self._start_ticks, status)

    def _advance(self, token: str) -> Advance:
        has_new_output, self._has_new_output = self._has_new_output, False
        return Advance(
            run_id=self._order.run_id,
            session_token=token,
            **ending.counts(self.spool, self._progress).to_json(),
            beat_at=time.time(),
            worker_beat=has_new_output,
            total_steps=self._progress.total_steps,
            total_episodes=self._progress.total_episodes,
        )

    # ------------------------------------------------------------------ the start

    def _start_worker(self, now: float) -> None:
        try:
            if self._setup_error or self.spool is None:
                raise self._setup_error or OSError(0, "the output files were not opened")
            started = start(self._order, self._attempt_dir, self._tree.run_cgroup, self._temp_cleanup)
        except OSError as error:
            self._spawn_failed(error)
            return
        self._started = started
        self._is_childless = False
        self._control.begin(started, now)
        self.spool.attach(started.worker.stdout_fd, started.worker.stderr_fd)
        self._ending.started_at = started.at
        started_facts = [facts.spawned(started.record)]
        if not self._order.is_worker:
            self._sign_of_life_at = started.at
            started_facts.append(facts.at_time(facts.STARTED, started.at))
        self.dialogue.add_facts(*started_facts)
        if started.leave_error is not None:
            self._end_start(started.leave_error, now)

    def _note_record(self, record: Recognised) -> None:
        """Count a telemetry record, and pass it to the pause, which it may answer."""
        self._progress.note(record)
        if self._sign_of_life_at is None and record.kind != "error":
            self._sign_of_life_at = time.time()
            if self._order.is_worker:
                self.dialogue.add_facts(facts.at_time(facts.STARTED, self._sign_of_life_at))
        self._control.pause.note_record(record.kind)

    def _spawn_failed(self, error: OSError) -> None:
        self._ending.fault = ending.DISK_FULL if error.errno in FULL else ending.SPAWN_FAILED
        named = f"{error.filename}: " if error.errno and error.filename else ""
        self._ending.error = too_large_to_start(error, self._order) or f"{named}{error.strerror or error}"
        exit = self._end_without_worker()
        fact = SpawnFailed(at=exit.finished_at, errno=error.errno or None, error=exit.error, exit=exit)
        self.dialogue.add_facts(fact.to_json())

    def _end_start(self, error: OSError, now: float) -> None:
        """Kill the worker at once: this shim cannot leave the worker's control groups.

        There, the memory limit of the run could kill the shim, and a pause would freeze it.
        """
        self._ending.fault = ending.SPAWN_FAILED
        self._ending.error = f"the shim cannot leave the control group of the worker: {error.strerror}"
        self._control.stop(0.0, now)

    def _handshake_timed_out(self) -> None:
        """End the attempt without a worker and leave, or leave later if exit.json cannot be written yet."""
        waited_s = self._order.limits.handshake_timeout_s
        self._ending.fault = ending.HANDSHAKE_TIMEOUT
        self._ending.error = f"the daemon did not accept this shim within {waited_s:g} s"
        self._end_without_worker()
        if self._departure.is_settled:
            self._departure.leave()

    def _end_without_worker(self) -> Exit:
        self._is_emptied = True
        self._exit = self._ending.record(None, self.spool, self._progress, forced=False, swept=True)
        self._departure.write_exit(self._exit, time.monotonic())
        return self._exit

    # ------------------------------------------------------------------ the end

    def _stop(self, stop: BegunStop, now: float) -> None:
        if self._exit is not None:
            if self._left.is_settling:
                self._end_settling()
            if not self._is_emptied:
                self._control.kill_sequence.begin(now, stop.grace_s, stop.signal)  # shortens the grace
            return
        if self._ending.stop is None:
            self._ending.stop = stop
            self._ending.is_release = False
        if self._started is None:
            exit = self._end_without_worker()
            self.dialogue.add_facts(facts.exited(exit))
            return
        self._control.stop(stop.grace_s, now, stop.signal)

    def _leader_ended(self, ended: child.Ended, now: float) -> None:
        crash_points.reach("shim.reaped")
        assert self.spool is not None
        bytes_before = self.spool.read_bytes
        self.spool.read_pending()
        if self.spool.read_bytes != bytes_before:
            self.dialogue.note_change()
        self._control.leader_has_ended()
        self._ending.post_mortem = self._control.post_mortem.summary
        self._ending.note_end(ended, self._control.ran_s(now), self._tree.run_cgroup.oom())
        is_forced = self._control.kill_sequence.is_forced
        self._exit = self._ending.record(
            ended, self.spool, self._progress, is_forced, swept=self._is_childless
        )
        is_stopped = self._control.is_stopping or self._control.post_mortem.stop is not None
        if self._is_childless and not is_stopped:
            self._exit = self._exit.changed(left_processes=0)
        self._departure.write_exit(self._exit, now)
        if self._is_childless or is_stopped:
            self._report_exit(self._exit, now)
        else:
            self._left.begin(now)

    def _end_settling(self) -> None:
        """Count the processes that the program left behind, write exit.json with their number, end them."""
        assert self._exit is not None
        count = self._left.count(is_childless=self._is_childless)
        self._exit = self._exit.changed(left_processes=count)
        self._departure.write_exit(self._exit, self._left.ended_at)
        self._temp_cleanup.note_processes(self._left.listed)
        self._report_exit(self._exit, self._left.ended_at)

    def _report_exit(self, exit: Exit, now: float) -> None:
        """Report the end of the program at `now`, and end the processes that remain."""
        self.dialogue.add_facts(facts.exited(exit))
        if not self._is_childless:
            self._control.end_rest(now)

    def _tick_after_end(self, now: float) -> None:
        count_at = self._left.next_at()
        if count_at is not None and (self._is_childless or now >= count_at):
            self._end_settling()
        if self._is_childless:
            self._check_empty()

    def _check_empty(self) -> None:
        """Note that the tree is empty: no child is left and, after a kill sequence, no marked process."""
        if self._is_emptied or (self._control.is_stopping and self._tree.read_members().processes):
            return
        self._is_emptied = True
        self._temp_cleanup.note_empty()
        assert self.spool is not None and self._exit is not None
        self.spool.read_pending()
        if not self._exit.swept:
            fact = Emptied(
                at=time.time(), telemetry_seq=self.spool.telemetry_file.written_seq,
                stdout_bytes=self.spool.stdout.end_bytes, stderr_bytes=self.spool.stderr.end_bytes,
            )  # fmt: skip
            self.dialogue.add_facts(fact.to_json())
            self.dialogue.note_change()  # the fact `exited` had the cursors before this output
