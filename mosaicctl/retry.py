"""`retry`: hand in ended runs again, each as a new run that names its origin."""

from typing import Any

from mosaicctl.acting import ask_each
from mosaicctl.client import connect
from mosaicctl.exits import UsageError
from mosaicctl.select import references, selector_argument

_EPILOG = """\
The new run has its own id and run directory; the old one stays as it ended.

  mosaicctl retry @
  mosaicctl list --outcome failed -o name | xargs -r mosaicctl retry
"""


def arguments(parser: Any) -> None:
    """Add the options of `retry`."""
    parser.epilog = _EPILOG
    selector_argument(parser)


def execute(args: Any) -> int:
    """Hand in the chosen runs again."""
    if not args.runs:
        raise UsageError("retry which runs? Name some, or @ for your last one")
    with connect(args.socket) as client:
        return ask_each(client, args, references(client, args.runs), "run.retry", {})
