"""A daemon whose replies the test defines: JSON lines over a real Unix socket, served by threads."""

import base64
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError
from tests.harness.waiting import wait_until

DEADLINE_S = 30.0


class Hangup(Exception):
    """Raised by a handler to close the connection without an answer."""


class Peer:
    """The connection of a client, which the handlers receive."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.after: list[tuple[str, Json]] = []

    def send(self, message: Json) -> None:
        self.link.sendall(json.dumps(message).encode() + b"\n")

    def notify(self, method: str, params: Json) -> None:
        """Send a notification after the reply of the current request."""
        self.after.append((method, params))


Handler = Callable[[Json, Peer], Any]


class ScriptedDaemon:
    """A daemon at `path`; `handlers` answer the methods, `calls` records all requests in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handlers: dict[str, Handler] = {
            "daemon.hello": lambda params, peer: {"epoch": "e1", "last_seq": 10},
            "run.leftovers": lambda params, peer: {},
        }
        self.calls: list[tuple[str, Json]] = []
        self.connections = 0
        self._listener: socket.socket | None = None
        self._links: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def start(self) -> None:
        """Begin (or begin again) to listen."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Close the listener and every connection."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for link in self._links:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client has closed the connection already
        self._links.clear()

    def requests(self, method: str) -> list[Json]:
        """Return the parameters of every request of a method."""
        return [params for name, params in self.calls if name == method]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; fail with the requests so far at the deadline."""
        wait_until(condition, deadline_s=DEADLINE_S, shown=lambda: self.calls)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._links.append(link)
            self._spawn(self._serve, link)

    def _serve(self, link: socket.socket) -> None:
        peer = Peer(link)
        try:
            with link, link.makefile("rb") as lines:
                for line in lines:
                    self._answer(peer, json.loads(line))
        except (OSError, Hangup):
            return

    def _answer(self, peer: Peer, message: Json) -> None:
        method, params = message["method"], message["params"]
        self.calls.append((method, params))
        reply: Json = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = self.handlers[method](params, peer)
        except MosaicError as error:
            reply["error"] = {
                "code": error.code,
                "message": error.message,
                "data": {"name": error.name, **error.data},
            }
        peer.send(reply)
        after, peer.after = peer.after, []
        for name, notified in after:
            peer.send({"jsonrpc": "2.0", "method": name, "params": notified})


def a_run(number: int = 1, **changes: Any) -> Json:
    """Return a run object as the daemon sends it."""
    run: Json = {
        "run_id": f"01J{number:023d}", "name": f"run-{number}", "owner": "ada", "owner_uid": 1000,
        "kind": "command", "worker_kind": None, "state": "EXEC", "want": "run", "outcome": None,
        "cause": None, "exit_code": None, "signal": None, "left_processes": None,
        "pid": 4711, "attempt": 1, "slots": [],
        "gpus": {"requested": 0, "mandatory": False, "granted": 0},
        "cpus": {"requested": 1, "granted": 1}, "memory_mb": None, "priority": 0, "labels": {},
        "digest": "d" * 64, "duplicate": False, "created_at": 1000.0 + number, "dispatched_at": 1001.0,
        "started_at": 1002.0, "finished_at": None, "last_heartbeat_at": 1003.0, "not_before": None,
        "held": False, "pause_mode": None, "released": False, "run_dir": "/srv/runs/x", "cwd": "/srv",
        "command": ["sleep", "5"], "time_limit_s": None, "max_steps": None, "grace_s": 5.0,
        "retries": 0, "retries_used": 0, "metrics": {}, "containment": "process-group",
        "progress": {"steps": None, "episodes": None, "total_steps": None, "total_episodes": None,
                     "telemetry_seq": 0, "stdout_bytes": 0, "stderr_bytes": 0, "steps_per_s": None},
        "reason": None, "rev": 5,
    }  # fmt: skip
    return {**run, **changes}


def an_ended_run(number: int = 1, **changes: Any) -> Json:
    """Return a run that has succeeded, with `changes`."""
    end = {
        "state": "TERM",
        "outcome": "succeeded",
        "exit_code": 0,
        "finished_at": 1100.0,
        "pid": None,
        "rev": 9,
    }
    return a_run(number, **{**end, **changes})


def an_event(seq: int, kind: str, state: str, run_id: str = a_run()["run_id"], **fields: Any) -> Json:
    """Return the params of a run.event notification."""
    event: Json = {
        "subscription": 1,
        "seq": seq,
        "run_id": run_id,
        "kind": kind,
        "at": 1000.0 + seq,
        "who": "daemon",
    }
    return {**event, "state": state, "want": "run", "outcome": None, "rev": seq, "attempt": 1, **fields}


def a_chunk(data: bytes, end: int, **fields: Any) -> Json:
    """Return output in the form of run.logs and run.log."""
    try:
        return {"data": data.decode(), "encoding": "utf-8", "cursor": end, **fields}
    except UnicodeDecodeError:
        return {"data": base64.b64encode(data).decode(), "encoding": "base64", "cursor": end, **fields}
