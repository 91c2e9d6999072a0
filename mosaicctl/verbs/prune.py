"""`prune`: delete ended runs, or list the runs that would be deleted."""

import sys
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.exits import DONE, WRONG_STATE, UsageError
from mosaicctl.render import clean, clock, columns, to_json
from mosaicctl.select import (
    label_filter,
    name_filter,
    outcome_filter,
    references,
    selector_argument,
    user_filter,
)
from mosaicctl.sizes import counted, size
from mosaicctl.values import duration
from mosaicd.protocol import Json
from mosaicd.protocol.errors import EXIT_CODES

_EPILOG = """\
With RUN, these runs are deleted; with options, all ended runs that match every option; with neither, the
runs that [retention] in mosaicd.toml would delete now. Directory, row and events are deleted. Live and
pinned runs stay. An ended run also stays if a live run refers to it (its origin, its checkpoint).

  mosaicctl prune --dry-run --older-than 30d
  mosaicctl prune --outcome cancelled -l sweep=7
  mosaicctl prune old-run 01K8
"""


def arguments(parser: Any) -> None:
    """Add the options of `prune`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="delete nothing; list the runs that would be deleted"
    )
    parser.add_argument(
        "--older-than",
        metavar="DURATION",
        type=duration,
        help="only runs that ended longer ago than this (0: all)",
    )
    outcome_filter(parser)
    name_filter(parser)
    label_filter(parser, "only runs with this label (repeatable)")
    user_filter(parser)


def execute(args: Any) -> int:
    """Prune the runs, or list them with --dry-run."""
    filters = _filters(args)
    if args.runs and filters:
        raise UsageError("RUN cannot be used together with options that select runs")
    with connect(args.socket) as client:
        if args.runs:
            filters["runs"] = references(client, args.runs)
        report = _prune_all(client, {**filters, "dry_run": args.dry_run})
    _print(args.output, report)
    refused = [kept for kept in report["kept"] if args.runs]
    for kept in refused:
        subject = "" if kept.get("error") == "not_found" else f"{kept['run_id']} is not pruned: "
        sys.stderr.write(f"mosaicctl: {subject}{clean(kept['why'])}\n")
    return EXIT_CODES.get(str(refused[0].get("error")), WRONG_STATE) if refused else DONE


def _filters(args: Any) -> Json:
    filters: Json = {}
    if args.older_than is not None:
        filters["older_than_s"] = args.older_than
    if args.outcome:
        filters["outcome"] = args.outcome
    if args.label:
        filters["label"] = dict(args.label)
    return filters | {name: getattr(args, name) for name in ("name", "user") if getattr(args, name)}


def _prune_all(client: Client, params: Json) -> Json:
    """Repeat the request until all matching runs are pruned; a dry run sends one request."""
    report: Json = client.call("run.prune", params, timeout_s=None)
    page = report
    while not (page["complete"] or params["dry_run"]) and page["runs"]:
        page = client.call("run.prune", params, timeout_s=None)
        report["runs"] += page["runs"]
        report |= {
            "count": report["count"] + page["count"], "bytes": report["bytes"] + page["bytes"],
            "complete": page["complete"], "kept": page["kept"],
        }  # fmt: skip
    return report


def _print(output: str, report: Json) -> None:
    runs = report["runs"]
    if output == "json":
        sys.stdout.write(to_json(report))
    elif output == "jsonl":
        sys.stdout.writelines(to_json(run, None) for run in runs)
    elif output == "name":
        sys.stdout.writelines(f"{run['run_id']}\n" for run in runs)
    else:
        sys.stdout.write(_table(report))


def _table(report: Json) -> str:
    rows = [
        [run["run_id"], run["name"], run["owner"], run["outcome"], clock(run["finished_at"]),
         size(run["bytes"]), run["why"]]
        for run in report["runs"]
    ]  # fmt: skip
    table = columns(["RUN", "NAME", "OWNER", "OUTCOME", "ENDED", "SIZE", "WHY"], rows) if rows else ""
    more = report["count"] - len(rows)
    lines = [f"... and {more} more\n"] if more > 0 else []
    verb = "would be pruned" if report["dry_run"] else "pruned"
    staying = [kept for kept in report["kept"] if kept.get("error") != "not_found"]
    kept = f"; {len(staying)} {'stays' if len(staying) == 1 else 'stay'}" if staying else ""
    summary = f"{counted(report['count'], 'run')} {verb}, {size(report['bytes'])}{kept}\n"
    return table + "".join(lines) + summary
