"""`restore`: put a copy of the registry in its place, while no daemon runs."""

import sys
from typing import Any

from mosaicctl.exits import DONE, WRONG_STATE
from mosaicctl.offline import Refused, mosaicd_says, place_arguments, places
from mosaicctl.render import clean, to_json
from mosaicctl.sizes import counted
from mosaicctl.values import readable

_EPILOG = """\
The daemon must be down (systemctl --user stop mosaicd.socket mosaicd). The copy is checked first; the
registry that is there now is set aside whole, never overwritten. The restored ledger has a new epoch, so
whoever watched it before is told to begin anew. Nothing starts twice and no run is lost: runs that waited
when the copy was made are held, and the next start reads in the run directories what happened since: what it
does not know is taken up (those that work go on, those that never began are held), what ended has its end.

  mosaicctl restore ~/mosaicd-2026-11-20.sqlite3
  mosaicctl release --all --state INIT          afterwards, what should still run
"""

_TOLD = (
    ("held", "held, waiting when the copy was made: look, and release what should run"),
    ("as_found", "to be judged by files when the daemon starts"),
    ("quarantined", "that made no sense, set aside inside the registry"),
    ("unknown_directories", "that the copy does not know: the next start takes them up from their files"),
    ("at_work", "of these at work now: they go on"),
)


def arguments(parser: Any) -> None:
    """Add the options of `restore`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "file", metavar="FILE", type=readable, help="what `backup` wrote, or a registry that was set aside"
    )
    place_arguments(parser, config=readable)


def execute(args: Any) -> int:
    """Restore, and say what became of what."""
    try:
        report = mosaicd_says("--restore", args.file, *places(args))
    except Refused as error:
        sys.stderr.write(f"mosaicctl: not restored: {clean(error)}\n")
        if "already in use" in str(error):
            sys.stderr.write("  the daemon must be down: systemctl --user stop mosaicd.socket mosaicd\n")
        return WRONG_STATE
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(report, 2 if args.output == "json" else None))
        return DONE
    lines = [
        f"restored {report['runs']} runs up to event {report['last_seq']} from {report['restored_from']}",
        f"the registry from before is in {report['set_aside']}",
        f"the ledger's epoch is {report['epoch']}; cursors from before mean nothing in it",
    ]
    for name, meaning in _TOLD:
        found = report.get(name) or []
        if found:
            named = " ".join(found[:5]) + (" ..." if found[5:] else "")
            lines.append(f"{counted(len(found), 'run')} {meaning}: {named}")
    sys.stdout.write("".join(f"{clean(line)}\n" for line in lines))
    return DONE
