"""Clients of the drill: each does random things to its own runs and writes down every word it was given.

What was acknowledged is in `told`, for the ledger to be compared with.  A reader would get wrong: a request
whose connection broke may have happened or not; a client that gave a key asks again with the same key, and
must come to the same run.
"""

import random
import threading
import time
from pathlib import Path
from typing import Any

from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicd.protocol.errors import Conflict, MosaicError, NotFound, TimedOut, Unavailable

PROGRAM = Path(__file__).parent / "program.sh"
ENDINGS = ("0", "0", "0", "1", "7", "255", "KILL", "SEGV", "TERM")
SECONDS = ("0", "0", "0.02", "0.1", "0.4", "5")
VERBS = ("get", "get", "get", "wait", "stop", "pause", "resume", "hold", "release", "set")
LIVE_LIMIT = 4
CALL_TIMEOUT_S = 20.0
_GONE = (NoDaemon, Disconnected, OSError)


class Notebook:
    """What all clients of one house were told, and what went wrong; filled by many threads."""

    def __init__(self, socket: Path, notes: Path) -> None:
        self.socket = socket
        self.notes = notes
        self.told: list[dict[str, Any]] = []
        self.wrong: list[str] = []
        self.by_key: dict[str, str] = {}
        self.stopped: set[str] = set()  # a stop was sent, acknowledged or not
        self.requests = 0
        self.pause = threading.Event()
        self.over = threading.Event()


class Submitter(threading.Thread):
    """One client."""

    def __init__(self, book: Notebook, seed: str) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self._book = book
        self._dice = random.Random(seed)
        self._name = seed.rpartition("/")[2]
        self._client: Client | None = None
        self._runs: list[str] = []
        self._in_doubt: dict[str, Any] | None = None
        self._count = 0
        self.is_parked = False

    def run(self) -> None:
        """Ask and ask again, until it is over."""
        book = self._book
        while not book.over.is_set():
            self.is_parked = book.pause.is_set()
            if self.is_parked:
                self._hang_up()
                time.sleep(0.005)
                continue
            try:
                self._once()
            except _GONE:
                self._hang_up()
                time.sleep(0.005)
            except TimedOut as error:
                book.wrong.append(f"no answer: {error}")
                self._hang_up()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        if self._client is None:
            self._client = connect(str(self._book.socket))
        self._book.requests += 1
        reply: dict[str, Any] = self._client.call(method, params, CALL_TIMEOUT_S)
        return reply

    def _once(self) -> None:
        if self._in_doubt is not None:
            self._submit(self._in_doubt)
        elif len(self._runs) < LIVE_LIMIT and self._dice.random() < 0.6:
            self._submit(self._new())
        elif self._runs:
            self._act(self._dice.choice(self._runs))

    # --- submit ------------------------------------------------------------------------------------

    def _new(self) -> dict[str, Any]:
        dice, self._count = self._dice, self._count + 1
        mode = dice.choice(("new", "new", "key", "attach"))
        mark = f"{self._name}-{self._count}" if mode != "attach" else f"like-{dice.randrange(3)}"
        program = ["/bin/sh", str(PROGRAM), str(self._book.notes), dice.choice(SECONDS), dice.choice(ENDINGS)]
        params: dict[str, Any] = {
            "command": program, "cwd": "/", "dedup": "attach" if mode == "attach" else "new",
            "gpus": dice.choice((0, 0, 1)), "labels": {"mark": mark, "dedup": mode},
            "hold": dice.random() < 0.1, "grace_s": 0.3, "environment": {"MARK": mark},
        }  # fmt: skip
        if mode == "attach":
            params |= {"command": [*program[:3], "0.1", "0"], "gpus": 0, "hold": False}
        if mode == "key":
            params["key"] = f"{self._book.notes.parent.name}-{mark}"
        if dice.random() < 0.4:
            params |= {"retries": dice.randrange(3), "retry_on": ["exit_code", "shim_lost", "signal"]}
        return params

    def _submit(self, params: dict[str, Any]) -> None:
        key = params.get("key")
        self._in_doubt = params if key else None
        try:
            run = self._call("run.submit", **params)
        except Unavailable:
            return
        except MosaicError as error:
            self._book.wrong.append(f"submit of {params} was refused: {error}")
            self._in_doubt = None
            return
        self._in_doubt = None
        self._take(run)
        if key and self._book.by_key.setdefault(key, run["run_id"]) != run["run_id"]:
            self._book.wrong.append(f"key {key}: first {self._book.by_key[key]}, then {run['run_id']}")
        if run["run_id"] not in self._runs:
            self._runs.append(run["run_id"])
        if key and self._dice.random() < 0.3:
            self._in_doubt = params  # ask again, though it was answered

    def _take(self, run: dict[str, Any]) -> None:
        self._book.told.append(run)

    # --- everything else -----------------------------------------------------------------------------

    def _act(self, run_id: str) -> None:
        verb = self._dice.choice(VERBS)
        params: dict[str, Any] = {}
        if verb == "stop":
            self._book.stopped.add(run_id)
            params = self._dice.choice(({}, {"grace_s": 0}, {"grace_s": 0.1}))
        elif verb == "set":
            self._count += 1
            params = {"priority": self._count % 50, "name": f"n{self._count}"}
        elif verb == "wait":
            params = {"timeout_s": self._dice.choice((0.01, 0.2))}
        try:
            run = self._call(f"run.{verb}", run_id=run_id, **params)
        except NotFound:
            self._book.wrong.append(f"run.{verb}: {run_id} was acknowledged and is not there")
            return
        except (Conflict, Unavailable):
            return
        except TimedOut:
            if verb != "wait":
                raise
            return
        except MosaicError as error:
            self._book.wrong.append(f"run.{verb} of {run_id}: {error}")
            return
        self._take(run)
        fault = _unkept(verb, params, run)
        if fault:
            self._book.wrong.append(f"run.{verb} {params} of {run_id} was answered with {fault}: {run}")
        if run["state"] == "TERM":
            self._runs.remove(run_id)


def _unkept(verb: str, params: dict[str, Any], run: dict[str, Any]) -> str | None:
    """Say what in the reply is not what was asked for."""
    is_over = run["state"] == "TERM"
    match verb:
        case "stop" if not is_over and run["want"] != "stop":
            return "no stop"
        case "pause" if run["want"] != "pause" and not run["held"]:
            return "no pause"
        case "resume" if run["want"] == "pause":
            return "no resume"
        case "hold" | "release" if run["held"] is not (verb == "hold"):
            return f"no {verb}"
        case "set" if run["priority"] != params["priority"] or run["name"] != params["name"]:
            return "other fields"
    return None


class Watcher(threading.Thread):
    """Watches the ledger from its beginning, over every restart, from its cursor."""

    def __init__(self, book: Notebook) -> None:
        super().__init__(name="watcher", daemon=True)
        self._book = book
        self.seen: list[tuple[int, str, str]] = []
        self.cursor = 0
        self.epoch: str | None = None
        self.reconnects = 0

    def run(self) -> None:
        """Watch until it is over."""
        while not self._book.over.is_set():
            try:
                with connect(str(self._book.socket)) as client:
                    self._follow(client)
            except _GONE:
                time.sleep(0.005)
            except Unavailable:
                time.sleep(0.005)
            except MosaicError as error:
                self._book.wrong.append(f"run.watch since {self.cursor}: {error}")
                time.sleep(0.1)

    def _follow(self, client: Client) -> None:
        begun = client.call("run.watch", {"since": self.cursor, "epoch": self.epoch}, CALL_TIMEOUT_S)
        self.epoch = begun["epoch"]
        self.reconnects += 1
        while not self._book.over.is_set():
            found = client.next_notification(0.1)
            if found is None:
                continue
            method, event = found
            if method == "run.gap":
                return  # again, from the cursor
            if method == "run.event":
                self.cursor = event["seq"]
                self.seen.append((event["seq"], event["run_id"], event["kind"]))
            elif method == "run.end":
                return
