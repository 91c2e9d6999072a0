"""Entry point: parse the command line, execute its verb, and print an error with its exit code.

No other module turns exceptions into exit codes.  A `BrokenPipeError` here means that the reader of standard
output has exited (`mosaicctl list | head`); a lost connection to the daemon is `Disconnected`.
An exception that is not foreseen is a fault of mosaicctl: one line and exit code 125, which is never mistaken
for a failed run.  With MOSAICCTL_DEBUG=1 its traceback is printed.
"""

import os
import sys

from mosaicctl.cli import parse
from mosaicctl.client import Disconnected, NoDaemon
from mosaicctl.exits import BROKEN_PIPE, INTERNAL, INTERRUPTED, NO_DAEMON, UsageError, code_of, explain
from mosaicctl.standard_streams import drop, prepare
from mosaicd.protocol.errors import MosaicError


def main(argv: list[str] | None = None) -> int:
    """Execute one command line (default: `sys.argv`, of this process) and return its exit code."""
    if argv is None:
        prepare()
    try:
        code = _execute(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        drop(sys.stdout)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        drop(sys.stdout)
        sys.stderr.write(f"mosaicctl: {error}\n")
        return INTERNAL
    except Exception as error:  # noqa: BLE001 - the last place that can say it in one line
        return _report(error)


def _execute(argv: list[str]) -> int:
    """Parse the command line and execute its verb; print an error and return its exit code."""
    try:
        args = parse(argv)
        code: int = args.execute(args)
        return code
    except SystemExit as exit:  # argparse has printed the help, the version or an error
        return int(exit.code or 0)
    except MosaicError as error:
        sys.stderr.write(explain(error))
        return code_of(error)
    except UsageError as error:
        sys.stderr.write(f"mosaicctl: {error}\n")
        return error.exit_code
    except (NoDaemon, Disconnected) as error:
        sys.stderr.write(f"mosaicctl: {error}\n")
        return NO_DAEMON


def _report(error: Exception) -> int:
    """Print one line about an exception that is a fault of mosaicctl; return its exit code."""
    if os.environ.get("MOSAICCTL_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    text = " ".join(str(error).split())[:300]
    text = text.encode(errors="backslashreplace").decode()
    sys.stderr.write(
        f"mosaicctl: internal error: {type(error).__name__}: {text}; MOSAICCTL_DEBUG=1 prints the traceback\n"
    )
    return INTERNAL


if __name__ == "__main__":
    sys.exit(main())
