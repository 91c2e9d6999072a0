"""Discovery of the workers in this interpreter's environment (entry-point group `mosaic.workers`).

This file uses only the standard library and no other module of this package, so it can be run by its path in
an environment without this package: `PYTHON .../mosaic_worker/discovery.py --json`.

Note: no worker is imported in this process.  Each worker is loaded in a child process with a time limit, so
a worker that raises, hangs, exits, prints or crashes is listed with its error and does not affect the others.

The value of an entry point is `package:function`, and the function returns (metadata, capabilities).  The
package may also have `get_config_schema()` (a JSON Schema), `WORKER_MODULE` (the module for `python -m`;
default: the package if it has `__main__`, else `package.cli`) and `ACCEPTS_WORKER_ID = True` (its command
line accepts `--worker-id`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

WORKER_ENTRY_POINT_GROUP = "mosaic.workers"
WORKER_DISCOVERY_TIMEOUT_S = 10.0
PARALLEL = 4


@dataclass
class DiscoveredWorker:
    """One entry point; `error` is the reason why a broken worker cannot be used, or None."""

    kind: str
    value: str
    distribution: str
    distribution_version: str
    module: str | None = None
    metadata: dict[str, Any] | None = None
    capabilities: dict[str, Any] | None = None
    config_schema: dict[str, Any] | None = None
    accepts_worker_id: bool = False
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


class WorkerDiscovery:
    """Discovers the workers at the first call and caches them."""

    def __init__(self, timeout_s: float = WORKER_DISCOVERY_TIMEOUT_S) -> None:
        """Give each worker `timeout_s` to be imported."""
        self._timeout_s = timeout_s
        self._found: list[DiscoveredWorker] | None = None

    def discover(self, refresh: bool = False) -> list[DiscoveredWorker]:
        """Return all workers, broken ones with their error, sorted by kind."""
        if self._found is None or refresh:
            self._found = discover(self._timeout_s)
        return self._found

    def get(self, kind: str) -> DiscoveredWorker | None:
        """Return the usable worker of that kind, or None."""
        return next(
            (worker for worker in self.discover() if worker.kind == kind and worker.error is None), None
        )


def discover(timeout_s: float = WORKER_DISCOVERY_TIMEOUT_S) -> list[DiscoveredWorker]:
    """Return all workers of this environment, each loaded in its own child process."""
    workers = sorted(_entry_points(), key=lambda worker: (worker.kind, worker.distribution))
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        list(pool.map(lambda worker: _load_in_child(worker, timeout_s), workers))
    seen: set[str] = set()
    for worker in workers:
        if worker.kind in seen and worker.error is None:
            worker.error = f"another distribution also has a worker {worker.kind!r}"
        seen.add(worker.kind)
    return workers


def _entry_points() -> Iterable[DiscoveredWorker]:
    """Yield the entry points of all distributions; the first distribution of a name on sys.path counts."""
    from importlib.metadata import distributions

    seen = set()
    for distribution in distributions():
        name = distribution.metadata["Name"] or "?"
        key = name.lower().replace("_", "-").replace(".", "-")
        if key in seen:  # shadowed by an earlier directory of sys.path
            continue
        seen.add(key)
        for point in distribution.entry_points:
            if point.group == WORKER_ENTRY_POINT_GROUP:
                yield DiscoveredWorker(point.name, point.value, name, distribution.version)


def _load_in_child(worker: DiscoveredWorker, timeout_s: float) -> None:
    """Load `worker` in a child process and fill in its fields from the answer."""
    request = json.dumps({"path": sys.path, "value": worker.value})
    command = [
        sys.executable,
        *(["-I"] if sys.flags.isolated else []),
        os.path.abspath(__file__),
        "--load",
        request,
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            worker.error = f"not loaded within {timeout_s:g} s"
            return
    try:
        answer = json.loads(out)
    except ValueError:
        worker.error = _failure_text(child.returncode, err)
        return
    for key, value in answer.items():
        setattr(worker, key, value)


def _failure_text(code: int, err: bytes) -> str:
    """Return the last line of stderr with the exit code or signal of the child process."""
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{lines[-1][:500]} ({how})" if lines else f"no answer ({how})"


def _print_description(request: str) -> int:
    """Import one worker and print its description on the real stdout; runs in the child process."""
    answer_fd = os.dup(1)
    os.dup2(2, 1)  # output of the worker during its import must not mix with the answer
    order = json.loads(request)
    sys.path[:] = order["path"]
    text = json.dumps(_load_worker(order["value"]))
    with os.fdopen(answer_fd, "w") as file:
        file.write(text)
    return 0


def _load_worker(value: str) -> dict[str, Any]:
    """Import the worker of an entry point and return its description."""
    from importlib import import_module

    package_name, _, attributes = value.partition(":")
    package = import_module(package_name.strip())
    function: Any = package
    for attribute in attributes.split("[")[0].strip().split("."):
        function = getattr(function, attribute)
    result = function()
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{value} must return (metadata, capabilities)")
    metadata, capabilities = (_to_json(_public_fields(part)) for part in result)
    if not capabilities.get("worker_type"):
        raise ValueError(f"{value}: capabilities have no worker_type")
    schema = getattr(package, "get_config_schema", None)
    return {
        "module": getattr(package, "WORKER_MODULE", None) or _runnable_module(package_name.strip()),
        "metadata": metadata,
        "capabilities": capabilities,
        "config_schema": _to_json(schema()) if callable(schema) else None,
        "accepts_worker_id": getattr(package, "ACCEPTS_WORKER_ID", False) is True,
    }


def _runnable_module(package_name: str) -> str | None:
    """Return the module of the worker for `python -m`; None if there is none."""
    from importlib.util import find_spec

    top = package_name.split(".")[0]
    for package in dict.fromkeys((package_name, top)):
        spec = find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            continue
        if find_spec(f"{package}.__main__") is not None:
            return package
        if find_spec(f"{package}.cli") is not None:
            return f"{package}.cli"
    return None


def _public_fields(record: Any) -> dict[str, Any]:
    """Return the public fields of a dataclass, a mapping or any other object."""
    if isinstance(record, Mapping):
        return dict(record)
    names = getattr(record, "__dataclass_fields__", None) or getattr(record, "__dict__", {})
    return {name: getattr(record, name) for name in names if not name.startswith("_")}


def _to_json(value: Any) -> Any:
    """Return a value as JSON at every depth; a set becomes a sorted list, any other object its str."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(item) for item in value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _table(workers: list[DiscoveredWorker]) -> str:
    lines = []
    for worker in workers:
        state = worker.error or ((worker.metadata or {}).get("description") or "")
        lines.append(f"{worker.kind:16} {worker.distribution_version:10} {worker.module or '-':24} {state}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the workers of this environment; return 0 also if some are broken."""
    parser = argparse.ArgumentParser(
        prog="mosaic_worker.discovery", description="List the installed MOSAIC workers."
    )
    parser.add_argument("--json", action="store_true", help='print {"python", "workers": [...]} as one line')
    parser.add_argument(
        "--timeout-s",
        metavar="SECONDS",
        type=float,
        default=WORKER_DISCOVERY_TIMEOUT_S,
        help="time limit for each worker, in seconds",
    )
    parser.add_argument("--load", metavar="REQUEST", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.load is not None:
        return _print_description(args.load)
    workers = discover(args.timeout_s)
    if args.json:
        print(json.dumps({"python": sys.executable, "workers": [worker.to_dict() for worker in workers]}))
    elif workers:
        print(_table(workers))
    else:
        print("no worker is installed in this environment", file=sys.stderr)
    return 0


if __name__ == "__main__":
    if not __package__:  # run by its path: this directory must not shadow other modules
        sys.path[:] = [
            entry
            for entry in sys.path
            if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))
        ]
    sys.exit(main())
