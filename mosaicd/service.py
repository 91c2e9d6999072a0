"""The service: builds all objects, connects them, and starts and stops them in order.

Start: answer worker.* -> open the registry -> reconcile from files -> carry out owed actions -> answer all
clients -> READY=1.  Stop: the reverse.  Note: a stop of the service stops no run; shims and workers stay.
"""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from mosaicd import crash_points, log
from mosaicd.broadcaster import Broadcaster
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.dispatch.dispatcher import Dispatcher
from mosaicd.dispatch.orders import Orders
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.host.auth import Auth
from mosaicd.host.lock import CannotServe, Locks
from mosaicd.host.reexec import Succession
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

REGISTRY_FILE = "registry.sqlite3"
#: The delay of systemd's STATUS after a change.
STATUS_DELAY_S = 0.2


class Service:
    """One daemon."""

    def __init__(self, settings: Settings, clock: Clock, succession: Succession | None = None) -> None:
        self._settings = settings
        self._succession = succession
        self._clock = clock
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, listening: socket.socket) -> int:
        """Serve until cancelled (a normal stop), or raise the error that the daemon must not survive."""
        notifier = Notifier(self._settings.supervisor)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(notifier.close)
            crash_points.reach("startup.listening")
            try:
                services = await self._build(stack)
            except (OSError, Unavailable) as error:  # a full disk, or a directory of another user
                raise CannotServe(f"cannot start in {self._settings.state_dir}: {error}") from error
            crash_points.reach("startup.loaded")
            server = Server(services)
            await server.start(listening)
            stack.callback(services.files.pool.shutdown, wait=False)  # after the streams that read
            stack.push_async_callback(server.close)
            stack.push_async_callback(services.discovery.close)
            quarantined_slots = self._quarantined_slots(services)
            await self._take_up(services, stack, quarantined_slots)
            server.open()
            crash_points.reach("startup.ready")
            services.registry.subscribe(_shown_soon(notifier, services))
            notifier.ready(status_line(services))
            waiting = services.scheduler.waiting
            log.event(Catalogue.DAEMON_READY, live=len(services.registry.live), waiting=waiting)
            stack.callback(server.stop_accepting)  # new clients wait for the next daemon, if
            stack.callback(self._say_leaving, notifier)  # systemd holds the socket
            gc.collect()
            gc.freeze()  # modules and services stay: later garbage collections skip them
            works = (
                self._maintain(services),
                services.retention.run(),
                self._shim_watch(services).run(),
                quarantined_slots.run(),
                TempDirs(services.registry, services.rundirs, services.launcher).run(),
                self._pulse(services, notifier.watchdog_s),
                notifier.watch(lambda: self._is_healthy(services, notifier.watchdog_s)),
            )
            if self._succession is not None:
                self._succession.on_asked = self._on_replaced
            async with _background(partial(self._say_ended, services), *works):
                await self._fatal
        return 0

    async def _build(self, stack: contextlib.AsyncExitStack) -> Services:
        settings, clock = self._settings, self._clock
        path = settings.state_dir / REGISTRY_FILE
        rundirs = RunDirs(settings.state_dir / "runs")
        registry = await open_registry(path, rundirs, settings, clock, self._on_fatal)
        stack.push_async_callback(registry.close)
        history = History(path, on_bad=registry.set_aside)
        stack.push_async_callback(history.close)
        auth = Auth.open(settings.state_dir)
        broadcaster = Broadcaster(registry, history, settings.watch)
        launcher = LauncherClient(
            settings.containment.mode,
            settings.soft_limit_descriptors,
            settings.timeouts.shim_silence_s,
            settings.crash_at,
        )
        shims = Shims(launcher, on_gone=lambda run_id: dispatcher.handle_gone_shim(run_id))
        orders = Orders(rundirs, auth, settings, settings.socket)
        scheduler = Scheduler(registry, settings, clock)
        dispatcher = Dispatcher(
            registry, scheduler, launcher, shims, rundirs, orders, settings, clock, self._on_fatal
        )
        return Services(
            settings=settings, clock=clock, registry=registry, history=history, rundirs=rundirs, auth=auth,
            broadcaster=broadcaster, launcher=launcher, shims=shims, dispatcher=dispatcher,
            scheduler=scheduler,
            discovery=Discovery(settings), started_mono=clock.mono(),
            retention=Retention(registry, history, rundirs, settings.retention, clock),
            succession=self._succession,
            warnings=health_warnings(registry), unconfirmed=set(registry.recovery.unconfirmed),
        )  # fmt: skip

    def _say_leaving(self, notifier: Notifier) -> None:
        if self._succession is not None and self._succession.is_asked:
            notifier.reloading(self._clock.mono())  # the process stays: the next READY=1 ends the reload
        else:
            notifier.stopping()

    def _on_replaced(self) -> None:
        log.event(Catalogue.DAEMON_STOPPING, reason="reexec")
        if not self._fatal.done():
            self._fatal.set_result(None)

    def _on_fatal(self, error: BaseException) -> None:
        log.event(Catalogue.FATAL_ERROR, error=error, why=repr(error))
        if not self._fatal.done():
            self._fatal.set_exception(error)

    def _say_ended(self, services: Services, work: "asyncio.Task[None]") -> None:
        """Report an internal error that ended a background task; requests are still answered."""
        error = None if work.cancelled() else work.exception()
        if error is not None and not self._fatal.done():
            name = getattr(work.get_coro(), "__qualname__", "a work")
            log.event(Catalogue.TASK_FAILED, error=error, task=name, why=repr(error))
            sentence = f"background task {name} failed and is off until the next start: {error!r}"
            services.warnings.append(log.with_code(Catalogue.TASK_FAILED, sentence))

    async def _take_up(
        self, services: Services, stack: contextlib.AsyncExitStack, quarantined_slots: QuarantinedSlots
    ) -> None:
        began = self._clock.mono()
        services.launcher.start()
        stack.callback(services.shims.close)
        stack.push_async_callback(services.launcher.close)
        stack.push_async_callback(
            services.dispatcher.close
        )  # carries out owed actions from the first event on
        services.registry.subscribe(services.auth.committed)
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

    async def _maintain(self, services: Services) -> None:
        """Checkpoint the registry from time to time."""
        while True:
            await asyncio.sleep(self._settings.registry.checkpoint_interval_s)
            try:
                await checkpoint(services)
            except Unavailable as error:  # a full disk: the log grows, and the next checkpoint may succeed
                log.event(Catalogue.CHECKPOINT_FAILED, why=error)

    def _shim_watch(self, services: Services) -> ShimWatch:
        silence_s, dispatcher = self._settings.timeouts.shim_silence_s, services.dispatcher
        return ShimWatch(services.registry, services.shims, silence_s, dispatcher.handle_silent_shim)

    def _quarantined_slots(self, services: Services) -> QuarantinedSlots:
        interval_s, scheduler = self._settings.timeouts.empty_retry_s, services.scheduler
        return QuarantinedSlots(services.registry, services.rundirs, services.launcher, scheduler, interval_s)

    async def _pulse(self, services: Services, watchdog_s: float | None) -> None:
        """Flush the writer regularly, so that the watchdog detects a writer that hangs."""
        while watchdog_s is not None:
            await services.registry.flush()
            await asyncio.sleep(watchdog_s / 4)

    def _is_healthy(self, services: Services, watchdog_s: float | None) -> bool:
        return watchdog_s is None or self._clock.mono() - services.registry.healthy() < watchdog_s


def _shown_soon(notifier: Notifier, services: Services) -> Callable[[object], None]:
    """Return a subscriber that updates STATUS after a short delay, because counting all live runs is slow."""
    timer: asyncio.TimerHandle | None = None

    def show() -> None:
        nonlocal timer
        timer = None
        notifier.status(status_line(services))

    def changed(_: object) -> None:
        nonlocal timer
        if timer is None:
            timer = asyncio.get_running_loop().call_later(STATUS_DELAY_S, show)

    return changed


async def checkpoint(services: Services) -> None:
    """Checkpoint the registry, log SQLite's answer and keep it for daemon.health."""
    busy, frames, checkpointed = await services.registry.checkpoint()
    services.wal = {"at": services.clock.wall(), "busy": busy, "log": frames, "checkpointed": checkpointed}
    log.event(Catalogue.WAL_CHECKPOINTED, busy=busy, log_pages=frames, checkpointed=checkpointed)


def status_line(services: Services) -> str:
    """Return systemd's STATUS: the number of live runs in each state."""
    counts: dict[str, int] = {}
    for run in services.registry.live.values():
        counts[run.state] = counts.get(run.state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    noun = "run" if len(services.registry.live) == 1 else "runs"
    return f"{len(services.registry.live)} live {noun}" + (f": {said}" if said else "")


@contextlib.asynccontextmanager
async def _background(
    ended: Callable[["asyncio.Task[None]"], None], *works: Coroutine[Any, Any, None]
) -> AsyncIterator[None]:
    """Run `works` as background tasks; call `ended` with each task that ends."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(
    settings: Settings, listening: socket.socket, locks: Locks, clock: Clock,
    succession: Succession | None = None,
) -> int:  # fmt: skip
    """Run one daemon on a listening socket, under `locks` that the caller holds; return its exit code."""
    return await Service(settings, clock, succession).run(listening)
