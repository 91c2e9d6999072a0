"""Entry point: parse the command line, execute its verb, and print an error with its exit code.

No other module turns exceptions into exit codes.  A `BrokenPipeError` here means that the reader of standard
output has exited (`mosaicctl list | head`); a lost connection to the daemon is `Disconnected`.
"""

import os
import sys

from mosaicctl.cli import parse
from mosaicctl.client import Disconnected, NoDaemon
from mosaicctl.exits import BROKEN_PIPE, INTERNAL, INTERRUPTED, NO_DAEMON, USAGE, UsageError, code_of, explain
from mosaicd.protocol.errors import MosaicError


def main(argv: list[str] | None = None) -> int:
    """Execute one command line (default: `sys.argv`) and return its exit code."""
    try:
        code = _execute(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes standard output again at exit; into /dev/null, that cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _execute(argv: list[str]) -> int:
    """Parse the command line and execute its verb; print an error and return its exit code."""
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
