"""`wait`: return when runs have ended (or reached a state), with the exit code of the run.

If the daemon restarts meanwhile, `wait` waits for it: the runs continue.
"""

import sys
import time
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.exits import DONE, TIMEOUT, WRONG_STATE, code_of_run, explain
from mosaicctl.reconnecting import repeat_until_answered
from mosaicctl.render import emit, ending_text, label
from mosaicctl.select import references, selector_argument, state_filter
from mosaicctl.values import duration
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Conflict, TimedOut

_EPILOG = """\
Exits with the exit code of the run, 128 + the signal that ended it, 124 if it reached its time limit,
130 if it was stopped, 127 if it could not be started; for several runs, with the first code that is not 0.
With --state: 0 if the state was reached, 5 if the run ended without reaching it.

  mosaicctl wait @ && mosaicctl metrics @
  mosaicctl wait --state EXEC --timeout 5m my-run
  mosaicctl list --live -o name | xargs mosaicctl wait
"""


def arguments(parser: Any) -> None:
    """Add the options of `wait`."""
    parser.epilog = _EPILOG
    selector_argument(parser, default_last=True)
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=duration,
        help="stop waiting after this long, with exit code 124; the runs continue",
    )
    state_filter(parser, "wait for this state instead (repeatable)")


def execute(args: Any) -> int:
    """Wait for each run, one after the other."""
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    wanted = args.state
    with connect(args.socket) as client:
        targets = references(client, args.runs or ["@"])
        runs, code = [], DONE
        for reference in targets:
            try:
                run = _wait(client, reference, wanted, deadline)
            except TimedOut as error:
                sys.stderr.write(explain(error, reference))
                code = code or TIMEOUT
                break
            except Conflict as error:
                # The run has ended and cannot reach the state any more.
                sys.stderr.write(explain(error, reference))
                code = code or WRONG_STATE
                continue
            runs.append(run)
            code = code or (DONE if wanted else code_of_run(run))
    text = "".join(f"{label(run)}: {ending_text(run) or run.get('state')}\n" for run in runs)
    emit(args.output, runs, text, single=len(runs) == 1 and len(args.runs) <= 1)
    return code


def _wait(client: Client, reference: str, wanted: list[str] | None, deadline: float | None) -> Json:
    """Return the run when it has reached a wanted state or ended; raise TimedOut at the deadline."""

    def ask() -> Json:
        params: Json = {"run_id": reference}
        if wanted:
            params["states"] = wanted
        if deadline is None:
            run: Json = client.call("run.wait", params, timeout_s=None)
            return run
        remaining = max(0.0, deadline - time.monotonic())
        run = client.call("run.wait", {**params, "timeout_s": remaining}, timeout_s=remaining + 2)
        return run

    return repeat_until_answered(client, ask, deadline)
