"""`run`: submit a run, follow it, and exit with its exit code.

Note: the run is a process of the daemon, not of this terminal: only Ctrl-C affects it.  A closed terminal, a
broken pipe or a killed mosaicctl do not.  The printed output is complete: after the end of the run, mosaicctl
requests the output that the streams have not delivered.
"""

import os
import signal
import sys
import time
from functools import partial
from typing import Any

from mosaicctl.board import Board, describe
from mosaicctl.client import Client, OnDemandClient
from mosaicctl.dropped_input import tell_dropped_input
from mosaicctl.exits import INTERRUPTED, NOT_STARTED, code_of_run
from mosaicctl.follow import EventStream, LogStream, Streams
from mosaicctl.left import left_sentence
from mosaicctl.memory import tell_missing_limit
from mosaicctl.progressbar import Rate, measure, progress_line
from mosaicctl.reconnecting import repeat_until_answered
from mosaicctl.render import ending_text, label, progress, to_json
from mosaicctl.screen import Screen
from mosaicctl.standard_streams import are_accepted
from mosaicctl.stdin import input_of
from mosaicctl.submission import submission_arguments, submit_parameters, submit_with_key
from mosaicctl.verbs.watch import event_line
from mosaicd.protocol import Json

_EPILOG = """\
The output of the run is copied to standard output and standard error. Changes of state are printed on
standard error. With -o json, jsonl or name, the ended run is printed instead of its output. On a
terminal, a progress bar replaces the output of a worker, which is telemetry.

Exits with the exit code of the run, 128 + the signal that ended it, 124 if it reached its time limit,
130 if it was stopped, 127 or 126 if its program was not found or cannot be executed.

The first Ctrl-C stops the run with its grace period: a command gets INT, as in a terminal, unless --signal
names another signal, and a worker TERM. The second Ctrl-C exits at once, and the daemon ends the run. A
closed terminal does not affect the run.

  mosaicctl run -- python train.py
  mosaicctl run -t 1h --worker tabular --set env_id=Taxi-v3
  mosaicctl run -q -- ./evaluate.sh >scores.txt || echo "it failed with $?"
"""


def arguments(parser: Any) -> None:
    """Add the options of `run`."""
    parser.usage = "mosaicctl run [OPTIONS] (-- COMMAND ... | -f FILE | --worker KIND [--set K=V ...])"
    parser.epilog = _EPILOG
    submission_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print changes of state")
    parser.add_argument(
        "--logs", action="store_true", help="on a terminal: show the output of a worker, not its progress"
    )
    parser.add_argument(
        "--detach-on-interrupt", action="store_true", help="exit at the first Ctrl-C; the run continues"
    )


def execute(args: Any) -> int:
    """Submit the run, follow it to its end and return its code."""
    get_client = OnDemandClient(args.socket)
    source = input_of(args)
    params = submit_parameters(get_client, args)
    client = get_client()
    is_told = tell_dropped_input(args, is_run=True)
    run = submit_with_key(client, params, source=source)
    with are_accepted([run]):
        tell_missing_limit(client, params)
        code = _follow(client, args, run)
        if not is_told:  # a slow writer has written meanwhile
            tell_dropped_input(args, is_run=True)
        return code


def _follow(client: Client, args: Any, run: Json) -> int:
    """Follow an accepted run to its end and return its code."""
    with client, Interrupts() as interrupts:
        client.wake_fd = interrupts.fd
        follower = Follower(client, args, run)
        while follower.run.get("state") != "TERM":
            follower.step()
            if interrupts.count and not follower.handle_interrupts(interrupts.count):
                return INTERRUPTED
        ended = follower.finish()
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(ended, 2 if args.output == "json" else None))
    elif args.output == "name":
        sys.stdout.write(f"{ended['run_id']}\n")
    return code_of_run(ended)


class Interrupts:
    """Counts Ctrl-C instead of raising KeyboardInterrupt; each one makes `fd` readable, which ends a wait."""

    def __init__(self) -> None:
        self.count = 0
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)

    def __enter__(self) -> "Interrupts":
        self._handler = signal.signal(signal.SIGINT, self._note)
        self._wakeup = signal.set_wakeup_fd(self._write_fd)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGINT, self._handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1


class Follower:
    """Follows one run until TERM: prints its output and events, and handles Ctrl-C."""

    def __init__(self, client: Client, args: Any, run: Json) -> None:
        self.client = client
        self.run_id = run["run_id"]
        self.screen = Screen(sys.stderr)
        self._quiet = args.quiet
        self._detaches = args.detach_on_interrupt
        #: A worker is stopped with TERM, a run with a signal of its own with that.
        self._interrupts_with_int = run.get("kind") == "command" and args.signal is None
        self._stop_requests = 0
        self._board = Board()
        self._board.put(run)
        self._rate = Rate()
        on_terminal = sys.stdout.isatty() and self.screen.is_live
        self.shows_logs = args.output == "table" and (
            args.logs or not on_terminal or run.get("kind") == "command"
        )
        self._logs: dict[int, list[LogStream]] = {}
        self._streams = Streams(client)
        # Start with the first event, so that no state since the submit is missed.
        events = EventStream(self.run_id, since=0, progress=not self.shows_logs and self.screen.is_live)
        events.on_runs, events.on_event, events.on_progress = self._take_runs, self._take_event, self._advance
        self._events = events
        self._streams.add(events)
        if not self._quiet:
            has_ended = run["state"] == "TERM"
            known = "was submitted before and has ended" if has_ended else "is already live; following it"
            duplicate = f": the same run {known}" if run.get("duplicate") else ""
            self.screen.print_line(f"mosaicctl: {label(run)}{duplicate}")

    @property
    def run(self) -> Json:
        """The newest known object of the run."""
        return self._board.runs[self.run_id]

    def step(self) -> None:
        """Process one notification and redraw the progress line."""
        self._streams.step(1.0 if self.screen.is_live else 30.0)
        if self._events.is_done and self.run.get("state") != "TERM":
            self._board.put(repeat_until_answered(self.client, self._get))
        self._draw()

    def handle_interrupts(self, count: int) -> bool:
        """Stop the run at the first Ctrl-C of `count`; return False if mosaicctl has to exit."""
        if count == self._stop_requests:
            return True
        if self._detaches or self._stop_requests:
            self._clear()
            sys.stderr.write(f"mosaicctl: {label(self.run)} continues in the daemon\n")
            return False
        self._stop_requests = count
        self.screen.print_line(f"mosaicctl: stopping {label(self.run)}; a second Ctrl-C exits at once")
        repeat_until_answered(self.client, self._stop)
        return True

    def finish(self) -> Json:
        """Print the rest of the output and the end of the run; return the ended run."""
        ended = repeat_until_answered(self.client, self._get)
        if self.shows_logs:
            for attempt in range(1, (ended.get("attempt") or 0) + 1):
                self._open_logs(attempt)
            for logs in self._logs.values():
                for stream in logs:
                    repeat_until_answered(self.client, partial(stream.drain, self.client))
        self._clear()
        if (ended.get("cause") or {}).get("kind") == "spawn_failed" and code_of_run(ended) == NOT_STARTED:
            self.screen.print_line(f"mosaicctl: {label(ended)}: could not be started: {_error_of(ended)}")
        elif not self._quiet:
            done = progress(ended)
            reached = f", {done}" if done != "-" else ""
            ending = ending_text({**ended, "left_processes": None})
            self.screen.print_line(f"mosaicctl: {label(ended)}: {ending}{reached}")
        if ended.get("left_processes"):
            self.screen.print_line(f"mosaicctl: {label(ended)}: {left_sentence(ended)}")
        return ended

    def _get(self) -> Json:
        run: Json = self.client.call("run.get", {"run_id": self.run_id})
        return run

    def _stop(self) -> Json:
        params: Json = {"run_id": self.run_id, "reason": "interrupted by Ctrl-C"}
        if self._interrupts_with_int:
            params["signal"] = "INT"
        run: Json = self.client.call("run.stop", params)
        return run

    def _take_runs(self, runs: list[Json]) -> None:
        for run in runs:
            if run["run_id"] == self.run_id:
                self._board.put(run)

    def _take_event(self, event: Json) -> None:
        self._board.fold(event)
        if self.shows_logs and event.get("attempt"):
            self._open_logs(int(event["attempt"]))
        if not self._quiet:
            run_at_event = {**self.run, "state": event.get("state"), "outcome": event.get("outcome")}
            self.screen.print_line(
                event_line(run_at_event, describe(event), event["at"], self.screen.has_colour), self._lines()
            )

    def _advance(self, progress_report: Json) -> None:
        self._board.advance(progress_report)
        self._rate.add(time.monotonic(), measure(self.run)[0])

    def _open_logs(self, attempt: int) -> None:
        if attempt in self._logs:
            return
        self._logs[attempt] = [
            LogStream(self.run_id, name, _writer(target), attempt)
            for name, target in (("stdout", sys.stdout), ("stderr", sys.stderr))
        ]
        for stream in self._logs[attempt]:
            self._streams.add(stream)

    def _draw(self) -> None:
        self.screen.draw(self._lines())

    def _lines(self) -> list[str]:
        if self.shows_logs or self._quiet:
            return []
        screen = self.screen
        return [progress_line(self.run, self._rate, screen.width, screen.has_colour, screen.has_unicode)]

    def _clear(self) -> None:
        self.screen.draw([], now=True)


def _error_of(run: Json) -> str:
    return str((run.get("cause") or {}).get("error") or "no reason was given")


def _writer(target: Any) -> Any:
    def write(data: bytes) -> None:
        target.buffer.write(data)
        target.flush()

    return write
