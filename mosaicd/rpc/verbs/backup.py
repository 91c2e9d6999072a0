"""daemon.backup: write a copy of the registry while it is in use.

Input: path (absolute), force (replace a regular file).  Output: what is in the copy, and seconds.
Caveats: the daemon writes the file, as its own user, 0600.  Not inside the state directory, but for its
`backups`: a slip must never hit the registry itself.  Run directories are files and are not in it.
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

#: The one directory of the state directory that copies may be written to.
OWN = "backups"


async def handle(services: Services, caller: Caller, params: Backup) -> Json:
    """Write the copy and say what is in it."""
    target = _target(params.path, services.settings.state_dir)
    cancelled = threading.Event()
    began = services.clock.mono()

    def write() -> Copy:
        return write_copy(services.registry.path, target, replace=params.force, is_cancelled=cancelled.is_set)

    try:
        made = await asyncio.to_thread(write)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    except Cancelled:
        raise Conflict("the copy was cancelled") from None
    return {
        "path": made.path, "bytes": made.bytes, "runs": made.runs, "last_seq": made.last_seq,
        "epoch": made.epoch, "seconds": round(services.clock.mono() - began, 3),
    }  # fmt: skip


def _target(text: str, state_dir: Path) -> Path:
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
    own = state_dir / OWN
    if real.is_relative_to(state_dir) and real.parent != own:
        raise invalid("path", f"must not lie in the state directory, but for {own}")
    if real.parent == own:
        own.mkdir(mode=0o700, exist_ok=True)
    return real
