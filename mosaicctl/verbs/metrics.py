"""`metrics`: a run's last values, and its learning curve from the episodes it reported."""

import sys
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.plot import finite, plot, smooth
from mosaicctl.render import ago, columns, label, number, progress, to_json, width
from mosaicctl.screen import Screen
from mosaicctl.select import reference, selector_argument
from mosaicctl.values import whole_number
from mosaicd.protocol import Json

_EPILOG = """\
On a terminal the learning curve is drawn, too: the mean return of the last episodes (a twentieth of
all episodes, at most 100), over all attempts. -o json prints the last values; -o jsonl prints every
episode, one a line.

  mosaicctl metrics @
  mosaicctl metrics --plot my-run | less
  mosaicctl -o json metrics @ | jq .metrics.mean_return_100
  mosaicctl -o jsonl metrics @ >episodes.jsonl
"""

MEAN_OF = 100
_RETURN_KEYS = ("total_reward", "reward", "episode_return", "return")


def arguments(parser: Any) -> None:
    """Add the options of `metrics`."""
    parser.epilog = _EPILOG
    selector_argument(parser, default_last=True, many=False)
    drawing = parser.add_mutually_exclusive_group()
    drawing.add_argument(
        "--plot", action="store_true", help="draw the learning curve, also if the output is not a terminal"
    )
    drawing.add_argument("--no-plot", action="store_true", help="print only the values")
    parser.add_argument(
        "--attempt", metavar="N", type=whole_number(1), help="draw the curve of this attempt alone"
    )


def execute(args: Any) -> int:
    """Print the metrics of one run."""
    with connect(args.socket) as client:
        target = reference(client, args.runs)
        run = client.call("run.get", {"run_id": target})
        if args.output == "name":
            sys.stdout.write(f"{run['run_id']}\n")
            return 0
        if args.output == "jsonl":
            for record in episodes(client, run, args.attempt):
                sys.stdout.write(to_json(record, None))
            return 0
        is_drawn = args.plot or (args.output == "table" and sys.stdout.isatty() and not args.no_plot)
        known = run.get("metrics") or {}
        has_episodes = bool((run.get("progress") or {}).get("episodes"))
        needs_mean = has_episodes and "mean_return_100" not in known
        curve = returns(client, run, args.attempt) if is_drawn or needs_mean else []
    values = with_mean(known, curve)
    if args.output == "json":
        keys = ("run_id", "name", "state", "outcome", "progress", "last_heartbeat_at")
        sys.stdout.write(to_json({**{key: run.get(key) for key in keys}, "metrics": values}))
        return 0
    sys.stdout.write(table(run, values))
    if is_drawn:
        sys.stdout.write("\n" + curve_text(curve))
    return 0


def episodes(client: Client, run: Json, attempt: int | None) -> Any:
    """Yield the run's episode records, oldest first, of one attempt or of all."""
    newest = run.get("attempt") or 0
    for attempt_number in [attempt] if attempt is not None else range(1, newest + 1):
        cursor = 0
        while True:
            params = {
                "run_id": run["run_id"],
                "attempt": attempt_number,
                "cursor": cursor,
                "kinds": ["episode"],
            }
            page = client.call("run.telemetry", params)
            yield from page["records"]
            if page["eof"]:
                break
            cursor = page["cursor"]


def returns(client: Client, run: Json, attempt: int | None) -> list[float]:
    """Return the return of each episode, oldest first."""
    return finite([return_of(record) for record in episodes(client, run, attempt)])


def return_of(record: Json) -> object:
    """Return the return of an episode, which workers report under several names; None if it is missing."""
    data = record.get("data") or {}
    payload = data.get("payload")
    for node in (data, payload if isinstance(payload, dict) else {}):
        for key in _RETURN_KEYS:
            if key in node:
                value: object = node[key]
                return value
    return None


def with_mean(metrics: Json, curve: list[float]) -> Json:
    """Return `metrics`; a missing mean_return_100 is computed from `curve`."""
    if "mean_return_100" in metrics or not curve:
        return dict(metrics)
    last = curve[-MEAN_OF:]
    return {**metrics, "mean_return_100": sum(last) / len(last)}


def table(run: Json, values: Json) -> str:
    """Return the last values as a table, under a line with the name and state of the run."""
    beat = run.get("last_heartbeat_at")
    fresh = f", {ago(beat)} ago" if beat and run.get("state") != "TERM" else ""
    done = progress(run)
    head = f"{label(run)}: {run.get('state')}{f', {done}' if done != '-' else ''}{fresh}\n"
    if not values:
        return f"{head}(the run has reported no metrics)\n"
    return head + columns(["METRIC", "LAST VALUE"], [[name, number(value)] for name, value in values.items()])


def curve_text(curve: list[float]) -> str:
    """Return the smoothed curve of episode returns, drawn for the width of the terminal."""
    if not curve:
        return "(the run has reported no episodes: no curve)\n"
    window = max(1, min(MEAN_OF, len(curve) // 20))
    title = f"return, mean of the last {window} episodes" if window > 1 else "return"
    return plot(
        smooth(curve, window), min(width(80), 100), unicode=Screen(sys.stdout).has_unicode, title=title
    )
