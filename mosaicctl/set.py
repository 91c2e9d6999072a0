"""`set`: change priority, labels or name of runs."""

from typing import Any

from mosaicctl.acting import ask_each
from mosaicctl.client import Json, connect
from mosaicctl.exits import UsageError
from mosaicctl.select import label_filter, references, selector_argument
from mosaicctl.values import text, whole

_EPILOG = """\
  mosaicctl set @ --priority 10
  mosaicctl set my-run --name baseline -l paper=yes
"""


def arguments(parser: Any) -> None:
    """Add the options of `set`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    parser.add_argument("-p", "--priority", metavar="N", type=whole(-1000, 1000), help="higher goes first")
    parser.add_argument("-n", "--name", metavar="NAME", type=text, help="a new name")
    label_filter(parser, "a label to set (repeatable)")


def execute(args: Any) -> int:
    """Change the named runs."""
    if not args.runs:
        raise UsageError("set what of which runs? Name some, or @ for your last one")
    params: Json = {}
    if args.priority is not None:
        params["priority"] = args.priority
    if args.name is not None:
        params["name"] = args.name
    if args.label:
        params["labels"] = dict(args.label)
    if not params:
        raise UsageError("set what? Give --priority, --name or -l K=V")
    with connect(args.socket) as client:
        return ask_each(client, args, references(client, args.runs), "run.set", params)
