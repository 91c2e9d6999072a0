"""`workers`: the installed workers, their abilities, and the values of their configs."""

import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.render import clean, columns, facts, to_json
from mosaicctl.values import nonempty
from mosaicctl.workerconfig import find_worker
from mosaicd.protocol import Json

_EPILOG = """\
With KIND, prints everything about this worker, and the values that --set can change.

  mosaicctl workers
  mosaicctl workers tabular
  mosaicctl submit --worker tabular --set env_id=Taxi-v3
"""


def arguments(parser: Any) -> None:
    """Add the options of `workers`."""
    parser.epilog = _EPILOG
    parser.add_argument("kind", metavar="KIND", type=nonempty, nargs="?", help="only this worker, in full")
    parser.add_argument("--refresh", action="store_true", help="ask the workers' interpreters again")


def execute(args: Any) -> int:
    """Print the workers that the daemon has found."""
    with connect(args.socket) as client:
        workers = client.call("worker.list", {"refresh": True} if args.refresh else {})["workers"]
    if args.kind is not None:
        workers = [find_worker(workers, args.kind)]
    if args.output == "json":
        sys.stdout.write(to_json(workers[0] if args.kind is not None else workers))
    elif args.output == "jsonl":
        sys.stdout.writelines(to_json(worker, None) for worker in workers)
    elif args.output == "name":
        sys.stdout.writelines(f"{worker['kind']}\n" for worker in workers)
    elif args.kind is not None:
        sys.stdout.write(describe(workers[0]))
    elif workers:
        sys.stdout.write(table(workers))
    else:
        sys.stderr.write("No worker is installed; see mosaic-worker(7).\n")
    return 0


def table(workers: list[Json]) -> str:
    """Return a table with one line for each worker; a broken worker has its error."""
    rows = []
    for worker in workers:
        metadata, capabilities = worker.get("metadata") or {}, worker.get("capabilities") or {}
        about = worker.get("error") or metadata.get("description") or ""
        rows.append(
            [
                str(worker["kind"]),
                str(metadata.get("version") or "-"),
                yes_or_no(capabilities.get("supports_pause_resume")),
                yes_or_no(capabilities.get("supports_checkpointing")),
                yes_or_no(capabilities.get("requires_gpu")),
                f"cannot be used: {about}" if worker.get("error") else about,
            ]
        )
    return columns(["KIND", "VERSION", "PAUSES", "CHECKPOINTS", "NEEDS GPU", "ABOUT"], rows)


def describe(worker: Json) -> str:
    """Return everything known about one worker."""
    metadata, capabilities = worker.get("metadata") or {}, worker.get("capabilities") or {}
    text = facts(
        [
            ("kind", worker["kind"]),
            *((name, value) for name, value in metadata.items() if value),
            ("module", worker.get("module")),
            ("interpreter", worker.get("python")),
            *((name.replace("_", " "), _value_text(value)) for name, value in capabilities.items()),
        ]
    )
    return text + _options_table(worker.get("config_schema"))


def yes_or_no(flag: object) -> str:
    """Return `yes`, `no`, or `-` for None."""
    return "-" if flag is None else "yes" if flag else "no"


def _value_text(value: object) -> str | None:
    """Return a capability as text; None if it is unknown."""
    if isinstance(value, bool):
        return yes_or_no(value)
    if isinstance(value, list | tuple):
        return " ".join(clean(item) for item in value)
    return None if value is None else str(value)


def _type_text(found: object) -> str:
    """Return the type of a schema property; several types as `integer or null`."""
    return " or ".join(map(str, found)) if isinstance(found, list) else str(found or "-")


def _options_table(schema: Json | None) -> str:
    """Return the properties of a config schema, one a line: name, type, default, description."""
    properties = (schema or {}).get("properties") or {}
    rows = [
        [
            name,
            _type_text(rule.get("type")),
            to_json(rule["default"], None).strip() if "default" in rule else "-",
            str(rule.get("description") or " ".join(str(choice) for choice in rule.get("enum") or [])),
        ]
        for name, rule in properties.items()
        if isinstance(rule, dict)
    ]
    return "\n" + columns(["--set", "TYPE", "DEFAULT", "ABOUT"], rows) if rows else ""
