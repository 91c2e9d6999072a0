"""`python -m benchmarks`: measure, print the table, write the JSON."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import drain, footprint, latency, listing, machine, table, throughput
from benchmarks.rows import Row
from mosaicd import __version__

MEASURES: dict[str, Callable[[bool], list[Row]]] = {
    "submit-to-start": latency.submit_to_start,
    "exit-to-start": latency.exit_to_start,
    "runs": throughput.runs_per_s,
    "drain": drain.log_drain,
    "telemetry": drain.telemetry,
    "daemon": footprint.daemon,
    "live-run": footprint.live_run,
    "list": listing.listing,
}

_EPILOG = """\
Each figure is compared with the same work without mosaicd (a subprocess, `cat | cat > file`,
`python -c pass`), measured alternately.  ratio is mosaicd / plain: on a busy machine, trust it more than
the figures.
The targets are for a quiet machine with two cores.  A missed target is no error: the exit code is 0 if
everything could be measured, and 1 if data was lost or a measurement failed.

The benchmarks start private daemons in temporary directories ($TMPDIR) and remove them at the end.

  make bench
  make bench ARGS="--only drain --only telemetry"
  make bench ARGS="--json bench.json"
"""


def main(argv: list[str] | None = None) -> int:
    """Run the selected measurements; return the exit code."""
    args = _parser().parse_args(argv)
    facts = machine.facts(Path(tempfile.gettempdir()))
    print(table.head(facts), flush=True)
    rows: list[Row] = []
    for name in args.only or MEASURES:
        try:
            measured = MEASURES[name](args.quick)
        except AssertionError as error:
            print(f"benchmarks: {name}: {error}", file=sys.stderr)
            return 1
        for row in measured:
            print(table.line(row), flush=True)
        rows += measured
    missed = [row.what for row in rows if row.is_reached is False]
    judged = sum(row.target is not None for row in rows)
    caveat = " (--quick: too short to judge)" if args.quick else ""
    print(f"\n{judged - len(missed)} of {judged} targets reached{caveat}")
    if args.json:
        content = {"version": __version__, "at": time.time(), "quick": args.quick, "machine": facts}
        text = json.dumps({**content, "rows": [row.to_dict() for row in rows]}, indent=2) + "\n"
        args.json.write_text(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the cost of mosaicd beside the same work without it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=list(MEASURES),
        help=f"measure only this (repeatable): {', '.join(MEASURES)}",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="run for some seconds only, to check that the benchmark works"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="also write the figures and the description of the machine to FILE",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
