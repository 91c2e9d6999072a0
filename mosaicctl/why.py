"""`why`: every fact that keeps a run from starting, and what would change it."""

import sys
from typing import Any

from mosaicctl.client import Json, connect
from mosaicctl.render import clean, to_json
from mosaicctl.select import references, selector_argument

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
        named = references(client, args.runs or ["@"])
        answers = [client.call("run.explain", {"run_id": reference}) for reference in named]
    if args.output == "json":
        sys.stdout.write(to_json(answers[0] if len(answers) == 1 else answers))
    elif args.output == "jsonl":
        sys.stdout.writelines(to_json(answer, None) for answer in answers)
    elif args.output == "name":
        sys.stdout.writelines(f"{answer.get('run_id')}\n" for answer in answers)
    else:
        sys.stdout.write("\n".join(describe(answer) for answer in answers))
    return 0


def describe(answer: Json) -> str:
    """Return an explanation as lines: the run, each reason, and the change that would help."""
    reasons = answer.get("reasons") or []
    lines = [f"{clean(answer.get('name') or '')} {answer.get('run_id')}: {answer.get('state')}".strip()]
    lines += [f"  {_sentence(reason)}" for reason in reasons]
    if not reasons:
        lines.append(
            "  nothing keeps it from starting" if answer.get("state") == "INIT" else "  it has started"
        )
    if answer.get("change"):
        lines.append(f"  what would help: {_sentence(answer['change'])}")
    return "\n".join(lines) + "\n"


def _sentence(reason: object) -> str:
    if isinstance(reason, dict):
        text = reason.get("message") or reason.get("text")
        return clean(text) if text else " ".join(f"{key}={clean(value)}" for key, value in reason.items())
    return clean(reason)
