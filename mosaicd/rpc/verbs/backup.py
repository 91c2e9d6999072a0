"""daemon.backup: write a copy of the registry while it is in use.

Input: path (absolute), force (replace a regular file).  Output: what is in the copy, and seconds.
Caveats: the daemon writes the file as its own user, mode 0600.  In the state directory, only `backups` is
allowed, so that a mistake never replaces the registry.  The copy has no run directories.
"""

import asyncio
import os
import threading
from pathlib import Path

from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict
from mosaicd.protocol.faults import invalid
from mosaicd.protocol.messages import Backup
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.store.backup import Cancelled, Copy, write_copy

#: The only directory in the state directory that a copy may be written to.
BACKUPS = "backups"


async def handle(services: Services, caller: Caller, params: Backup) -> Json:
    """Write the copy and return its contents in numbers."""
    target = _target(params.path, services.settings.state_dir)
    cancelled = threading.Event()
    began = services.clock.mono()

    def write() -> Copy:
        return write_copy(services.registry.path, target, replace=params.force, is_cancelled=cancelled.is_set)

    try:
        copy = await asyncio.to_thread(write)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    except Cancelled:
        raise Conflict("the copy was cancelled") from None
    return {
        "path": copy.path, "bytes": copy.bytes, "runs": copy.runs, "last_seq": copy.last_seq,
        "epoch": copy.epoch, "seconds": round(services.clock.mono() - began, 3),
    }  # fmt: skip


def _target(text: str, state_dir: Path) -> Path:
    """Return the path of the copy without symbolic links; raise InvalidParams if it is not allowed."""
    path = Path(text)
    rule = None
    if not path.is_absolute() or "\0" in text:
        rule = "must be an absolute path"
    elif path.name in ("", ".", "..") or text.endswith("/"):
        rule = "must name a file"
    if rule is not None:
        raise invalid("path", rule)
    real = Path(os.path.realpath(path.parent)) / path.name
    state_dir = Path(os.path.realpath(state_dir))
    backups = state_dir / BACKUPS
    if real.is_relative_to(state_dir) and real.parent != backups:
        raise invalid("path", f"must not be in the state directory, except in {backups}")
    if real.parent == backups:
        backups.mkdir(mode=0o700, exist_ok=True)
    return real
