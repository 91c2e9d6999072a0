"""`release`: allow held runs to start."""

from typing import Any

from mosaicctl.acting import ask_each
from mosaicctl.client import connect
from mosaicctl.select import choice, chosen, filter_arguments, selector_argument

_EPILOG = """\
  mosaicctl release @
  mosaicctl release -l sweep=7
"""


def arguments(parser: Any) -> None:
    """Add the options of `release`."""
    parser.epilog = _EPILOG
    selector_argument(parser)
    filter_arguments(parser)


def execute(args: Any) -> int:
    """Release the chosen runs."""
    filters = choice(args)
    with connect(args.socket) as client:
        return ask_each(client, args, chosen(client, args, filters), "run.release", {})
