"""`prune`: delete ended runs, or list the runs that would be deleted."""

import sys
import time
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.exits import DONE, FAILED, WRONG_STATE, UsageError
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

On a terminal, prune lists the runs and their bytes and asks first. Without a terminal it needs --yes.

  mosaicctl prune --dry-run --older-than 30d
  mosaicctl prune --outcome cancelled -l sweep=7
  mosaicctl prune old-run 01K8
  mosaicctl prune --yes --older-than 30d
"""


def arguments(parser: Any) -> None:
    """Add the options of `prune`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="delete nothing; list the runs that would be deleted"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="delete without a question")
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
    """Prune the runs after a question or with --yes, or list them with --dry-run."""
    filters = _filters(args)
    if args.runs and filters:
        raise UsageError("RUN cannot be used together with options that select runs")
    with connect(args.socket) as client:
        if args.runs:
            filters["runs"] = references(client, args.runs)
        planned_at = time.monotonic()
        plan: Json = client.call("run.prune", {**filters, "dry_run": True}, timeout_s=None)
        if args.dry_run:
            report = plan
        elif not plan["count"] and args.runs:
            report = {**plan, "dry_run": False}
        elif _is_confirmed(args, plan):
            report = _prune_all(client, filters, planned_at) if plan["count"] else {**plan, "dry_run": False}
        else:
            sys.stderr.write("mosaicctl: no run was pruned\n")
            return FAILED
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


def _is_confirmed(args: Any, plan: Json) -> bool:
    """List the runs to prune; with --yes return True, on a terminal the user's answer.

    Raises UsageError if there is no terminal and no --yes, also if no run matches: a script that forgot
    --yes does not work until the first run is old enough.
    """
    question = f"{counted(plan['count'], 'run')} and free {size(plan['bytes'])}"
    if args.yes:
        if args.output == "table":
            sys.stdout.write(_list(plan))
            sys.stdout.flush()
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"there is no terminal to ask on; give --yes to prune {question}, or --dry-run to list the runs"
        )
    if not plan["count"]:
        return True
    sys.stderr.write(f"{_list(plan)}Prune {question}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _prune_all(client: Client, filters: Json, planned_at: float) -> Json:
    """Repeat the request until all matching runs are pruned; return the sum of the reports.

    Note: a run that ended after the plan was made (monotonic time `planned_at`) is not in the list that the
    user has seen.  So filters select only runs that had ended by then.
    """
    report: Json = {"runs": [], "count": 0, "bytes": 0}
    while True:
        params = {**filters, "dry_run": False}
        if "runs" in filters:
            pruned = {run["run_id"] for run in report["runs"]}
            params["runs"] = [reference for reference in filters["runs"] if reference not in pruned]
        elif filters:
            params["older_than_s"] = filters.get("older_than_s", 0.0) + time.monotonic() - planned_at
        page = client.call("run.prune", params, timeout_s=None)
        report = {
            **page, "runs": report["runs"] + page["runs"], "count": report["count"] + page["count"],
            "bytes": report["bytes"] + page["bytes"],
        }  # fmt: skip
        if page["complete"] or not page["runs"]:
            return report


def _print(output: str, report: Json) -> None:
    """Print the report; as a table, the runs of a dry run and the sum.

    The runs of a real prune were listed before.
    """
    runs = report["runs"]
    if output == "json":
        sys.stdout.write(to_json(report))
    elif output == "jsonl":
        sys.stdout.writelines(to_json(run, None) for run in runs)
    elif output == "name":
        sys.stdout.writelines(f"{run['run_id']}\n" for run in runs)
    else:
        sys.stdout.write((_list(report) if report["dry_run"] else "") + _summary(report))


def _list(report: Json) -> str:
    rows = [
        [run["run_id"], run["name"], run["owner"], run["outcome"], clock(run["finished_at"]),
         size(run["bytes"]), run["why"]]
        for run in report["runs"]
    ]  # fmt: skip
    table = columns(["RUN", "NAME", "OWNER", "OUTCOME", "ENDED", "SIZE", "WHY"], rows) if rows else ""
    more = report["count"] - len(rows)
    lines = [f"... and {more} more\n"] if more > 0 else []
    return table + "".join(lines)


def _summary(report: Json) -> str:
    verb = "would be pruned" if report["dry_run"] else "pruned"
    staying = [kept for kept in report["kept"] if kept.get("error") != "not_found"]
    kept = f"; {len(staying)} {'stays' if len(staying) == 1 else 'stay'}" if staying else ""
    return f"{counted(report['count'], 'run')} {verb}, {size(report['bytes'])}{kept}\n"
