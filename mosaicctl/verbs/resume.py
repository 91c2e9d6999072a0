"""`resume`: ask paused runs, and runs that are pausing, to continue."""

from typing import Any

from mosaicctl.acting import ask_each, wait_argument
from mosaicctl.client import connect
from mosaicctl.select import choice, chosen, filter_arguments, selector_argument
from mosaicd.protocol import Json

_EPILOG = """\
A run without slots (pause --mode release) waits in the queue for new slots.

  mosaicctl resume @
  mosaicctl resume --all --state PAUSE
"""


def arguments(parser: Any) -> None:
    """Add the options of `resume`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    filter_arguments(parser)
    parser.add_argument("--reason", metavar="TEXT", help="a text for the run's history")
    wait_argument(parser, "the runs execute again")


def execute(args: Any) -> int:
    """Resume the chosen runs."""
    params: Json = {"reason": args.reason} if args.reason else {}
    filters = choice(args)
    with connect(args.socket) as client:
        settled = ["EXEC"] if args.wait else None
        return ask_each(client, args, chosen(client, args, filters), "run.resume", params, settled)
