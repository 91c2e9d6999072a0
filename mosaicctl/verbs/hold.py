"""`hold`: keep runs that wait in the queue from starting."""

from typing import Any

from mosaicctl.acting import act_on_selected, selector_arguments

_EPILOG = """\
A held run keeps its place in the queue; `release` allows it to start.

  mosaicctl hold @
  mosaicctl hold --all --state INIT
"""


def arguments(parser: Any) -> None:
    """Add the options of `hold`."""
    parser.epilog = _EPILOG
    selector_arguments(parser)


def execute(args: Any) -> int:
    """Hold the selected runs."""
    return act_on_selected(args, "run.hold")
