"""`hold`: keep runs that wait in the queue from starting."""

from typing import Any

from mosaicctl.acting import ask_each
from mosaicctl.client import connect
from mosaicctl.select import choice, chosen, filter_arguments, selector_argument

_EPILOG = """\
A held run keeps its place in the queue; `release` allows it to start.

  mosaicctl hold @
  mosaicctl hold --all --state INIT
"""


def arguments(parser: Any) -> None:
    """Add the options of `hold`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    filter_arguments(parser)


def execute(args: Any) -> int:
    """Hold the chosen runs."""
    filters = choice(args)
    with connect(args.socket) as client:
        return ask_each(client, args, chosen(client, args, filters), "run.hold", {})
