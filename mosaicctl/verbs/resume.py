"""`resume`: ask paused runs, and runs that are pausing, to continue."""

from typing import Any

from mosaicctl.acting import act_on_selected, selector_arguments, wait_argument
from mosaicd.protocol import Json

_EPILOG = """\
A run without slots (pause --mode release) waits in the queue for new slots.

  mosaicctl resume @
  mosaicctl resume --all --state PAUSE
"""


def arguments(parser: Any) -> None:
    """Add the options of `resume`."""
    parser.epilog = _EPILOG
    selector_arguments(parser)
    parser.add_argument("--reason", metavar="TEXT", help="a text for the run's history")
    wait_argument(parser, "the runs execute again")


def execute(args: Any) -> int:
    """Resume the selected runs."""
    params: Json = {"reason": args.reason} if args.reason else {}
    wait_for = ["EXEC"] if args.wait else None
    return act_on_selected(args, "run.resume", params, wait_for)
