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
from mosaicctl.variables import explicit_environment
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError

_EPILOG = """\
A retry is a new run with the same command or config and the same name. A worker that saves checkpoints
continues from the last complete checkpoint of the old run. After the end of a run only the names of its
environment variables are kept: the values come from your environment, as for submit, and from -e. A
variable that the old run had and your environment lacks is an error.

  mosaicctl retry @
  mosaicctl retry my-run -e WANDB_API_KEY
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
        "--allow-missing",
        action="store_true",
        help="submit without the variables that your environment lacks",
    )


def execute(args: Any) -> int:
    """Retry the selected runs and print the new runs."""
    params: Json = {"environment": capture(os.environ).values, "extra": explicit_environment(args.env)}
    params |= {"fresh": args.fresh, "allow_missing": args.allow_missing}
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
