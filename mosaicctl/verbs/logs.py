"""`logs`: a run's output as it was written, byte for byte; with -f, as it is being written."""

import sys
from functools import partial
from typing import Any

from mosaicctl.client import connect
from mosaicctl.follow import LogStream, Streams
from mosaicctl.select import reference, selector_argument
from mosaicctl.sizes import size
from mosaicctl.values import moment, whole_number

_EPILOG = """\
Prints the standard output of a run, byte for byte: no colour is removed, no newline is added. -f also
follows over restarts of the daemon, and ends with the run. If a part of the output was not kept (see
stdout_bytes in mosaicd.toml(5)), a line on standard error says how much.

  mosaicctl logs @
  mosaicctl logs -f --both my-run
  mosaicctl logs --tail 20 -f my-run | grep loss
  mosaicctl logs --since 10m my-run
  mosaicctl logs --attempt 1 --stderr my-run
  mosaicctl logs --post-mortem stuck-run
"""


def arguments(parser: Any) -> None:
    """Add the options of `logs`."""
    parser.epilog = _EPILOG
    selector_argument(parser, default_last=True, many=False)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="follow the output until the run has ended"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--stderr", action="store_true", help="print its standard error instead")
    which.add_argument("--both", action="store_true", help="print both, each on its own stream")
    which.add_argument(
        "--post-mortem", action="store_true", help="print the post-mortem of a run that was killed as stuck"
    )
    parser.add_argument("--tail", metavar="N", type=whole_number(0), help="begin N lines before the end")
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=moment,
        help="begin with the output of this time: 10m (ago), 10:30, or a date",
    )
    parser.add_argument(
        "--attempt",
        metavar="N",
        type=whole_number(1),
        help="the output of this attempt (default: the newest)",
    )


def execute(args: Any) -> int:
    """Print or follow the output of one run."""
    with connect(args.socket) as client:
        target = reference(client, args.runs)
        # Use the id: a newer run may get the same name meanwhile.
        run_id = client.call("run.get", {"run_id": target})["run_id"]
        names = _stream_names(args)
        streams = [
            LogStream(
                run_id, name, _writer(name if args.both else "stdout"), args.attempt, args.tail, args.since
            )
            for name in names
        ]  # fmt: skip
        for stream in streams:
            stream.on_gap = partial(_report_gap, stream.stream)
        if not args.follow:
            for stream in streams:
                stream.drain(client)
            if args.post_mortem and not streams[0].cursor:
                sys.stderr.write(
                    "mosaicctl: this run has no post-mortem; only a run that was killed as stuck has one\n"
                )
            return 0
        followed = Streams(client)
        for stream in streams:
            followed.add(stream)
        while not all(stream.is_done for stream in streams):
            followed.step()
    return 0


def _report_gap(stream: str, first: int, end: int) -> None:
    """Print on standard error that a part of the output was not kept."""
    sys.stdout.flush()
    gap = f"{size(end - first)} of {stream} were not kept: bytes {first} to {end}"
    print(f"mosaicctl: {gap}", file=sys.stderr)


def _stream_names(args: Any) -> tuple[str, ...]:
    if args.both:
        return ("stdout", "stderr")
    return ("stderr",) if args.stderr else ("post-mortem",) if args.post_mortem else ("stdout",)


def _writer(name: str) -> Any:
    target = sys.stderr if name == "stderr" else sys.stdout

    def write(data: bytes) -> None:
        target.buffer.write(data)
        target.flush()

    return write
