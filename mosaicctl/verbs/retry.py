"""`retry`: submit ended runs again, each as a new run that continues from the last checkpoint."""

import os
import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.environment import capture
from mosaicctl.exits import DONE, code_of, explain
from mosaicctl.render import emit, label
from mosaicctl.select import references, selector_argument
from mosaicctl.standard_streams import are_accepted
from mosaicctl.submission import submit_with_key
from mosaicctl.values import nonempty
from mosaicctl.variables import explicit_environment
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError

_EPILOG = """\
A retry is a new run with the same command or config and the same name. A worker that saves checkpoints
continues from the last complete checkpoint of the old run. It has the environment of the old run, whatever
your shell has now. Only secrets are not kept: their values come from your environment, and a secret that
it lacks is an error (-e NAME=VALUE, --without NAME).

  mosaicctl retry @
  mosaicctl retry my-run -e LR=1e-4
  mosaicctl retry --fresh 01K8 01K9
"""


def arguments(parser: Any) -> None:
    """Add the options of `retry`."""
    parser.epilog = _EPILOG
    selector_argument(parser, default_last=True)
    parser.add_argument("--fresh", action="store_true", help="begin without a checkpoint")
    parser.add_argument(
        "-e", "--env", metavar="K=V", action="append", default=[],
        help="an environment variable; K alone passes your own value (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--without", metavar="NAME", action="append", default=[], type=nonempty,
        help="do not set this variable of the old run (repeatable)",
    )  # fmt: skip


def execute(args: Any) -> int:
    """Retry the selected runs and print the new runs."""
    params: Json = {"environment": explicit_environment(args.env), "fresh": args.fresh}
    params |= {"caller_environment": capture(os.environ).values, "without": args.without}
    runs, code = [], DONE
    with connect(args.socket) as client:
        targets = references(client, args.runs or ["@"])
        for reference in targets:
            try:
                runs.append(submit_with_key(client, {**params, "run_id": reference}, "run.retry"))
            except MosaicError as error:
                sys.stderr.write(explain(error, reference))
                code = code or code_of(error)
    single = len(targets) == 1 and len(args.runs) <= 1
    if runs or not single:
        with are_accepted(runs):
            emit(args.output, runs, "".join(map(sentence, runs)), single)
    return code


def sentence(run: Json) -> str:
    """Return the reply to a retry as a sentence."""
    return f"{label(run)}: accepted ({run['state']}), a retry of {run.get('origin')}\n"
