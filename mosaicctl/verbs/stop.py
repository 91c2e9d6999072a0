"""`stop`: end runs: TERM, a grace period, KILL."""

from typing import Any

from mosaicctl.acting import act_on_selected, selector_arguments, wait_argument
from mosaicctl.values import duration, stop_signal
from mosaicd.protocol import Json

_EPILOG = """\
A stopped run gets TERM, and after its grace period KILL. The grace period is 30 s, unless the run or the
settings have another one. The program gets TERM first, its child processes when it has ended, and all
processes near the end of the grace period: so a program can save with the help of its children. A second
stop can only shorten the grace period. The reply comes at once; --wait waits for the end.

  mosaicctl stop @
  mosaicctl stop --wait --grace 0 my-run
  mosaicctl stop --all --state INIT
  mosaicctl stop -l sweep=7 --reason 'wrong data'
"""


def arguments(parser: Any) -> None:
    """Add the options of `stop`."""
    parser.epilog = _EPILOG
    selector_arguments(parser)
    parser.add_argument(
        "--grace", metavar="DURATION", type=duration, help="time between TERM and KILL; 0 is allowed"
    )
    parser.add_argument(
        "--signal", metavar="SIGNAL", type=stop_signal,
        help="the first signal (default: the run's own, or TERM); KILL means no grace period",
    )  # fmt: skip
    parser.add_argument("--reason", metavar="TEXT", help="a text that is stored with the cause of the end")
    wait_argument(parser, "the runs have ended")


def execute(args: Any) -> int:
    """Stop the selected runs."""
    params: Json = {}
    if args.grace is not None:
        params["grace_s"] = args.grace
    if args.signal is not None:
        params["signal"] = args.signal
    if args.reason:
        params["reason"] = args.reason
    wait_for = ["TERM"] if args.wait else None
    return act_on_selected(args, "run.stop", params, wait_for)
