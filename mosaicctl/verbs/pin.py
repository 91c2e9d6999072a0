"""`pin`: keep runs, live or ended, from ever being pruned."""

import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.exits import DONE, UsageError, code_of, explain
from mosaicctl.render import emit, label
from mosaicctl.select import references, selector_argument
from mosaicd.protocol.errors import MosaicError

_EPILOG = """\
A pinned run is left alone by retention and by `prune` until it is unpinned. It still counts where
[retention] limits how many runs, or how many bytes, a user may keep.

  mosaicctl pin best-run
"""


def arguments(parser: Any) -> None:
    """Add the options of `pin`."""
    parser.epilog = _EPILOG
    selector_argument(parser)


def execute(args: Any) -> int:
    """Pin the named runs."""
    return change(args, "run.pin", "pinned")


def change(args: Any, method: str, word: str) -> int:
    """Call `method` for each named run, say `word`; the exit code is that of the first refusal."""
    if not args.runs:
        raise UsageError(f"{args.verb} which runs? Name some, or @ for your last one")
    runs, code = [], DONE
    with connect(args.socket) as client:
        for reference in references(client, args.runs):
            try:
                runs.append(client.call(method, {"run_id": reference}))
            except MosaicError as error:
                sys.stderr.write(explain(error, reference))
                code = code or code_of(error)
    if runs or len(args.runs) > 1:
        emit(args.output, runs, "".join(f"{label(run)}: {word}\n" for run in runs), len(args.runs) == 1)
    return code
