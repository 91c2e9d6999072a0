"""The daemon's server on a real socket with a real registry, without the parts that start processes.

`Serving` is the server; `Peer` is a client that sends any bytes.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mosaicd.broadcaster import Broadcaster
from mosaicd.clock import Clock
from mosaicd.config import Paths, Settings
from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Progress, Run
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.host.auth import Auth
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.methods import METHODS, Method
from mosaicd.protocol.states import Dedup, RunKind
from mosaicd.rpc import handlers
from mosaicd.rpc.context import Services
from mosaicd.rpc.handlers import Handler
from mosaicd.rpc.router import Router
from mosaicd.rpc.server import Server
from mosaicd.rundirs.directories import RunDirs
from mosaicd.store.history import History
from mosaicd.store.registry import Committed, Registry
from mosaicd.upkeep.discovery import Discovery
from mosaicd.upkeep.retention import Retention
from mosaicd.upkeep.wal_checkpoints import WalCheckpoints

AT = 1_800_000_000.0
#: Timeout of every wait of a test.
TIMEOUT_S = 30.0


class FakeDispatcher:
    """Stands for the dispatcher; its scheduler is real but never runs, so no run starts.

    `carried_out` has the ids of the runs whose owed action was requested.
    """

    def __init__(self, settings: Settings, clock: Clock, registry: Registry) -> None:
        self.scheduler = Scheduler(registry, settings, clock)
        self.carried_out: list[str] = []
        registry.subscribe(self._committed)

    def _committed(self, batch: Sequence[Committed]) -> None:
        for commit in batch:
            self.scheduler.update(commit.run)

    def carry_out_owed(self, run_id: str) -> None:
        self.carried_out.append(run_id)

    def reason(self, run: Run) -> str | None:
        return self.scheduler.reason(run.run_id)

    def note_registered(self, run_id: str) -> None:
        self.carried_out.append(run_id)

    def note_beat(self, run_id: str) -> None:
        self.carried_out.append(run_id)


class FakeLauncher:
    """Stands for the launcher's client, with the fields that daemon.health reads."""

    containment: Mapping[str, Any] = {}
    start_error: str | None = None


class FakeShims:
    """Stands for the shims; records the attached connections."""

    def __init__(self) -> None:
        self.connections: dict[str, Any] = {}
        self.pids: set[int] = set()

    def has_process(self, pid: int) -> bool:
        return pid in self.pids

    def note_message(self, run_id: str) -> None:
        pass

    def attach(self, run_id: str, attempt: int, connection: Any, pid: int, start_ticks: int) -> None:
        self.connections[run_id] = connection


class Serving:
    """A running server with registry, history and broadcaster."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self.peers: list[Peer] = []
        self._count = 0

    @classmethod
    async def start(
        cls,
        home: Path,
        *,
        is_open: bool = True,
        extra: Mapping[Method, Handler] | None = None,
        **groups: Mapping[str, Any],
    ) -> "Serving":
        """Start a server in `home`; `groups` are changed settings, `extra` are further methods."""
        settings = Settings(paths=Paths(home / "state", home / "s"))
        for group, values in groups.items():
            settings = replace(settings, **{group: replace(getattr(settings, group), **values)})
        serving = cls(home, settings)
        await serving._open(is_open, extra or {})
        return serving

    async def _open(self, is_open: bool, extra: Mapping[Method, Handler]) -> None:
        state = self.settings.state_dir
        self.registry = await Registry.open(state / "registry.sqlite3")
        self.history = History(state / "registry.sqlite3")
        self.auth = Auth.open(state)
        self.registry.subscribe(self.auth.drop_tokens)
        self.broadcaster = Broadcaster(self.registry, self.history, self.settings.watch)
        clock = Clock()
        self.dispatcher, self.shims = FakeDispatcher(self.settings, clock, self.registry), FakeShims()
        rundirs = RunDirs(state / "runs")
        retention = Retention(self.registry, self.history, rundirs, self.settings.retention, clock)
        self.services = Services(
            settings=self.settings, clock=clock, registry=self.registry, history=self.history,
            dispatcher=self.dispatcher, launcher=FakeLauncher(), shims=self.shims,  # type: ignore[arg-type]
            scheduler=self.dispatcher.scheduler, broadcaster=self.broadcaster, auth=self.auth,
            discovery=Discovery(self.settings), rundirs=rundirs,
            retention=retention, wal=WalCheckpoints(self.registry, clock, 60.0), started_mono=clock.mono(),
        )  # fmt: skip
        rows = {**METHODS, **{row.name: row for row in extra}}
        table = {**handlers.load_handlers(), **{row.name: handler for row, handler in extra.items()}}
        self.server = Server(self.services, Router(self.services, table, rows))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.settings.socket))
        await self.server.start(listener)
        if is_open:
            self.server.open()

    async def close(self) -> None:
        """Stop the server; check that no connection and no watcher remains."""
        for peer in self.peers:
            peer.disconnect()
        await self.server.close()
        assert not self.server.connections
        await self.services.discovery.close()
        self.services.files.pool.shutdown()
        await self.history.close()
        await self.registry.close()
        assert not self.broadcaster.watchers

    async def peer(self) -> "Peer":
        """Return a new client that is connected."""
        reader, writer = await asyncio.open_unix_connection(str(self.settings.socket), limit=32 << 20)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        return peer

    # --- runs ------------------------------------------------------------------------------------------

    async def add(self, **fields: Any) -> Run:
        """Store a new run of this user and return it."""
        self._count += 1
        values: dict[str, Any] = {
            "run_id": ulid.encode(int(AT * 1000) + self._count, self._count.to_bytes(10, "big")),
            "owner_uid": os.getuid(), "owner": "ada", "kind": RunKind.COMMAND, "name": f"run-{self._count}",
            "command": ("true",), "digest": f"sha256:{self._count:064x}", "created_at": AT + self._count,
        }  # fmt: skip
        run = Run(**{**values, **fields})
        event = Event(Kind.SUBMITTED, run.created_at, run.owner, {"run": run.to_dict()})
        stored, _ = await self.registry.add(event, dedup=Dedup.NEW)
        return stored

    async def execute(self, run: Run, attempt: int = 1) -> Run:
        """Record the events that bring a waiting run to EXEC."""
        return await self.registry.record(
            run.run_id,
            Event(Kind.DISPATCHED, AT, data={"attempt": attempt, "nonce": "n" * 8, "slots": [], "cpus": 1}),
            Event(Kind.REGISTERED, AT, "shim", {"shim_pid": 1, "shim_start_ticks": 1}),
            Event(Kind.SPAWNED, AT, "shim", {"pid": 2, "start_ticks": 2, "boot_id": "b", "containment": "c"}),
            Event(Kind.STARTED, AT, "shim"),
        )

    async def end(self, run: Run) -> Run:
        """Record the events that end a run in EXEC as succeeded."""
        return await self.registry.record(
            run.run_id,
            Event(Kind.EXITED, AT + 9, "shim", {"exit_code": 0, "finished_at": AT + 9}),
            Event(Kind.FINISHED, AT + 9, data={"outcome": "succeeded", "cause": None}),
        )

    async def add_events(self, run: Run, times: int) -> None:
        """Record `times` small events for the run."""
        for number in range(times):
            await self.registry.record(run.run_id, Event(Kind.SET, AT, "ada", {"priority": number % 50}))

    def advance(self, run: Run, **values: Any) -> None:
        """Report progress as worker.advance does."""
        self.registry.advance(run.run_id, Progress(**values))
        self.broadcaster.advanced(run.run_id)

    def file(self, run: Run, name: str, attempt: int = 1) -> Path:
        """Return the path of an attempt's file, and make its directory."""
        directory = Path(rundir.attempt_dir(str(self.services.rundirs.path(run.run_id)), attempt))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / name


class Peer:
    """A client of the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.notifications: list[dict[str, Any]] = []
        self._id = 0

    def send(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self.writer.write(data)

    def send_request(self, method: str, params: Any = None, id: Any = None) -> Any:
        """Send a request and return its id."""
        self._id += 1
        number = self._id if id is None else id
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": number}
        self.send(json.dumps(message).encode() + b"\n")
        return number

    async def receive(self) -> Any:
        """Return the next message."""
        async with asyncio.timeout(TIMEOUT_S):
            line = await self.reader.readline()
        if not line:
            raise ConnectionResetError("the server closed the connection")
        return json.loads(line)

    async def reply(self, number: Any) -> dict[str, Any]:
        """Return the reply to a request; earlier notifications are kept in `notifications`."""
        while True:
            message = await self.receive()
            if isinstance(message, dict) and "method" in message:
                self.notifications.append(message)
            else:
                assert isinstance(message, dict) and message["id"] == number, message
                return message

    async def call(self, method: str, params: Any = None) -> Any:
        """Call a method and return its result."""
        reply = await self.reply(self.send_request(method, params))
        assert "result" in reply, reply
        return reply["result"]

    async def call_refused(self, method: str, params: Any = None) -> dict[str, Any]:
        """Call a method and return its error."""
        reply = await self.reply(self.send_request(method, params))
        assert "error" in reply, reply
        error: dict[str, Any] = reply["error"]
        return error

    async def receive_notification(self, method: str | Sequence[str] | None = None) -> dict[str, Any]:
        """Return the params of the next notification (of `method`)."""
        while True:
            message = self.notifications.pop(0) if self.notifications else await self.receive()
            if method is None or message.get("method") in ((method,) if isinstance(method, str) else method):
                params: dict[str, Any] = message["params"]
                return params

    async def receive_until(self, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return all messages up to the first that `is_last` accepts."""
        seen = []
        while True:
            message = self.notifications.pop(0) if self.notifications else await self.receive()
            seen.append(message)
            if is_last(message):
                return seen

    async def wait_until_closed(self) -> None:
        """Read until the server closes the connection; raise TimeoutError if it does not."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                while await self.reader.read(1 << 16):
                    pass
            except ConnectionResetError:
                pass

    def disconnect(self) -> None:
        """Abort the connection."""
        self.writer.transport.abort()
