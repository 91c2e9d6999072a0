"""`list`: print runs, as a table or for a script.

The table has the live runs and those that ended last, so it stays fast with ten thousand ended runs.  The
machine formats have all runs, because a script cannot see that runs are left out.
"""

import sys
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.render import emit
from mosaicctl.runtable import run_table
from mosaicctl.select import (
    label_filter,
    list_runs,
    name_filter,
    outcome_filter,
    own_user_name,
    state_filter,
    user_filter,
)
from mosaicctl.values import whole_number
from mosaicd.protocol import Json

ENDED_SHOWN = 20

_EPILOG = """\
The table has the live runs and the 20 runs that ended last, oldest first; -a shows all runs.
json, jsonl and name have all runs that match.

  mosaicctl list
  mosaicctl list --live --mine
  mosaicctl list --state paused -l team=vision
  mosaicctl list --name 'sweep-*' --outcome failed -o name | xargs -rn1 mosaicctl logs --stderr
"""


def arguments(parser: Any) -> None:
    """Add the options of `list`."""
    parser.epilog = _EPILOG
    parser.add_argument("-a", "--all", action="store_true", help="all runs, also those that ended long ago")
    parser.add_argument("--live", action="store_true", help="only runs that have not ended")
    parser.add_argument("--mine", action="store_true", help="only your own runs")
    user_filter(parser)
    state_filter(parser, "only runs in this state (repeatable)")
    outcome_filter(parser)
    name_filter(parser)
    label_filter(parser, "only runs with this label (repeatable)")
    parser.add_argument("-n", "--limit", metavar="N", type=whole_number(1), help="only the newest N runs")


def execute(args: Any) -> int:
    """Print the runs that match."""
    with connect(args.socket) as client:
        runs, is_cut = _fetch(client, args)
    if runs or args.output != "table":
        emit(args.output, runs, run_table(runs) if args.output == "table" else "")
    elif sys.stdout.isatty():
        hint = "No runs yet; see `mosaicctl submit --help`.\n"
        sys.stdout.write("No run matches.\n" if _filters(args) else hint)
    if is_cut and sys.stdout.isatty():
        sys.stderr.write("(older ended runs are not shown; -a shows all)\n")
    return 0


def _fetch(client: Client, args: Any) -> tuple[list[Json], bool]:
    """Return the runs to print, oldest first, and whether older ended runs are omitted."""
    filters = _filters(args)
    if args.limit is not None:
        return list_runs(client, {**filters, "newest_first": True, "limit": args.limit})[::-1], False
    if args.output != "table" or args.all or args.live:
        return list_runs(client, filters), False
    recent = client.call("run.list", {**filters, "live": False, "newest_first": True, "limit": ENDED_SHOWN})
    runs = list_runs(client, {**filters, "live": True}) + recent["runs"]
    # A run that ends between the two calls is in both results; the later result is used.
    merged = {run["run_id"]: run for run in runs}
    in_order = sorted(merged.values(), key=lambda run: (run["created_at"], run["run_id"]))
    return in_order, recent.get("cursor") is not None


def _filters(args: Any) -> Json:
    filters: Json = {}
    if args.live:
        filters["live"] = True
    if args.mine or args.user:
        filters["user"] = args.user or own_user_name()
    if args.state:
        filters["state"] = args.state
    if args.outcome:
        filters["outcome"] = args.outcome
    if args.name:
        filters["name"] = args.name
    if args.label:
        filters["label"] = dict(args.label)
    return filters
