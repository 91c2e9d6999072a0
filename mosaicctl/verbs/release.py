"""`release`: allow held runs to start."""

from typing import Any

from mosaicctl.acting import act_on_selected, selector_arguments

_EPILOG = """\
  mosaicctl release @
  mosaicctl release -l sweep=7
"""


def arguments(parser: Any) -> None:
    """Add the options of `release`."""
    parser.epilog = _EPILOG
    selector_arguments(parser)


def execute(args: Any) -> int:
    """Release the selected runs."""
    return act_on_selected(args, "run.release")
