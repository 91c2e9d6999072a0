"""`set`: change the priority, the labels or the name of runs."""

import sys
from typing import Any

from mosaicctl.changes import changes
from mosaicctl.client import connect
from mosaicctl.exits import DONE, UsageError, code_of, explain
from mosaicctl.render import emit, label
from mosaicctl.select import label_filter, references, selector_argument
from mosaicctl.values import nonempty, whole_number
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError

_EPILOG = """\
  mosaicctl set @ --priority 10
  mosaicctl set my-run --name baseline -l paper=yes --unlabel draft
"""


def arguments(parser: Any) -> None:
    """Add the options of `set`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    parser.add_argument(
        "-p",
        "--priority",
        metavar="N",
        type=whole_number(-1000, 1000),
        help="a run with a higher number starts first",
    )
    parser.add_argument("-n", "--name", metavar="NAME", type=nonempty, help="a new name")
    label_filter(parser, "a label to set; others stay (repeatable)")
    parser.add_argument(
        "--unlabel", metavar="K", type=nonempty, action="append", help="a label to remove (repeatable)"
    )


def execute(args: Any) -> int:
    """Change the named runs and print the changes."""
    if not args.runs:
        raise UsageError("RUN is missing: name runs (@ is your last run)")
    params: Json = {}
    if args.priority is not None:
        params["priority"] = args.priority
    if args.name is not None:
        params["name"] = args.name
    if args.label:
        params["label"] = dict(args.label)
    if args.unlabel:
        params["unlabel"] = args.unlabel
    if not params:
        raise UsageError("give one or more of --priority, --name, -l and --unlabel")
    runs, lines, code = [], [], DONE
    with connect(args.socket) as client:
        for reference in references(client, args.runs):
            try:
                was = client.call("run.get", {"run_id": reference})
                run = client.call("run.set", {"run_id": was["run_id"], **params})
            except MosaicError as error:
                sys.stderr.write(explain(error, reference))
                code = code or code_of(error)
                continue
            runs.append(run)
            lines.append(f"{label(run)}: {', '.join(changes(was, run)) or 'nothing to change'}\n")
    if runs or len(args.runs) > 1:
        emit(args.output, runs, "".join(lines), single=len(args.runs) == 1 and len(runs) == 1)
    return code
