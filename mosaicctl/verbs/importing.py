"""`import`: import the runs of a registry of the original MOSAIC as history."""

import os
import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.render import clean, to_json
from mosaicctl.sizes import counted
from mosaicctl.values import existing_file
from mosaicd.protocol import Json

_EPILOG = """\
FILE is the SQLite file of the original trainer daemon; it is only read. Its runs become ended runs of
yours, with the origin `import`; a run that was live there is interrupted here. No run starts. The report
names columns and values without a known meaning. A second import adds only new runs.

  mosaicctl import --dry-run ~/mosaic/var/trainer/trainer.sqlite
  mosaicctl import ~/mosaic/var/trainer/trainer.sqlite
  mosaicctl list -a --mine
"""


def arguments(parser: Any) -> None:
    """Add the options of `import`."""
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", type=existing_file, help="the registry; the daemon reads it")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be imported")


def execute(args: Any) -> int:
    """Request the import and print the report."""
    with connect(args.socket) as client:
        params = {"path": os.path.abspath(args.file), "dry_run": args.dry_run}
        report: Json = client.call("daemon.import", params, timeout_s=None)
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(report, 2 if args.output == "json" else None))
    elif args.output == "name":
        sys.stdout.writelines(f"{run_id}\n" for run_id in report["run_ids"])
    else:
        sys.stdout.write(describe(report))
    return 0


def describe(report: Json) -> str:
    """Return the report as text."""
    verb = "would be imported" if report["dry_run"] else "imported"
    outcomes = ", ".join(f"{count} {word}" for word, count in report["outcomes"].items())
    rows = counted(report["rows"], "run")
    lines = [f"{report['imported']} of {rows} {verb}" + (f" ({outcomes})" if outcomes else "")]
    if report["known"]:
        lines.append(f"already imported: {report['known']}")
    if report["skipped"]:
        lines.append(f"skipped: {report['skipped']}")
    if report["unknown_columns"]:
        lines.append(f"unknown columns: {', '.join(map(clean, report['unknown_columns']))}")
    if report["missing_columns"]:
        lines.append(f"missing columns: {', '.join(report['missing_columns'])}")
    notes = [(counted(note["rows"], "row"), clean(note["note"])) for note in report["notes"]]
    lines += [f"{rows}: {note}" for rows, note in notes]
    return "".join(f"{line}\n" for line in lines)
