"""`pause`: ask runs to pause; the reply says what is now wanted, not that it has happened."""

from typing import Any

from mosaicctl.acting import ask_each, wait_argument
from mosaicctl.client import Json, connect
from mosaicctl.select import choice, chosen, filter_arguments, selector_argument

_EPILOG = """\
Without --mode, a worker that can pause by itself is asked to, and anything else is frozen where it
stands. Both keep their slots; --mode release makes the worker save a checkpoint and leave, gives the
slots to others, and continues from the checkpoint after `resume`.
A run that has not started yet is held instead.

  mosaicctl pause @
  mosaicctl pause --wait my-run && cp -r "$dir" backup && mosaicctl resume my-run
  mosaicctl pause --mode release -l low-priority=yes
"""


def arguments(parser: Any) -> None:
    """Add the options of `pause`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    filter_arguments(parser)
    parser.add_argument("--mode", choices=("freeze", "cooperative", "release"), help="how it is to pause")
    parser.add_argument("--reason", metavar="TEXT", help="kept in the run's history")
    wait_argument(parser, "they have paused")


def execute(args: Any) -> int:
    """Pause the chosen runs."""
    params: Json = {key: value for key, value in (("mode", args.mode), ("reason", args.reason)) if value}
    filters = choice(args)
    with connect(args.socket) as client:
        settled = ["PAUSE"] if args.wait else None
        return ask_each(client, args, chosen(client, args, filters), "run.pause", params, settled)
