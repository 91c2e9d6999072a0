"""The TrainRunConfig for `--worker KIND --set K=V`."""

from collections.abc import Callable
from typing import Any

from mosaicctl.client import Client
from mosaicctl.configfile import assign
from mosaicctl.exits import UsageError
from mosaicd.protocol import Json


def train_run_config(get_client: Callable[[], Client], args: Any) -> Json:
    """Return the TrainRunConfig for the installed worker `args.worker` (submit and run with --worker).

    `get_client` returns the connection to the daemon, which knows the workers.
    Note: the config has no memory_mb.  A worker's estimated_memory_mb is a guess about all its runs, and
    memory_mb is a limit.
    Raises UsageError if no worker has this name, or if it cannot be used.
    """
    worker_config: Json = {}
    assign(worker_config, args.set)
    worker = find_worker(get_client().call("worker.list", {})["workers"], args.worker)
    capabilities = worker.get("capabilities") or {}
    gpus = args.gpus if args.gpus is not None else 1 if capabilities.get("requires_gpu") else 0
    return {
        "run_name": args.name or default_name(args.worker, worker_config),
        "entry_point": worker["python"],
        "arguments": ["-m", worker["module"]],
        "environment": {},
        "resources": {
            "cpus": args.cpus or _at_least(capabilities.get("cpu_cores"), 1),
            "gpus": {"requested": gpus, "mandatory": bool(capabilities.get("requires_gpu"))},
        },
        "artifacts": {},
        "metadata": {
            "worker": {
                "worker_id": args.worker,
                "kind": args.worker,
                "module": worker["module"],
                "python": worker["python"],
                "config": worker_config,
            }
        },
    }


def find_worker(workers: list[Json], kind: str) -> Json:
    """Return the worker of this kind; raise UsageError if it is unknown (with the known kinds) or broken."""
    for worker in workers:
        if worker["kind"] == kind:
            if worker.get("error"):
                raise UsageError(f"worker {kind} cannot be used: {worker['error']}")
            return worker
    known = ", ".join(sorted(worker["kind"] for worker in workers))
    if not known:
        raise UsageError(f"there is no worker {kind}: no worker is installed; see mosaic-worker(7)")
    raise UsageError(f"there is no worker {kind}; installed: {known}")


def default_name(kind: str, config: Json) -> str:
    """Return `KIND-ENVIRONMENT` if the config has an env_id, else the kind."""
    environment = config.get("env_id")
    return f"{kind}-{environment}"[:120] if isinstance(environment, str) and environment else kind


def _at_least(value: object, floor: int) -> int:
    """Return `value` as an integer of at least `floor`; `floor` if it is not a number."""
    return max(floor, int(value)) if isinstance(value, int | float) else floor
