"""Clients of the drill: each sends random requests for its own runs and keeps every reply.

`replies` has the acknowledged run objects; the drill compares them with the ledger.
Note: a request whose connection broke may have been carried out or not.  A client that sent a key repeats
the request with the same key and must get the same run.
"""

import random
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicd.protocol.errors import Conflict, MosaicError, NotFound, TimedOut, Unavailable
from tests.faults.ledger import LOST, REUSED

PROGRAM = Path(__file__).parent / "program.sh"
WORKER = "drill"
ENDINGS = ("0", "0", "0", "1", "7", "255", "KILL", "SEGV", "TERM")
SECONDS = ("0", "0", "0.02", "0.1", "0.4", "5")
VERBS = ("get", "get", "get", "wait", "stop", "pause", "resume", "hold", "release", "set", "retry")
WORKER_VERBS = ("get", "wait", "stop", *("pause",) * 4, *("resume",) * 6, "hold", "release", "set", "retry")
MODES = (None, "cooperative", "cooperative", "freeze", "release", "release", "release")
RETRY_ON = ["exit_code", "shim_lost", "signal", "disk_full", "worker_failed", "checkpoint_invalid"]
LIVE_LIMIT = 4
RETRYABLE = 6
WORKERS = 0.3  # of all submits
CALL_TIMEOUT_S = 60.0
_DISCONNECTED = (NoDaemon, Disconnected, OSError)


class Notebook:
    """The replies to all clients of one harness and the faults that they found; filled by many threads."""

    def __init__(self, socket: Path, notes: Path) -> None:
        self.socket = socket
        self.notes = notes
        self.replies: deque[dict[str, Any]] = deque()
        self.wrong: list[str] = []
        self.by_key: dict[str, str] = {}
        self.fresh: dict[str, bool] = {}  # run id of a retry -> its parameter `fresh`
        self.acknowledged: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.journal: list[tuple[Any, ...]] = []
        self.requests = 0
        self.pause = threading.Event()
        self.over = threading.Event()

    def log(self, *words: Any) -> None:
        """Add a line to the journal of operations, which explains a fault later."""
        self.journal.append((round(time.time(), 4), *words))


class Submitter(threading.Thread):
    """A thread that is one client: it submits runs and sends requests for them."""

    def __init__(self, book: Notebook, seed: str) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self._book = book
        self._seed = seed
        self._request_number = 0
        self._rng = random.Random(seed)
        self._name = seed.rpartition("/")[2]
        self._client: Client | None = None
        self._runs: list[dict[str, Any]] = []
        self._ended: list[dict[str, Any]] = []
        self._in_doubt: tuple[str, dict[str, Any]] | None = None
        self._count = 0
        self.is_parked = False

    def run(self) -> None:
        """Send requests until the drill is over; park while `book.pause` is set."""
        book = self._book
        while not book.over.is_set():
            self.is_parked = book.pause.is_set()
            if self.is_parked:
                self._hang_up()
                time.sleep(0.005)
                continue
            try:
                self._send_next()
            except _DISCONNECTED as error:
                book.log(self._name, "disconnected", type(error).__name__)
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
        self._book.log(self._name, method, params)
        try:
            reply: dict[str, Any] = self._client.call(method, params, CALL_TIMEOUT_S)
        except MosaicError as error:
            self._book.log(self._name, "refused", error.name, error.message)
            self._book.refused[f"{method} {error.name}"] += 1
            raise
        summary = {name: reply[name] for name in ("run_id", "rev", "state", "want", "attempt", "pause_mode")}
        self._book.log(self._name, "reply", summary)
        self._book.acknowledged[method.removeprefix("run.")] += 1
        self._book.replies.append(reply)
        return reply

    def _send_next(self) -> None:
        if self._client is None:  # without a daemon this raises, and the number is not used
            self._client = connect(str(self._book.socket))
        self._request_number += 1
        self._rng = rng = random.Random(f"{self._seed}/{self._request_number}")
        if self._in_doubt is not None:
            self._request_run(*self._in_doubt)
        elif len(self._runs) < LIVE_LIMIT and rng.random() < 0.6:
            self._request_run("run.submit", self._worker() if rng.random() < WORKERS else self._command())
        elif self._runs:
            self._act(rng.choice(self._runs))

    # --- new runs ----------------------------------------------------------------------------------

    def _command(self) -> dict[str, Any]:
        rng, self._count = self._rng, self._count + 1
        mode = rng.choice(("new", "new", "key", "attach"))
        mark = f"{self._name}-{self._count}" if mode != "attach" else f"like-{rng.randrange(3)}"
        program = ["/bin/sh", str(PROGRAM), str(self._book.notes), rng.choice(SECONDS), rng.choice(ENDINGS)]
        params: dict[str, Any] = {
            "command": program, "cwd": "/", "dedup": "attach" if mode == "attach" else "new",
            "gpus": rng.choice((0, 0, 1)), "labels": {"mark": mark, "dedup": mode},
            "hold": rng.random() < 0.1, "grace_s": 0.3, "environment": {"MARK": mark},
        }  # fmt: skip
        if mode == "attach":
            params |= {"command": [*program[:3], "0.1", "0"], "gpus": 0, "hold": False}
        if mode == "key":
            params["key"] = self._key(mark)
        if rng.random() < 0.4:
            params |= {"retries": rng.randrange(3), "retry_on": RETRY_ON}
        return params

    def _worker(self) -> dict[str, Any]:
        """Return the parameters of a worker that may crash, meet a full disk or damage checkpoints."""
        rng, self._count = self._rng, self._count + 1
        mark, steps = f"{self._name}-{self._count}", rng.choice((4, 12, 30))
        config = {
            "mark": mark, "notes": str(self._book.notes), "steps": steps,
            "step_s": rng.choice((0, 0.01, 0.05)), "save_every": rng.choice((1, 3, 7)),
            "crashes": rng.choice((0, 0, 1, 2)),
            "crash_after": rng.randrange(1, steps + 1), "crash": rng.choice(("KILL", "SEGV", "3", "TERM")),
            "full_at": rng.sample(range(1, steps + 1), rng.choice((0, 0, 1, 3))),
            "damage_at": rng.sample(range(1, steps + 1), rng.choice((0, 0, 1, 2))),
        }  # fmt: skip
        resources = {"cpus": 1, "memory_mb": 512, "gpus": {"requested": rng.choice((0, 0, 1))}}
        params: dict[str, Any] = {
            "config": {
                "run_name": mark, "entry_point": "python", "arguments": [], "environment": {"MARK": mark},
                "artifacts": {}, "resources": resources,
                "metadata": {"worker": {"kind": WORKER, "config": config}},
            },
            "dedup": "new", "labels": {"mark": mark, "dedup": "new"}, "hold": rng.random() < 0.05,
            "grace_s": rng.choice((0.05, 1.0, 1.0)), "retries": rng.randrange(4), "retry_on": RETRY_ON,
        }  # fmt: skip
        if rng.random() < 0.5:
            params["key"] = self._key(mark)
        return params

    def _key(self, mark: str) -> str:
        return f"{self._book.notes.parent.name}-{mark}"

    def _request_run(self, method: str, params: dict[str, Any]) -> None:
        key = params.get("key")
        self._in_doubt = (method, params) if key else None
        try:
            run = self._call(method, **params)
        except Unavailable:
            return
        except MosaicError as error:
            self._book.wrong.append(f"{method} of {params} was refused: {error}")
            self._in_doubt = None
            return
        self._in_doubt = None
        if key and self._book.by_key.setdefault(key, run["run_id"]) != run["run_id"]:
            self._book.wrong.append(
                f"{REUSED} key {key}: first {self._book.by_key[key]}, then {run['run_id']}"
            )
        if "fresh" in params:
            self._book.fresh[run["run_id"]] = params["fresh"]
        if all(run["run_id"] != known["run_id"] for known in self._runs):
            self._runs.append(run)
        if key and self._rng.random() < 0.3:
            self._in_doubt = (method, params)  # repeat a request that was answered

    def _retry(self) -> None:
        """Retry an ended run; a worker resumes from its last complete checkpoint unless `fresh` is set."""
        origin = self._rng.choice(self._ended)
        self._count += 1
        params = {
            "run_id": origin["run_id"], "fresh": self._rng.random() < 0.15,
            "environment": {"MARK": origin["labels"]["mark"]},
        }  # fmt: skip
        if self._rng.random() < 0.5:
            params["key"] = self._key(f"{self._name}-{self._count}")
        self._request_run("run.retry", params)

    # --- everything else -----------------------------------------------------------------------------

    def _act(self, run: dict[str, Any]) -> None:
        is_worker, run_id = run["kind"] == "worker", run["run_id"]
        verb = self._rng.choice(WORKER_VERBS if is_worker else VERBS)
        if verb == "retry":
            if self._ended and len(self._runs) < LIVE_LIMIT:
                self._retry()
            return
        params = self._params(verb, is_worker)
        try:
            reply = self._call(f"run.{verb}", run_id=run_id, **params)
        except NotFound:
            self._book.wrong.append(f"{LOST} run.{verb}: {run_id} was acknowledged and is missing")
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
        if fault := _missing_effect(verb, params, reply):
            self._book.wrong.append(f"run.{verb} {params} of {run_id} was answered with {fault}: {reply}")
        if reply["state"] == "TERM":
            self._runs.remove(run)
            if reply["labels"]["dedup"] != "attach":  # a retry would be a second live run of this digest
                self._ended = [*self._ended[1 - RETRYABLE :], reply]

    def _params(self, verb: str, is_worker: bool) -> dict[str, Any]:
        rng = self._rng
        if verb == "stop":
            return dict(rng.choice(({}, {"grace_s": 0}, {"grace_s": 0.1})))
        if verb == "set":
            self._count += 1
            return {"priority": self._count % 50, "name": f"n{self._count}"}
        if verb == "wait":
            return {"timeout_s": rng.choice((0.01, 0.2))}
        mode = rng.choice(MODES) if verb == "pause" and is_worker else None
        return {"mode": mode} if mode else {}


def _missing_effect(verb: str, params: dict[str, Any], run: dict[str, Any]) -> str | None:
    """Return which effect of the request is missing in the reply, or None."""
    is_over = run["state"] == "TERM"
    match verb:
        case "stop" if not is_over and run["want"] != "stop":
            return "no stop"
        case "pause" if run["want"] != "pause" and not run["held"]:
            return "no pause"
        case "pause" if run["want"] == "pause" and params.get("mode") not in (None, run["pause_mode"]):
            return f"a pause of mode {run['pause_mode']}" if not run["held"] else None
        case "resume" if run["want"] == "pause":
            return "no resume"
        case "hold" | "release" if run["held"] is not (verb == "hold"):
            return f"no {verb}"
        case "set" if run["priority"] != params["priority"] or run["name"] != params["name"]:
            return "other fields"
    return None


class Watcher(threading.Thread):
    """A thread that watches all events from the first; after each restart it continues from its cursor."""

    def __init__(self, book: Notebook) -> None:
        super().__init__(name="watcher", daemon=True)
        self._book = book
        self.seen: list[tuple[int, str, str]] = []
        self.cursor = 0
        self.epoch: str | None = None
        self.reconnects = 0

    def run(self) -> None:
        """Watch until the drill is over."""
        while not self._book.over.is_set():
            try:
                with connect(str(self._book.socket)) as client:
                    self._follow(client)
            except _DISCONNECTED:
                time.sleep(0.005)
            except Unavailable:
                time.sleep(0.005)
            except MosaicError as error:
                self._book.wrong.append(f"run.watch since {self.cursor}: {error}")
                time.sleep(0.1)

    def _follow(self, client: Client) -> None:
        reply = client.call("run.watch", {"since": self.cursor, "epoch": self.epoch}, CALL_TIMEOUT_S)
        self.epoch = reply["epoch"]
        self.reconnects += 1
        while not self._book.over.is_set():
            notification = client.next_notification(0.1)
            if notification is None:
                continue
            method, event = notification
            if method == "run.gap":
                return  # watch again from the cursor
            if method == "run.event":
                self.cursor = event["seq"]
                self.seen.append((event["seq"], event["run_id"], event["kind"]))
            elif method == "run.end":
                return
