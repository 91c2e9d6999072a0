"""The parts of the daemon that a handler may use."""

import asyncio
from dataclasses import dataclass, field

from mosaicd.broadcaster import Broadcaster
from mosaicd.clock import Clock
from mosaicd.config import Settings
from mosaicd.dispatch.dispatcher import Dispatcher
from mosaicd.dispatch.scheduler import Scheduler
from mosaicd.host.auth import Auth
from mosaicd.host.reexec import Succession
from mosaicd.rpc.files import Files
from mosaicd.rpc.runs import Runs
from mosaicd.rpc.uploads import Uploads
from mosaicd.rundirs.directories import RunDirs
from mosaicd.rundirs.uploads import UploadDir
from mosaicd.shims.launcher_client import LauncherClient
from mosaicd.shims.shims import Shims
from mosaicd.store.history import History
from mosaicd.store.registry import Registry
from mosaicd.upkeep.discovery import Discovery
from mosaicd.upkeep.retention import Retention
from mosaicd.upkeep.wal_checkpoints import WalCheckpoints


@dataclass
class Services:
    """Everything that a handler may use.

    `ready` is set when reconcile has ended.  daemon.health shows `quarantine` and `warnings`.
    """

    settings: Settings
    clock: Clock
    registry: Registry
    history: History
    dispatcher: Dispatcher
    scheduler: Scheduler
    broadcaster: Broadcaster
    launcher: LauncherClient
    shims: Shims
    auth: Auth
    discovery: Discovery
    rundirs: RunDirs
    retention: Retention
    wal: WalCheckpoints
    started_mono: float
    quarantine: dict[str, str] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    warnings: list[str] = field(default_factory=list)
    succession: Succession | None = None
    #: Recovered live runs whose shims have not registered since; the tree of such a run may be frozen.
    unconfirmed: set[str] = field(default_factory=set)
    files: Files = field(init=False)
    runs: Runs = field(init=False)
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        self.files = Files(self.rundirs)
        uploads = UploadDir(self.settings.state_dir / "uploads")
        uploads.clear()
        self.uploads = Uploads(uploads, self.settings.limits)
        self.runs = Runs(self.registry, self.history, self.dispatcher, self.rundirs)
