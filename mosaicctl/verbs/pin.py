"""`pin`: protect live or ended runs from pruning."""

import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.exits import DONE, UsageError, code_of, explain
from mosaicctl.render import emit, label
from mosaicctl.select import references, selector_argument
from mosaicd.protocol.errors import MosaicError

_EPILOG = """\
Neither `prune` nor [retention] in mosaicd.toml deletes a pinned run. It still counts towards the limits of
[retention] on the runs and the bytes of a user.

  mosaicctl pin best-run
"""


def arguments(parser: Any) -> None:
    """Add the options of `pin`."""
    parser.epilog = _EPILOG
    selector_argument(parser)


def execute(args: Any) -> int:
    """Pin the named runs."""
    return change_pins(args, "run.pin", "pinned")


def change_pins(args: Any, method: str, done: str) -> int:
    """Call `method` for each named run and print `done`; return the exit code of the first refusal."""
    if not args.runs:
        raise UsageError("RUN is missing: name runs (@ is your last run)")
    runs, code = [], DONE
    with connect(args.socket) as client:
        for reference in references(client, args.runs):
            try:
                runs.append(client.call(method, {"run_id": reference}))
            except MosaicError as error:
                sys.stderr.write(explain(error, reference))
                code = code or code_of(error)
    if runs or len(args.runs) > 1:
        emit(args.output, runs, "".join(f"{label(run)}: {done}\n" for run in runs), len(args.runs) == 1)
    return code
