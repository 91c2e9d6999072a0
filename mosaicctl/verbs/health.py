"""`health`: print the daemon's report about itself."""

import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.exits import DONE, NO_DAEMON
from mosaicctl.render import clock, facts, has_colour, paint, to_json
from mosaicd.protocol import Json

_EPILOG = """\
Exits with 0 if the daemon is ready, and with 69 if no daemon answers or it is still starting.

  mosaicctl health
  mosaicctl -o json health | jq .counts
"""


def arguments(parser: Any) -> None:
    """Add the options of `health`."""
    parser.epilog = _EPILOG


def execute(args: Any) -> int:
    """Print the report of the daemon."""
    with connect(args.socket) as client:
        report = client.call("daemon.health", {})
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(report, 2 if args.output == "json" else None))
    elif args.output == "name":
        sys.stdout.write(f"{report.get('socket')}\n")
    else:
        sys.stdout.write(describe(report))
    return DONE if report.get("ready", True) else NO_DAEMON


def describe(report: Json) -> str:
    """Return the report as readable lines, warnings last."""
    from mosaicd.protocol.durations import format_duration

    counts = ", ".join(f"{count} {state}" for state, count in (report.get("counts") or {}).items() if count)
    quarantine = report.get("quarantine") or []
    text = facts(
        [
            ("state", _state_text(report)),
            ("version", f"{report.get('version')} (protocol {report.get('protocol')})"),
            ("pid", report.get("pid")),
            ("uptime", format_duration(report.get("uptime_s") or 0)),
            ("socket", report.get("socket")),
            ("state directory", report.get("state_dir")),
            ("runs", counts or "none"),
            ("cpus", slots_text(report.get("cpus"))),
            ("gpus", slots_text(report.get("gpus"))),
            ("containment", _containment_text(report.get("containment"))),
            ("registry log", _wal_text(report.get("wal"))),
            ("quarantined", len(quarantine) or None),
        ]
    )
    on = has_colour(sys.stdout)
    lines = [f"warning: {warning}" for warning in report.get("warnings") or []]
    lines += [f"quarantined: {to_json(record, None).strip()}" for record in quarantine]
    return text + "".join(paint(line, "33", on) + "\n" for line in lines)


def _state_text(report: Json) -> str:
    if not report.get("ready", True):
        return "starting"
    return "draining: it accepts no new runs" if report.get("draining") else "ready"


def slots_text(slots: Json | None) -> str | None:
    """Return `1 of 4 free`; None if the report has no slots."""
    return f"{slots.get('free')} of {slots.get('total')} free" if slots else None


def _containment_text(report: Json | None) -> str | None:
    """Return the kind of containment and the limits that it can enforce."""
    if not report:
        return None
    return f"{report.get('holds')}; enforces {', '.join(report.get('enforces') or []) or 'no limits'}"


def _wal_text(wal: Json | None) -> str | None:
    if not wal or wal.get("at") is None:
        return None
    return (
        f"{wal.get('checkpointed')} of {wal.get('log')} pages checkpointed at {clock(wal.get('at'))}"
        f"{', busy' if wal.get('busy') else ''}"
    )
