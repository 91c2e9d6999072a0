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
whoever watched it before is told to begin anew. Nothing starts twice: runs that waited when the copy was
made are held, those that have begun since end as cancelled, and those that worked are judged by their files.

  mosaicctl restore ~/mosaicd-2026-11-20.sqlite3
  mosaicctl release --all --state INIT          afterwards, what should still run
"""

_TOLD = (
    ("held", "held, waiting when the copy was made: look, and release what should run"),
    ("ended", "ended as cancelled, because another attempt has begun since; nothing starts twice"),
    ("as_found", "to be judged by files when the daemon starts"),
    ("quarantined", "that made no sense, set aside inside the registry"),
    ("not_started_set_aside", "submitted since and never begun: set aside, no longer known"),
    ("left_alone", "at work that no daemon will know: left alone, as --force says"),
    ("unknown_directories", "with a directory that the restored registry does not know: not touched"),
)


def arguments(parser: Any) -> None:
    """Add the options of `restore`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "file", metavar="FILE", type=readable, help="what `backup` wrote, or a registry that was set aside"
    )
    parser.add_argument("--force", action="store_true", help="also where runs work that the copy has not")
    place_arguments(parser)


def execute(args: Any) -> int:
    """Restore, and say what became of what."""
    force = ["--force"] if args.force else []
    try:
        report = mosaicd_says("--restore", args.file, *force, *places(args))
    except Refused as error:
        sys.stderr.write(f"mosaicctl: not restored: {error}\n")
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
