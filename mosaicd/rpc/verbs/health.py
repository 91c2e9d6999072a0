"""daemon.health: the state of the daemon.

Input: nothing.  Output: pid, version, paths, runs by state, slots, registry, quarantine, warnings.
Caveats: also answered while the daemon starts; `ready` is then false.
"""

import os

from mosaicd import __version__, log
from mosaicd.log import Catalogue
from mosaicd.protocol import PROTOCOL_VERSION, Json
from mosaicd.protocol.messages import NoParams
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services


async def handle(services: Services, caller: Caller, params: NoParams) -> Json:
    """Return the report."""
    settings, registry = services.settings, services.registry
    capacity = services.scheduler.capacity()
    return {
        "pid": os.getpid(),
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
        "ready": services.ready.is_set(),
        "draining": False,  # a daemon that drains answers every request with that error
        "uptime_s": round(services.clock.mono() - services.started_mono, 3),
        "socket": str(settings.socket),
        "state_dir": str(settings.state_dir),
        "epoch": registry.epoch,
        "last_seq": services.broadcaster.last_seq,
        "counts": await services.history.counts(),
        "cpus": {"total": capacity.cpus_total, "free": capacity.cpus_free},
        "gpus": {"total": capacity.gpu_slots_total, "free": len(capacity.gpus_free)},
        "containment": _containment(services),
        "wal": services.wal.last,
        "writes": registry.write_times(),
        "watchers": services.broadcaster.watchers,
        "quarantine": _quarantine(services),
        "warnings": [
            *services.warnings,
            *_withheld(services),
            *_start_error(services),
        ],
    }


def _containment(services: Services) -> Json:
    """Return what the launcher has found, without the limit that the settings turn off."""
    found = services.launcher.containment
    if services.settings.containment.memory == "off" and "enforces" in found:
        return {**found, "enforces": [limit for limit in found["enforces"] if limit != "memory"]}
    return found


def _quarantine(services: Services) -> list[Json]:
    """Return the quarantined runs: rows that are not valid, and runs whose files contradict their row."""
    contradictory = [{"run_id": run_id, "why": why} for run_id, why in services.quarantine.items()]
    return [*services.registry.quarantine, *contradictory][:200]


def _withheld(services: Services) -> list[str]:
    """Return a warning for each quarantined run whose slots stay reserved."""
    runs = services.scheduler.withheld.values()
    return [log.with_code(Catalogue.SLOTS_WITHHELD, withheld.summary()) for withheld in runs]


def _start_error(services: Services) -> list[str]:
    """Return a warning with the reason while no launcher can be started."""
    error = services.launcher.start_error
    return [] if error is None else [log.with_code(Catalogue.LAUNCHER_NOT_STARTED, error)]
