"""`daemon`: requests about the daemon itself."""

import sys
import time
from typing import Any

from mosaicctl.client import Client, Disconnected, connect
from mosaicctl.render import to_json
from mosaicctl.values import one_of
from mosaicd.protocol import Json
from mosaicd.protocol.errors import TimedOut

#: Time limit of the replacement, and then of the start of the new program.
REEXEC_TIMEOUT_S = 60.0
_RETRY_INTERVAL_S = 0.02

_EPILOG = """\
reexec replaces the running daemon with the program that is installed now. The process, the socket and
the locks stay. Requests under way are answered first, no connection is refused, and runs are not
affected. If the new program would not start, or would use another socket or state directory, the daemon
refuses and continues unchanged.

  mosaicctl daemon reexec
  pip install --upgrade . && mosaicctl daemon reexec
"""


def arguments(parser: Any) -> None:
    """Add the options of `daemon`."""
    parser.epilog = _EPILOG
    parser.add_argument("action", metavar="ACTION", type=one_of(("reexec",), "an action"), help="reexec")


def execute(args: Any) -> int:
    """Request the replacement, wait until the new daemon is ready, and print its version."""
    began = time.monotonic()
    with connect(args.socket) as client:
        reply: Json = client.call("daemon.reexec", {})
        path = client.path
        _wait_until_disconnected(client)
    report = _wait_until_ready(path)
    report = {"pid": report["pid"], "before": reply["version"], "version": report["version"]}
    report["seconds"] = round(time.monotonic() - began, 3)
    if args.output in ("json", "jsonl"):
        sys.stdout.write(to_json(report, 2 if args.output == "json" else None))
    elif args.output == "name":
        sys.stdout.write(f"{path}\n")
    else:
        sys.stdout.write(
            f"mosaicd {report['before']} was replaced with {report['version']} in {report['seconds']:.2f} s "
            f"(pid {report['pid']})\n"
        )
    return 0


def _wait_until_disconnected(client: Client) -> None:
    """Wait until the old daemon closes the connection; raise TimedOut if it does not."""
    deadline = time.monotonic() + REEXEC_TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            client.next_notification(deadline - time.monotonic())
    except Disconnected:
        return
    raise TimedOut(f"the daemon did not replace itself within {REEXEC_TIMEOUT_S:g} s")


def _wait_until_ready(path: str) -> Json:
    """Return the report of the new daemon; the socket is the same, so no other daemon can answer."""
    deadline = time.monotonic() + REEXEC_TIMEOUT_S
    while True:
        try:
            with connect(path) as client:
                report: Json = client.call("daemon.health", {}, max(0.1, deadline - time.monotonic()))
            if report["ready"]:
                return report
        except Disconnected:
            if time.monotonic() >= deadline:
                raise
        if time.monotonic() >= deadline:
            raise TimedOut(f"the daemon was not ready within {REEXEC_TIMEOUT_S:g} s")
        time.sleep(_RETRY_INTERVAL_S)
