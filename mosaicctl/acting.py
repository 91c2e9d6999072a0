"""One request for each selected run: continue after a refusal, and print all answers at the end.

The exit code is that of the first refusal.  `stop a b c` stops a and c also if b does not exist.
"""

import sys
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.exits import DONE, code_of, explain
from mosaicctl.render import clean, emit, label
from mosaicctl.select import filter_arguments, selected_filters, selected_runs, selector_argument
from mosaicd.protocol import Json
from mosaicd.protocol.errors import MosaicError


def selector_arguments(parser: Any) -> None:
    """Add the arguments that select runs: RUN, --all, --state and -l."""
    selector_argument(parser)
    filter_arguments(parser)


def act_on_selected(
    args: Any, method: str, params: Json | None = None, wait_for: list[str] | None = None
) -> int:
    """Call `method` for each selected run and print the answers; return the exit code.

    With `wait_for`, first wait until each run is in one of these states.
    """
    filters = selected_filters(args)
    with connect(args.socket) as client:
        return _act_on_each(
            client, args, selected_runs(client, args, filters), method, params or {}, wait_for
        )


def _act_on_each(
    client: Client, args: Any, references: list[str], method: str, params: Json, wait_for: list[str] | None
) -> int:
    runs, code = [], DONE
    for reference in references:
        try:
            run = client.call(method, {"run_id": reference, **params})
        except MosaicError as error:
            sys.stderr.write(explain(error, reference))
            if error.data.get("state") == "TERM":
                sys.stderr.write(f"  `mosaicctl retry {clean(reference)}` submits it again\n")
            code = code or code_of(error)
            continue
        runs.append(run)
    if wait_for:
        runs, wait_code = _wait_for_states(client, runs, wait_for)
        code = code or wait_code
    single = len(args.runs) == 1 and len(references) == 1
    if single and not runs:
        return code
    emit(args.output, runs, "".join(f"{label(run)}: {status(run)}\n" for run in runs), single)
    return code


def _wait_for_states(client: Client, runs: list[Json], wait_for: list[str]) -> tuple[list[Json], int]:
    """Wait for each run; return the runs, and the exit code of the first error or DONE.

    A run whose wait failed is returned as it was before the wait.
    """
    done, code = [], DONE
    for run in runs:
        try:
            done.append(
                client.call("run.wait", {"run_id": run["run_id"], "states": wait_for}, timeout_s=None)
            )
        except MosaicError as error:
            sys.stderr.write(explain(error, run["run_id"]))
            code = code or code_of(error)
            done.append(run)
    return done, code


def status(run: Json) -> str:
    """Return the state of a run, and a request that is not yet carried out, in a few words."""
    state, want = str(run.get("state")), run.get("want")
    if state == "TERM":
        return f"ended, {run.get('outcome')}"
    if want == "stop":
        return f"stopping ({state})"
    if run.get("held"):
        return f"held ({state})"
    if want == "pause":
        return "paused" if state == "PAUSE" else f"pausing ({state})"
    return "resuming (PAUSE)" if state == "PAUSE" else state


def wait_argument(parser: Any, condition: str) -> None:
    """Add --wait; `condition` completes the help text "return only when ..."."""
    parser.add_argument("--wait", action="store_true", help=f"return only when {condition}")
