"""`logs`: a run's output as it was written, byte for byte; with -f, as it is being written."""

import sys
from functools import partial
from typing import Any

from mosaicctl.client import connect
from mosaicctl.follow import LogStream, Streams
from mosaicctl.link import Link
from mosaicctl.select import reference, selector_argument
from mosaicctl.sizes import size
from mosaicctl.values import moment, whole

_EPILOG = """\
Without an option, what the run wrote to its standard output. --stderr prints its standard error
instead, --both prints each to its own. The bytes are exactly those of the run: no colour is
removed, no newline is added. -f goes on over a restart of the daemon, and ends with the run.
Where output was not kept (see stdout_bytes in mosaicd.toml(5)), a line on stderr says how much.

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
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--stderr", action="store_true", help="its standard error instead")
    which.add_argument("--both", action="store_true", help="both, each to its own")
    which.add_argument(
        "--post-mortem", action="store_true", help="what was found before a run that stood still was killed"
    )
    parser.add_argument("--tail", metavar="N", type=whole(0), help="begin N lines before the end")
    parser.add_argument(
        "--since", metavar="TIME", type=moment, help="begin with what was written then: 10m (ago), or a date"
    )
    parser.add_argument("--attempt", metavar="N", type=whole(1), help="of this attempt (default: the newest)")


def execute(args: Any) -> int:
    """Print, or follow, the output of one run."""
    with Link(connect(args.socket), args.socket) as link:
        named = reference(link.client, args.runs)
        # The id, because a name may come to mean a newer run while we follow.
        run_id = link.client.call("run.get", {"run_id": named})["run_id"]
        names = _streams(args)
        streams = [
            LogStream(
                run_id, name, _writer(name if args.both else "stdout"), args.attempt, args.tail, args.since
            )
            for name in names
        ]  # fmt: skip
        for stream in streams:
            stream.on_gap = partial(_tell_gap, stream.stream)
        if not args.follow:
            for stream in streams:
                stream.drain(link.client)
            if args.post_mortem and not streams[0].cursor:
                sys.stderr.write("mosaicctl: there is none; only a run that stood still has a post-mortem\n")
            return 0
        followed = Streams(link)
        for stream in streams:
            followed.add(stream)
        while not all(stream.is_done for stream in streams):
            followed.step()
    return 0


def _tell_gap(stream: str, first: int, end: int) -> None:
    sys.stdout.flush()
    gap = f"{size(end - first)} of {stream} were not kept, from byte {first} to {end}"
    print(f"mosaicctl: {gap}", file=sys.stderr)


def _streams(args: Any) -> tuple[str, ...]:
    if args.both:
        return ("stdout", "stderr")
    return ("stderr",) if args.stderr else ("post-mortem",) if args.post_mortem else ("stdout",)


def _writer(name: str) -> Any:
    target = sys.stderr if name == "stderr" else sys.stdout

    def write(data: bytes) -> None:
        target.buffer.write(data)
        target.flush()

    return write
