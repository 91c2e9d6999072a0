"""`why`: print every fact that keeps a run from starting, and the changes that would start it."""

import sys
from typing import Any

from mosaicctl.acting import status
from mosaicctl.client import connect
from mosaicctl.render import clean, label, to_json
from mosaicctl.select import references, selector_argument
from mosaicd.protocol import Json

_EPILOG = """\
  mosaicctl why               your last run
  mosaicctl why my-run
"""


def arguments(parser: Any) -> None:
    """Add the options of `why`."""
    parser.epilog = _EPILOG
    selector_argument(parser, default_last=True)


def execute(args: Any) -> int:
    """Print the daemon's explanation of each run."""
    with connect(args.socket) as client:
        targets = references(client, args.runs or ["@"])
        runs = [client.call("run.get", {"run_id": reference}) for reference in targets]
        answers = [client.call("run.explain", {"run_id": run["run_id"]}) for run in runs]
    if args.output == "json":
        sys.stdout.write(to_json(answers[0] if len(answers) == 1 else answers))
    elif args.output == "jsonl":
        sys.stdout.writelines(to_json(answer, None) for answer in answers)
    elif args.output == "name":
        sys.stdout.writelines(f"{run['run_id']}\n" for run in runs)
    else:
        sys.stdout.write("\n".join(map(describe, runs, answers)))
    return 0


def describe(run: Json, answer: Json) -> str:
    """Return an explanation as lines: each fact with the runs that cause it, then helpful changes."""
    lines = [f"{label(run)}: {status(run)}"]
    for fact in answer.get("facts") or []:
        lines.append(f"  {clean(fact.get('text') or fact.get('fact'))}")
        lines += [f"    {_holder_text(holder)}" for holder in fact.get("held_by") or []]
        lines += [f"    {_earlier_run_text(other)}" for other in fact.get("runs") or []]
    if len(lines) == 1 and run.get("state") != "TERM":
        lines.append("  nothing keeps it from starting")
    ways = [
        " and ".join(clean(step.get("text") or step) for step in way) for way in answer.get("changes") or []
    ]
    if ways:
        lines.append("  changes that would start it now:")
        lines += [f"    {'or ' if number else ''}{way}" for number, way in enumerate(ways)]
    return "\n".join(lines) + "\n"


def _holder_text(holder: Json) -> str:
    """Return a run that holds slots: `2 CPUs, GPU 0: name (id) of user`."""
    gpus = ",".join(str(slot) for slot in holder.get("slots") or [])
    cpus = holder.get("cpus")
    held = f"{cpus} CPU{'' if cpus == 1 else 's'}" + (f", GPU {gpus}" if gpus else "")
    return (
        f"{held}: {clean(holder.get('name') or '')} ({holder.get('run_id')}) of {clean(holder.get('owner'))}"
    )


def _earlier_run_text(other: Json) -> str:
    """Return a run that starts earlier, with the reason."""
    return f"{other.get('run_id')} of {clean(other.get('owner'))}: {clean(other.get('because') or '')}"
