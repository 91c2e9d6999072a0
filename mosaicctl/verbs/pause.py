"""`pause`: ask runs to pause; the reply confirms the request, not the pause."""

from typing import Any

from mosaicctl.acting import act_on_selected, selector_arguments, wait_argument
from mosaicctl.values import one_of
from mosaicd.protocol import Json

_EPILOG = """\
freeze stops every process of the run where it is. cooperative asks the worker to pause by itself. Both
keep the slots. release lets the worker save a checkpoint and exit, and frees the slots until `resume`.
The default is cooperative for a worker that supports it, and freeze for all other runs.
A run that has not started is held. A held run is not paused: --wait waits until the run pauses or ends.

  mosaicctl pause @
  mosaicctl pause --wait my-run && cp -r "$dir" backup && mosaicctl resume my-run
  mosaicctl pause --mode release -l low-priority=yes
"""


def arguments(parser: Any) -> None:
    """Add the arguments of `pause`."""
    parser.epilog = _EPILOG
    selector_arguments(parser)
    parser.add_argument(
        "--mode", metavar="MODE", type=one_of(("freeze", "cooperative", "release"), "a mode"),
        help="how to pause: freeze, cooperative or release",
    )  # fmt: skip
    parser.add_argument("--reason", metavar="TEXT", help="a text for the run's history")
    wait_argument(parser, "the runs have paused")


def execute(args: Any) -> int:
    """Pause the selected runs."""
    params: Json = {key: value for key, value in (("mode", args.mode), ("reason", args.reason)) if value}
    wait_for = ["PAUSE"] if args.wait else None
    return act_on_selected(args, "run.pause", params, wait_for)
