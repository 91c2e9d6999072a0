"""`watch`: print the events of runs; on a terminal, with a line for each live run."""

import sys
import time
from typing import Any

from mosaicctl.board import Board, describe
from mosaicctl.client import connect
from mosaicctl.exits import DONE
from mosaicctl.follow import EventStream, Streams
from mosaicctl.progressbar import NAME_SIZE, Rate, measure, progress_line
from mosaicctl.render import clean, clock, colour, ending_text, paint, to_json
from mosaicctl.screen import Screen
from mosaicctl.select import references, selector_argument
from mosaicctl.values import moment
from mosaicd.protocol import Json

_EPILOG = """\
Prints the events of the runs until they have ended; without RUN, of all runs, until Ctrl-C. Watching
changes nothing, and the exit code is 0; for the exit code of a run, use `wait` or `run`. If the daemon
restarts, mosaicctl waits for it; no event is lost or printed twice.

  mosaicctl watch @
  mosaicctl watch
  mosaicctl watch --since 0 -o jsonl | jq 'select(.state == "TERM")'
"""


#: The widest name column; a longer name is printed in full, without alignment.
LONGEST_NAME = 32
#: The fields that are printed for a run that had ended before the watch began.
_ENDED_FIELDS = (
    "run_id", "name", "state", "want", "outcome", "cause", "exit_code", "signal", "attempt", "rev",
    "left_processes", "finished_at",
)  # fmt: skip


def arguments(parser: Any) -> None:
    """Add the options of `watch`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    parser.add_argument(
        "--since",
        metavar="SEQ|TIME",
        type=seq_or_time,
        help="begin with the events after this number (0: all), or since a time: 10m (ago), 10:30, or a date",
    )
    parser.add_argument(
        "--progress", action="store_true", help="in a pipe: also print a line for each progress report"
    )


def seq_or_time(text: str) -> int | float:
    """Return the value of --since: a seq (an int) if it is a whole number, else a time (a float)."""
    return int(text) if text.isascii() and text.isdigit() else moment(text)


def execute(args: Any) -> int:
    """Print the events of the selected runs."""
    with connect(args.socket) as client:
        # Read the seq before the runs, so that no event in between is missed.
        hello = client.call("daemon.hello", {"client": "mosaicctl"})
        targets = references(client, args.runs)
        runs = [client.call("run.get", {"run_id": reference}) for reference in targets]
        watcher = Watcher(args, runs)
        since = hello["last_seq"] if runs and args.since is None else args.since
        stream = watcher.stream(since)
        stream.epoch = hello["epoch"]
        streams = Streams(client)
        streams.add(stream)
        while not (watcher.is_over() or stream.is_done):
            has_news = streams.step(1.0 if watcher.screen.is_live or watcher.have_all_ended() else None)
            if not has_news and watcher.have_all_ended():
                watcher.print_ends_before_since()
                break
            watcher.redraw()
        watcher.screen.draw([], now=True)
    return DONE


class Watcher:
    """Prints the events of the selected runs (of all runs, if none is named)."""

    def __init__(self, args: Any, runs: list[Json]) -> None:
        self.output = args.output
        self.screen = Screen(sys.stdout)
        if args.output != "table":
            self.screen.is_live = False
        self.board = Board()
        self._selected = {run["run_id"] for run in runs}
        self._wants_progress = args.progress
        self._is_replay = args.since is not None
        #: The rev with which each run was first printed; events up to it are not printed.
        self._first_revs: dict[str, int] = {}
        self._rates: dict[str, Rate] = {}
        #: With --since: the runs that had ended before the watch began, until the event of their end comes.
        self._awaited_ends: dict[str, Json] = {}
        self._name_size = 0
        for run in runs:
            self._widen_name_column(run)
        for run in runs:
            self._take_run(run)

    def stream(self, since: int | float | None) -> EventStream:
        """Return the event stream for this watcher, from `since` on."""
        only = next(iter(self._selected)) if len(self._selected) == 1 else None
        wants_progress = self.screen.is_live or self._wants_progress
        if isinstance(since, float):
            stream = EventStream(only, None, progress=wants_progress, since_at=since)
        else:
            stream = EventStream(only, since, progress=wants_progress)
        stream.on_runs, stream.on_event = self._take_runs, self._take_event
        stream.on_progress = self._take_progress
        stream.on_note = lambda text: print(f"mosaicctl: {text}", file=sys.stderr)
        return stream

    def have_all_ended(self) -> bool:
        """Return whether all named runs have ended; False if none is named."""
        return bool(self._selected) and all(
            self.board.runs[run_id].get("state") == "TERM" for run_id in self._selected
        )

    def is_over(self) -> bool:
        """Return whether all named runs have ended, and their ends are printed."""
        return self.have_all_ended() and not self._awaited_ends

    def print_ends_before_since(self) -> None:
        """Print the end of each run that had ended before the --since, so that no event of its end came."""
        for run in self._awaited_ends.values():
            self._print_found(run)
        self._awaited_ends.clear()

    def redraw(self) -> None:
        """Redraw the progress lines of live runs."""
        self.screen.draw(self._lines())

    def _lines(self) -> list[str]:
        runs = self.board.live()
        shown = runs[: self.screen.height]
        lines = [self._line(run, min(self._name_size, NAME_SIZE)) for run in shown]
        if len(runs) > len(lines):
            lines[-1] = f"... and {len(runs) - len(lines) + 1} more"
        return lines

    def _line(self, run: Json, name_size: int = 0) -> str:
        rate = self._rates.setdefault(run["run_id"], Rate())
        screen = self.screen
        return progress_line(run, rate, screen.width, screen.has_colour, screen.has_unicode, name_size)

    def _is_selected(self, run_id: str) -> bool:
        return not self._selected or run_id in self._selected

    def _take_runs(self, runs: list[Json]) -> None:
        for run in runs:
            if self._is_selected(run["run_id"]):
                self._widen_name_column(run)
        for run in runs:
            if self._is_selected(run["run_id"]):
                self._take_run(run)

    def _take_run(self, run: Json) -> None:
        """Put a run on the board; print it if it is new there, unless its past events come (--since)."""
        before = self.board.runs.get(run["run_id"])
        self.board.put(run)
        if before is not None:
            return
        if not self._is_replay:
            self._first_revs[run["run_id"]] = run.get("rev", 0)
            self._print_found(run)
        elif run.get("state") == "TERM":
            self._awaited_ends[run["run_id"]] = run

    def _print_found(self, run: Json) -> None:
        """Print a run as it was before the watch; as JSON or by id only if it has ended."""
        if self.output == "table":
            words = f"ended {ending_text(run)}" if run.get("state") == "TERM" else "(current state)"
            self._print_line(run, words, time.time())
        elif run.get("state") == "TERM":
            self._print_machine_form(ended_run_event(run))

    def _take_event(self, event: Json) -> None:
        if not self._is_selected(event["run_id"]):
            return
        if event["rev"] <= self._first_revs.get(event["run_id"], 0):
            return
        if event.get("state") == "TERM":
            self._awaited_ends.pop(event["run_id"], None)
        run = self.board.fold(event)
        if self.output == "table":
            run_at_event = {**run, "state": event.get("state"), "outcome": event.get("outcome")}
            self._print_line(run_at_event, describe(event), event["at"], self._lines())
        else:
            self._print_machine_form({key: event[key] for key in event if key != "subscription"})

    def _print_line(self, run: Json, words: str, at: float, lines: list[str] | None = None) -> None:
        self._widen_name_column(run)
        self.screen.print_line(event_line(run, words, at, self.screen.has_colour, self._name_size), lines)

    def _print_machine_form(self, event: Json) -> None:
        """Print an event as JSON, or only the id of its run."""
        if self.output == "name":
            self.screen.print_line(event["run_id"])
        else:
            sys.stdout.write(to_json(event, None))
            sys.stdout.flush()

    def _widen_name_column(self, run: Json) -> None:
        """Widen the name column for this run, up to LONGEST_NAME."""
        if (size := len(run_label(run))) <= LONGEST_NAME:
            self._name_size = max(self._name_size, size)

    def _take_progress(self, progress: Json) -> None:
        if not self._is_selected(progress["run_id"]):
            return
        self.board.advance(progress)
        run = self.board.runs.get(progress["run_id"])
        if run is None:
            return
        done, _, _ = measure(run)
        self._rates.setdefault(run["run_id"], Rate()).add(time.monotonic(), done)
        if self._wants_progress and not self.screen.is_live:
            self._print_progress(run, progress)

    def _print_progress(self, run: Json, progress: Json) -> None:
        if self.output in ("json", "jsonl"):
            report = {key: progress[key] for key in progress if key != "subscription"}
            sys.stdout.write(to_json({"kind": "progress", **report}, None))
            sys.stdout.flush()
        else:
            self.screen.print_line(self._line(run))


def event_line(run: Json, words: str, at: float, colours: bool, name_size: int = 0) -> str:
    """Return the line of an event: time, run (in at least `name_size` columns), state, `words`."""
    state = paint(f"{run.get('state') or '':<5}", colour(run), colours)
    return f"{clock(at)[11:]}  {run_label(run):<{name_size}}  {state}  {words}"


def run_label(run: Json) -> str:
    """Return the name of a run; its id if it has no name."""
    return clean(run.get("name") or run["run_id"])


def ended_run_event(run: Json) -> Json:
    """Return an event of kind `as_found` for a run that had ended before the watch began."""
    return {"kind": "as_found", "at": time.time(), **{key: run.get(key) for key in _ENDED_FIELDS}}
