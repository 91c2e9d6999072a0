"""`doctor`: find problems, print what each means and what to do; with --fix, make the safe repairs.

Asks the daemon if one answers; otherwise the daemon's program reads the state directory.
"""

import os
import sys
import time
from typing import Any

from mosaicctl import __version__
from mosaicctl.client import Client, Disconnected, NoDaemon, connect
from mosaicctl.doctor_checks import OK, PROBLEM, WARNING, judge
from mosaicctl.doctor_processes import marked_processes
from mosaicctl.exits import DONE, FAILED
from mosaicctl.offline import Refused, location_arguments, location_flags, run_mosaicd
from mosaicctl.render import clean, has_colour, paint, to_json
from mosaicctl.select import own_user_name
from mosaicctl.sizes import counted
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MethodNotFound, MosaicError, NotFound

_EPILOG = """\
Checks daemon, versions, permissions, registry, wal, quarantine, orphans, shims, directories, clock, disk and
lingering; also without a daemon. --fix removes the access of other users to private files, removes
environments of ended runs and incomplete files, and finishes interrupted prunes. Results and processes
are never touched. Exits with 0 if there is no problem (there may be warnings), and with 1 otherwise.

  mosaicctl doctor
  mosaicctl doctor --fix
  mosaicctl -o json doctor | jq '.findings[] | select(.level != "ok")'
"""

_COLOURS = {OK: "32", WARNING: "33", PROBLEM: "31"}


def arguments(parser: Any) -> None:
    """Add the options of `doctor`."""
    parser.epilog = _EPILOG
    parser.add_argument("--fix", action="store_true", help="make the safe repairs, and print them")
    location_arguments(parser)


def execute(args: Any) -> int:
    """Print the report."""
    facts = gather_facts(args)
    findings = judge(facts)
    fixed = (facts["inspection"] or {}).get("fixed", [])
    has_problem = any(finding["level"] == PROBLEM for finding in findings)
    report = {"healthy": not has_problem, "fixed": fixed, "findings": findings}
    if args.output == "json":
        sys.stdout.write(to_json(report))
    elif args.output == "jsonl":
        sys.stdout.writelines(to_json(finding, None) for finding in findings)
    elif args.output == "name":
        sys.stdout.writelines(f"{finding['check']}\n" for finding in findings if finding["level"] != OK)
    else:
        sys.stdout.write(describe(report))
    return FAILED if has_problem else DONE


def gather_facts(args: Any) -> Json:
    """Return the facts for the checks; a fact that cannot be read is None or empty."""
    facts: Json = {
        "version": __version__, "health": None, "tried": [], "inspection": None, "trouble": "",
        "orphans": [], "now": time.time(), "lingering": None,
    }  # fmt: skip
    try:
        with connect(args.socket) as client:
            facts["health"] = client.call("daemon.health", {})
            _inspect_with_daemon(client, args, facts)
            _find_orphans(facts, client)
    except NoDaemon as error:
        facts["tried"] = [f"{path}: {reason}" for path, reason in error.tried]
    except (Disconnected, MosaicError) as error:
        facts["tried"] = [str(error)]
    if facts["inspection"] is None:
        _inspect_without_daemon(args, facts)
        _find_orphans(facts, None)
    facts["lingering"] = has_lingering(facts["health"])
    return facts


def _inspect_with_daemon(client: Client, args: Any, facts: Json) -> None:
    try:
        facts["inspection"] = client.call("daemon.inspect", {"fix": args.fix}, timeout_s=None)
    except MethodNotFound:  # an older daemon: inspect its state directory without it
        args.state_dir = args.state_dir or facts["health"]["state_dir"]


def _inspect_without_daemon(args: Any, facts: Json) -> None:
    try:
        facts["inspection"] = run_mosaicd("--check", *(["--fix"] if args.fix else []), *location_flags(args))
    except Refused as error:
        facts["trouble"] = str(error)


def _find_orphans(facts: Json, client: Client | None) -> None:
    """Store the orphans: processes of runs that are not live.

    A run may start or end after the inspection.  So the daemon is asked for the state of the run, and only a
    process that is still alive after the answer is an orphan.
    """
    inspection = facts["inspection"]
    if inspection is None:
        return
    live = {run["run_id"] for run in inspection["live"]}
    suspects = [
        process for process in marked_processes(inspection["state_dir"]) if process["run_id"] not in live
    ]
    if client is not None and suspects:
        of_ended_runs = [process for process in suspects if _has_ended(client, process["run_id"])]
        still_alive = marked_processes(inspection["state_dir"]) if of_ended_runs else []
        suspects = [process for process in of_ended_runs if process in still_alive]
    facts["orphans"] = suspects


def _has_ended(client: Client, run_id: str) -> bool:
    """Return whether the run has ended or is unknown to the daemon."""
    try:
        return str(client.call("run.get", {"run_id": run_id})["state"]) == "TERM"
    except NotFound:
        return True


def has_lingering(health: Json | None) -> bool | None:
    """Return whether lingering is enabled for this user; None if the daemon is not a user service."""
    if health is None:
        is_service = os.path.exists(os.path.expanduser("~/.config/systemd/user/mosaicd.service"))
    else:
        try:
            with open(f"/proc/{health['pid']}/cgroup", encoding="utf-8", errors="replace") as file:
                is_service = f"/user@{os.getuid()}.service/" in file.read()
        except OSError:
            is_service = False
    return os.path.exists(f"/var/lib/systemd/linger/{own_user_name()}") if is_service else None


def describe(report: Json) -> str:
    """Return the report as text: a line for each finding; warnings and problems with meaning and repair."""
    on = has_colour(sys.stdout)
    lines = []
    for finding in report["findings"]:
        level = paint(finding["level"].ljust(7), _COLOURS[finding["level"]], on)
        lines.append(f"{level}  {finding['check']:<11}  {clean(finding['found'])}")
        if finding["level"] != OK:
            lines += [f"{'':22}{clean(finding['means'])}", f"{'':20}> {clean(finding['do'])}"]
    lines += [f"fixed: {clean(repair)}" for repair in report["fixed"]]
    levels = [finding["level"] for finding in report["findings"]]
    problems, warnings = levels.count(PROBLEM), levels.count(WARNING)
    summary = f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}"
    lines.append(summary if problems or warnings else "no problem, no warning")
    return "".join(f"{line}\n" for line in lines)
