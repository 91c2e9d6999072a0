"""The service: builds all objects, connects them, and starts and stops them in order.

Start: open the registry -> answer shims -> reconcile from files -> carry out owed actions -> answer all
clients -> READY=1.  Stop: the reverse.  Note: a stop of the service stops no run; shims and workers stay.
"""

import asyncio
import contextlib
import gc
import socket

from mosaicd import crash_points, log
from mosaicd.broadcaster import Broadcaster
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.dispatch.dispatcher import Dispatcher
from mosaicd.dispatch.orders import OrderBuilder
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.host.auth import Auth
from mosaicd.host.background import background
from mosaicd.host.lock import CannotServe
from mosaicd.host.reexec import Succession
from mosaicd.host.supervision import Supervision
from mosaicd.host.systemd import Notifier
from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Unavailable
from mosaicd.recovery.quarantined_slots import QuarantinedSlots
from mosaicd.recovery.reconcile import reconcile
from mosaicd.recovery.recover_registry import health_warnings, open_registry
from mosaicd.rpc.context import Services
from mosaicd.rpc.server import Server
from mosaicd.rundirs.directories import RunDirs
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.shims.shim_watch import ShimWatch
from mosaicd.shims.shims import Shims
from mosaicd.store.history import History
from mosaicd.upkeep.discovery import Discovery
from mosaicd.upkeep.log_commits import log_commits
from mosaicd.upkeep.retention import Retention
from mosaicd.upkeep.temp_dirs import TempDirs
from mosaicd.upkeep.wal_checkpoints import WalCheckpoints

REGISTRY_FILE = "registry.sqlite3"


class Service:
    """One daemon."""

    def __init__(self, settings: Settings, clock: Clock, succession: Succession | None = None) -> None:
        self._settings = settings
        self._succession = succession
        self._clock = clock
        #: Done when a reexec is requested; a fatal error ends it with that error.
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, listening: socket.socket) -> int:
        """Serve until cancelled (a stop by a signal), or until a reexec is requested: then return 0.

        A fatal error ends the service and is raised.
        """
        notifier = Notifier(self._settings.supervisor)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(notifier.close)
            crash_points.reach("startup.listening")
            try:
                services = await self._build(stack)
            except (OSError, Unavailable) as error:  # a full disk, or a directory of another user
                raise CannotServe(f"cannot start in {self._settings.state_dir}: {error}") from error
            crash_points.reach("startup.loaded")
            server = await self._listen(services, listening, stack)
            quarantined_slots = self._quarantined_slots(services)
            await self._recover(services, stack, quarantined_slots)
            server.open()
            crash_points.reach("startup.ready")
            supervision = Supervision(notifier, services.registry, self._clock)
            supervision.begin()
            waiting = services.scheduler.waiting
            log.event(Catalogue.DAEMON_READY, live=len(services.registry.live), waiting=waiting)
            # Last in, first out: notify, then stop accepting.  If the socket outlives the service (systemd's,
            # or at a reexec), new clients wait in its queue for the next daemon.
            stack.callback(server.stop_accepting)
            stack.callback(self._notify_stop, notifier)
            gc.collect()
            gc.freeze()  # modules and services stay: later garbage collections skip them
            works = (
                services.wal.run(),
                services.retention.run(),
                self._shim_watch(services).run(),
                quarantined_slots.run(),
                TempDirs(services.registry, services.rundirs, services.launcher).run(),
                supervision.exercise_writer(),
                supervision.feed_watchdog(),
            )
            if self._succession is not None:
                self._succession.on_asked = self._end_for_successor
            async with background(services.warnings.append, self._end.done, *works):
                await self._end
        return 0

    async def _listen(
        self, services: Services, listening: socket.socket, stack: contextlib.AsyncExitStack
    ) -> Server:
        server = Server(services)
        await server.start(listening)
        stack.callback(services.files.pool.shutdown, wait=False)  # after the streams that read
        stack.push_async_callback(server.close)
        stack.push_async_callback(services.discovery.close)
        return server

    async def _build(self, stack: contextlib.AsyncExitStack) -> Services:
        settings, clock = self._settings, self._clock
        path = settings.state_dir / REGISTRY_FILE
        rundirs = RunDirs(settings.state_dir / "runs")
        registry = await open_registry(path, rundirs, settings, clock, self._on_fatal)
        stack.push_async_callback(registry.close)
        history = History(path, on_bad=registry.quarantine_ended)
        stack.push_async_callback(history.close)
        auth = Auth.open(settings.state_dir)
        broadcaster = Broadcaster(registry, history, settings.watch)
        launcher = LauncherClient(
            settings.containment.mode,
            settings.soft_limit_descriptors,
            settings.timeouts.shim_silence_s,
            settings.crash_at,
        )
        shims = Shims(launcher, on_ended=lambda run_id: dispatcher.handle_ended_shim(run_id))
        order_builder = OrderBuilder(rundirs, auth, settings, settings.socket)
        scheduler = Scheduler(registry, settings, clock)
        dispatcher = Dispatcher(
            registry, scheduler, launcher, shims, rundirs, order_builder, settings, clock, self._on_fatal
        )
        return Services(
            settings=settings, clock=clock, registry=registry, history=history, rundirs=rundirs, auth=auth,
            broadcaster=broadcaster, launcher=launcher, shims=shims, dispatcher=dispatcher,
            scheduler=scheduler,
            discovery=Discovery(settings), started_mono=clock.mono(),
            retention=Retention(registry, history, rundirs, settings.retention, clock),
            wal=WalCheckpoints(registry, clock, settings.registry.checkpoint_interval_s),
            succession=self._succession,
            warnings=health_warnings(registry), unconfirmed=set(registry.recovery.unconfirmed),
        )  # fmt: skip

    def _notify_stop(self, notifier: Notifier) -> None:
        if self._succession is not None and self._succession.is_asked:
            notifier.reloading(self._clock.mono())  # the process stays: the next READY=1 ends the reload
        else:
            notifier.stopping()

    def _end_for_successor(self) -> None:
        log.event(Catalogue.DAEMON_STOPPING, reason="reexec")
        if not self._end.done():
            self._end.set_result(None)

    def _on_fatal(self, error: BaseException) -> None:
        log.event(Catalogue.FATAL_ERROR, error=error, why=repr(error))
        if not self._end.done():
            self._end.set_exception(error)

    async def _recover(
        self, services: Services, stack: contextlib.AsyncExitStack, quarantined_slots: QuarantinedSlots
    ) -> None:
        """Record what live runs missed while no daemon ran, and carry out what they are owed."""
        began = self._clock.mono()
        services.launcher.start()
        stack.callback(services.shims.close)
        stack.push_async_callback(services.launcher.close)
        stack.push_async_callback(services.dispatcher.close)  # carries out actions from the first event on
        services.registry.subscribe(services.auth.drop_tokens)
        services.registry.subscribe(log_commits)
        report = await reconcile(
            services.registry, services.history, services.rundirs, services.shims,
            self._clock, self._settings.timeouts.reconcile_s,
        )  # fmt: skip
        log.event(Catalogue.RECONCILED, error=None, seconds=self._clock.mono() - began, **report.counts())
        crash_points.reach("startup.reconciled")
        services.quarantine.update(report.contradicted)
        quarantined_slots.reserve()
        services.dispatcher.start()

    def _shim_watch(self, services: Services) -> ShimWatch:
        silence_s, dispatcher = self._settings.timeouts.shim_silence_s, services.dispatcher
        return ShimWatch(services.registry, services.shims, silence_s, dispatcher.handle_silent_shim)

    def _quarantined_slots(self, services: Services) -> QuarantinedSlots:
        interval_s, scheduler = self._settings.timeouts.empty_retry_s, services.scheduler
        return QuarantinedSlots(services.registry, services.rundirs, services.launcher, scheduler, interval_s)


async def run(
    settings: Settings, listening: socket.socket, clock: Clock, succession: Succession | None = None
) -> int:
    """Run one daemon on a listening socket, under locks that the caller holds; return its exit code."""
    return await Service(settings, clock, succession).run(listening)
