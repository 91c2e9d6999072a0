"""Entry point: parse, run one verb, and turn every way to fail into one line and an exit code.

Only here do exceptions become exit codes.  A `BrokenPipeError` that gets this far is our own standard
output (`mosaicctl list | head`): the connection's faults are `Disconnected`.
"""

import os
import sys

from mosaicctl.cli import parse
from mosaicctl.client import Disconnected, NoDaemon
from mosaicctl.exits import BROKEN_PIPE, INTERNAL, INTERRUPTED, NO_DAEMON, USAGE, UsageError, code_of, explain
from mosaicd.protocol.errors import MosaicError


def main(argv: list[str] | None = None) -> int:
    """Carry out one command line (default: the process's own) and return its exit code."""
    try:
        code = _carry_out(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter flushes once more at exit; it must find somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _carry_out(argv: list[str]) -> int:
    args = parse(argv)
    try:
        code: int = args.execute(args)
        return code
    except MosaicError as error:
        sys.stderr.write(explain(error))
        return code_of(error)
    except UsageError as error:
        sys.stderr.write(f"mosaicctl: {error}\n")
        return USAGE
    except NoDaemon as error:
        sys.stderr.write(f"mosaicctl: {error}\n")
        return NO_DAEMON
    except Disconnected as error:
        sys.stderr.write(f"mosaicctl: {error}\n")
        return NO_DAEMON
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        sys.stderr.write(f"mosaicctl: {error}\n")
        return INTERNAL


if __name__ == "__main__":
    sys.exit(main())
