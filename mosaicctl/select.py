"""The runs that a verb acts on: named by RUN arguments, or selected by filters.

The daemon resolves ids, prefixes and names, so they cost no extra request.  `@`, patterns and filters are
resolved here.  A pattern or a filter without a match is an error.
"""

import os
from typing import Any

from mosaicctl.client import Client
from mosaicctl.exits import UsageError
from mosaicctl.values import label_pair, nonempty, outcomes, selector, states
from mosaicd.protocol import Json
from mosaicd.protocol.errors import NotFound

LAST = "@"


def selector_argument(parser: Any, default_last: bool = False, many: bool = True) -> None:
    """Add the RUN argument; with `default_last`, the default is `@`."""
    meaning = "an id, a unique beginning of an id, a name, a pattern in quotes, or @ for your last run"
    if default_last:
        meaning += " (the default)"
    parser.add_argument("runs", metavar="RUN", type=selector, nargs="*" if many else "?", help=meaning)


def filter_arguments(parser: Any) -> None:
    """Add --all, --state and -l, which select from the live runs of the caller."""
    parser.add_argument("--all", action="store_true", help="all your live runs")
    state_filter(parser, "your live runs in this state (repeatable)")
    label_filter(parser, "your live runs with this label")


def label_filter(parser: Any, meaning: str) -> None:
    """Add -l K=V as a filter."""
    parser.add_argument("-l", "--label", metavar="K=V", type=label_pair, action="append", help=meaning)


def state_filter(parser: Any, meaning: str) -> None:
    """Add --state as a filter; `args.state` is a flat list of wire names."""
    parser.add_argument("--state", metavar="STATE", type=states, action="extend", help=meaning)


def outcome_filter(parser: Any) -> None:
    """Add --outcome as a filter; `args.outcome` is a flat list of wire names."""
    parser.add_argument(
        "--outcome", metavar="OUTCOME", type=outcomes, action="extend",
        help="only runs with this outcome (repeatable)",
    )  # fmt: skip


def name_filter(parser: Any) -> None:
    """Add --name as a filter."""
    parser.add_argument(
        "--name", metavar="PATTERN", type=nonempty, help="only runs whose name matches this pattern"
    )


def user_filter(parser: Any) -> None:
    """Add --user as a filter."""
    parser.add_argument("--user", metavar="NAME", type=nonempty, help="only the runs of this user")


def own_user_name() -> str:
    """Return the user name of the caller; the uid if it has no name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def list_runs(client: Client, filters: Json) -> list[Json]:
    """Return all runs that match `filters`, at most `limit` if the filters have it; read page by page."""
    runs: list[Json] = []
    limit = filters.get("limit")
    params = dict(filters)
    while True:
        page = client.call("run.list", params)
        runs.extend(page["runs"])
        cursor = page.get("cursor")
        if cursor is None or not page["runs"] or (limit is not None and len(runs) >= limit):
            return runs if limit is None else runs[:limit]
        params["cursor"] = cursor
        if limit is not None:
            params["limit"] = limit - len(runs)


def last_run(client: Client) -> Json:
    """Return the newest run of the caller; raise NotFound if there is none."""
    runs = client.call("run.list", {"user": own_user_name(), "newest_first": True, "limit": 1})["runs"]
    if not runs:
        raise NotFound("@ is your last run, but you have no run")
    run: Json = runs[0]
    return run


def references(client: Client, selectors: list[str]) -> list[str]:
    """Return a reference for each run: an id if `@` or a pattern was resolved, else the argument."""
    run_references: list[str] = []
    for selector_text in selectors:
        if selector_text == LAST:
            run_references.append(last_run(client)["run_id"])
        elif any(character in selector_text for character in "*?["):
            runs = list_runs(client, {"name": selector_text})
            if not runs:
                raise NotFound(f"no run has a name that matches {selector_text}")
            run_references.extend(run["run_id"] for run in runs)
        else:
            run_references.append(selector_text)
    return list(dict.fromkeys(run_references))


def reference(client: Client, selector_text: str | None) -> str:
    """Return a reference for one run, by default the last; raise UsageError if several runs match."""
    matches = references(client, [selector_text or LAST])
    if len(matches) > 1:
        raise UsageError(f"{selector_text} matches {len(matches)} runs; name one of them")
    return matches[0]


def selected_filters(args: Any) -> Json | None:
    """Return the filters, or None if the runs are named; raise UsageError if there is neither.

    Sends no request: a usage error is reported also without a daemon.
    """
    filters: Json = {}
    if args.state:
        filters["state"] = args.state
    if args.label:
        filters["label"] = dict(args.label)
    if not (args.runs or filters or args.all):
        raise UsageError(
            "RUN is missing: name runs (@ is your last run), or select them with --all, --state or -l"
        )
    if not (filters or args.all):
        return None
    if args.runs:
        raise UsageError("RUN cannot be used together with --all, --state or -l")
    return filters


def selected_runs(client: Client, args: Any, filters: Json | None) -> list[str]:
    """Return references for the runs of `selected_filters`; raise NotFound if none matches."""
    if filters is None:
        return references(client, args.runs)
    runs = list_runs(client, {"live": True, "user": own_user_name(), **filters})
    if not runs:
        raise NotFound("none of your live runs matches")
    return [run["run_id"] for run in runs]
