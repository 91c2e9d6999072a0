"""`unpin`: remove the protection of pinned runs."""

from typing import Any

from mosaicctl.select import selector_argument
from mosaicctl.verbs.pin import change_pins

_EPILOG = """\
  mosaicctl unpin best-run
"""


def arguments(parser: Any) -> None:
    """Add the options of `unpin`."""
    parser.epilog = _EPILOG
    selector_argument(parser)


def execute(args: Any) -> int:
    """Unpin the named runs."""
    return change_pins(args, "run.unpin", "no longer pinned")
