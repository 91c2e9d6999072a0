"""`submit`: submit a run and return once it is saved to disk."""

import sys
from typing import Any

from mosaicctl.client import NoDaemon, OnDemandClient
from mosaicctl.dropped_input import tell_dropped_input
from mosaicctl.memory import tell_missing_limit
from mosaicctl.process import cut_line
from mosaicctl.render import emit, label, to_json
from mosaicctl.standard_streams import are_accepted
from mosaicctl.stdin import input_of
from mosaicctl.submission import overwritten_line, submission_arguments, submit_parameters, submit_with_key
from mosaicd.protocol import Json

_EPILOG = """\
A run has your environment, as in your own shell, without the variables of your session (agents, display)
and of other launchers (SLURM_*, RANK). A command runs in your working directory.

  mosaicctl submit -- python train.py --lr 3e-4
  mosaicctl submit -n sweep-1 -g 1 -t 12h -l team=vision -e SEED=1 -- ./train.sh
  mosaicctl submit --worker tabular --set env_id=Taxi-v3 --set episodes=2000
  mosaicctl submit -f config.json --set learning_rate=0.05
  generate-config | mosaicctl submit -f - -o name
  id=$(mosaicctl -o name submit --hold -- make); mosaicctl release "$id"
"""


def arguments(parser: Any) -> None:
    """Add the options of `submit`."""
    parser.usage = "mosaicctl submit [OPTIONS] (-- COMMAND ... | -f FILE | --worker KIND [--set K=V ...])"
    parser.epilog = _EPILOG
    submission_arguments(parser)
    parser.add_argument("--hold", action="store_true", help="keep the run waiting until `mosaicctl release`")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the run, and submit nothing"
    )


def execute(args: Any) -> int:
    """Submit the run and print the reply."""
    with OnDemandClient(args.socket) as get_client:
        source = input_of(args)
        params = submit_parameters(get_client, args)
        if args.hold:
            params["hold"] = True
        tell_dropped_input(args, is_run=False)
        if args.dry_run:
            return _dry_run(get_client, params)
        run = submit_with_key(get_client(), params, source=source)
        with are_accepted([run]):
            tell_missing_limit(get_client(), params)
            emit(args.output, [run], sentence(run), single=True)
    return 0


def _dry_run(get_client: OnDemandClient, params: Json) -> int:
    """Print the checked run; without a daemon, print the request and say that it is not checked."""
    try:
        client = get_client()
    except NoDaemon as error:
        sys.stderr.write("mosaicctl: no daemon answers, so the request is not checked\n")
        sys.stderr.writelines(f"  {path}: {reason}\n" for path, reason in error.tried)
        # Only the names: the values of a whole environment are long, and some are secret.
        shown = {**params, "caller_environment": sorted(params["caller_environment"])}
        del shown["process"]
        sys.stdout.write(to_json(shown))
        return 0
    run = client.call("run.submit", {**params, "dry_run": True})
    sys.stderr.write(overwritten_line(run) + cut_line(run))
    sys.stdout.write(to_json(run))
    return 0


def sentence(run: Json) -> str:
    """Return the reply to a submit as a sentence."""
    if run.get("duplicate") and run["state"] == "TERM":
        return f"{label(run)}: submitted with this key before; ended, {run.get('outcome')}\n"
    if run.get("duplicate"):
        return f"{label(run)}: the same run is already live ({run['state']}); not submitted again\n"
    where = "accepted (held)" if run.get("held") else f"accepted ({run['state']})"
    return f"{label(run)}: {where}\n"
