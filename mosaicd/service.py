"""Builds every object, hands them to one another, and starts and stops them in order.

Start: answer worker.* at once -> open the registry -> reconcile from files -> carry out what is owed ->
answer everybody -> READY=1.  Stop: the reverse, and never a run: shims and workers stay.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from mosaicd import log as operator_log
from mosaicd import systemd
from mosaicd.auth import Auth
from mosaicd.broadcaster import Broadcaster
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.discovery import Discovery
from mosaicd.dispatcher import Dispatcher
from mosaicd.log import Catalogue
from mosaicd.orders import Orders
from mosaicd.reconcile import reconcile
from mosaicd.rpc.context import Services
from mosaicd.rpc.server import Server
from mosaicd.rundirs import RunDirs
from mosaicd.shim_link import ShimLink
from mosaicd.store.database import Database
from mosaicd.store.history import History
from mosaicd.store.registry import Committed, Registry

log = logging.getLogger(__name__)

REGISTRY_FILE = "registry.sqlite3"


@dataclass
class Service:
    """One daemon.  `run` returns its exit code."""

    settings: Settings
    clock: Clock
    _fatal: "asyncio.Future[None]" = field(init=False)

    async def run(self, listening: socket.socket) -> int:
        """Serve `listening` until SIGTERM or SIGINT (0), or until an error that must end the daemon (raised)."""
        loop = asyncio.get_running_loop()
        self._fatal = loop.create_future()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        notifier = systemd.Notifier(self.settings.supervisor.notify_socket)
        async with contextlib.AsyncExitStack() as stack:
            services = await self._build(stack)
            server = Server(services)
            await server.start(listening)
            stack.push_async_callback(server.close, self.settings.timeouts.shutdown_s)
            await self._take_up(services, stack)
            server.open()
            self._announce(services, notifier)
            stack.enter_context(self._status(services, notifier))
            await stack.enter_async_context(_background(self._maintain(services), self._watchdog(services, notifier)))
            await asyncio.wait([self._fatal, loop.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
            notifier.stopping()
            operator_log.event(Catalogue.DAEMON_STOPPING, live=len(services.registry.live))
        if self._fatal.done():
            self._fatal.result()
        return 0

    async def _build(self, stack: contextlib.AsyncExitStack) -> Services:
        settings, clock = self.settings, self.clock
        path = settings.state_dir / REGISTRY_FILE
        database = await Database.open(path, group_commit_s=settings.registry.group_commit_ms / 1000)
        stack.push_async_callback(database.close)
        registry = await Registry.load(database)
        history = History(path)
        stack.push_async_callback(history.close)
        rundirs = RunDirs(settings.state_dir / "runs")
        auth = Auth(settings.state_dir)
        broadcaster = Broadcaster(registry, history, settings.watch)
        stack.push_async_callback(broadcaster.close)
        shims = ShimLink(on_gone=lambda run_id: dispatcher.shim_gone(run_id), on_detached=lambda run_id: None)
        orders = Orders(rundirs, auth, settings, settings.socket)
        dispatcher = Dispatcher(registry, shims, rundirs, orders, settings, clock, self._on_fatal)
        return Services(
            settings=settings, clock=clock, registry=registry, history=history, rundirs=rundirs, auth=auth,
            broadcaster=broadcaster, shims=shims, dispatcher=dispatcher, discovery=Discovery(settings),
            started_mono=clock.mono(),
        )  # fmt: skip

    def _on_fatal(self, error: BaseException) -> None:
        log.critical("an error that the daemon must not survive; its runs are safe in their shims", exc_info=error)
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _take_up(self, services: Services, stack: contextlib.AsyncExitStack) -> None:
        services.shims.start()
        stack.push_async_callback(services.shims.close)
        report = await reconcile(
            services.registry, services.history, services.rundirs, services.shims, services.dispatcher.events_of,
            self.settings.timeouts.reconcile_s,
        )  # fmt: skip
        services.quarantine.update(report.nonsense)
        log.info("reconciled: %s", report)
        services.dispatcher.start()
        stack.push_async_callback(services.dispatcher.close)
        services.registry.subscribe(_log_ends)

    def _announce(self, services: Services, notifier: systemd.Notifier) -> None:
        notifier.ready(status_line(services))
        operator_log.event(Catalogue.DAEMON_READY, socket=str(self.settings.socket), state_dir=str(self.settings.state_dir))

    @contextlib.contextmanager
    def _status(self, services: Services, notifier: systemd.Notifier):  # type: ignore[no-untyped-def]
        services.registry.subscribe(lambda batch: notifier.status(status_line(services)))
        yield

    async def _maintain(self, services: Services) -> None:
        """Checkpoint the registry from time to time."""
        while True:
            await asyncio.sleep(self.settings.registry.checkpoint_interval_s)
            busy, frames, checkpointed = await services.registry.checkpoint()
            operator_log.event(Catalogue.CHECKPOINT, busy=busy, log=frames, checkpointed=checkpointed)

    async def _watchdog(self, services: Services, notifier: systemd.Notifier) -> None:
        await systemd.watchdog(notifier, self.settings.supervisor.watchdog_s, services.registry.healthy)


def status_line(services: Services) -> str:
    """Return systemd's STATUS: how many runs are in which state."""
    counts: dict[str, int] = {}
    for run in services.registry.live.values():
        counts[run.state] = counts.get(run.state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{len(services.registry.live)} live runs" + (f": {said}" if said else "")


def _log_ends(batch: Sequence[Committed]) -> None:
    for committed in batch:
        run = committed.run
        if run.is_final:
            operator_log.event(
                Catalogue.RUN_ENDED, run_id=run.run_id, attempt=run.attempt, seq=committed.seq, owner=run.owner,
                outcome=run.outcome, cause=(run.cause or {}).get("kind"),
            )  # fmt: skip


@contextlib.asynccontextmanager
async def _background(*works) -> AsyncIterator[None]:  # type: ignore[no-untyped-def]
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(settings: Settings, listening: socket.socket, clock: Clock) -> int:
    """Run one daemon on a socket that is already listening; return its exit code."""
    return await Service(settings, clock).run(listening)
