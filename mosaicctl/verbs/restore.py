"""`restore`: put a copy of the registry in its place, while no daemon runs."""

import sys
from typing import Any

from mosaicctl.exits import DONE, WRONG_STATE
from mosaicctl.offline import Refused, location_arguments, location_flags, run_mosaicd
from mosaicctl.render import clean, to_json
from mosaicctl.sizes import counted
from mosaicctl.values import readable_file

_EPILOG = """\
The daemon must be stopped (systemctl --user stop mosaicd.socket mosaicd). The copy is checked first. The
present registry is moved to set-aside/ in the state directory, never overwritten. The restored ledger has
a new epoch: watching clients begin again. No run starts twice and no run is lost. Runs that waited when
the copy was made are held until you release them. At its next start the daemon reads the run directories:
live runs continue, ended runs get their exact end, and runs that the copy does not know are recovered.

  mosaicctl restore ~/mosaicd-2026-11-20.sqlite3
  mosaicctl release --all --state INIT          afterwards, what should still run
"""

_REPORTED = (
    ("held", "held (waiting when the copy was made; release those that should start)"),
    ("as_found", "to be decided by their files when the daemon starts"),
    ("quarantined", "quarantined, because the record is not valid"),
    ("unknown_directories", "not in the copy; the next start recovers them from their files"),
    ("at_work", "of these live now; they continue"),
)


def arguments(parser: Any) -> None:
    """Add the options of `restore`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "file",
        metavar="FILE",
        type=readable_file,
        help="a file that `backup` wrote, or the registry.sqlite3 in a directory of set-aside/",
    )
    location_arguments(parser, config=readable_file)


def execute(args: Any) -> int:
    """Restore the registry and print the report."""
    try:
        report = run_mosaicd("--restore", args.file, *location_flags(args))
    except Refused as error:
        sys.stderr.write(f"mosaicctl: not restored: {clean(error)}\n")
        if "already in use" in str(error):
            sys.stderr.write("  Stop the daemon first: systemctl --user stop mosaicd.socket mosaicd\n")
        return WRONG_STATE
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(report, 2 if args.output == "json" else None))
        return DONE
    lines = [
        f"restored {report['runs']} runs up to event {report['last_seq']} from {report['restored_from']}",
        f"the previous registry is in {report['set_aside']}",
        f"the new epoch of the ledger is {report['epoch']}; old cursors are not valid",
    ]
    for name, meaning in _REPORTED:
        run_ids = report.get(name) or []
        if run_ids:
            examples = " ".join(run_ids[:5]) + (" ..." if run_ids[5:] else "")
            lines.append(f"{counted(len(run_ids), 'run')} {meaning}: {examples}")
    sys.stdout.write("".join(f"{clean(line)}\n" for line in lines))
    return DONE
