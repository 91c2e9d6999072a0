"""File names inside a run directory; mosaic-rundir(5) specifies them."""

import re

SPEC = "spec.json"
ENVIRONMENT = "environment.json"
CALLER_ENVIRONMENT = "caller-environment.json"
GIVEN_ENVIRONMENT = "given-environment.json"
FILES = "files"
#: The submitted standard input; absent if the submit had none.
STDIN = "stdin"
#: Exists until the run is committed.  With this file and without a row, the submit was never acknowledged.
UNACKNOWLEDGED = "unacknowledged"
#: Exists from just before an ended run is pruned until its directory is removed.
PRUNED = "pruned"
#: Removed last, so that the rest of a directory is never mistaken for a run that must be kept.
MARKS = frozenset((UNACKNOWLEDGED, PRUNED))
ATTEMPT_PREFIX = "attempt-"

LAUNCH = "launch.json"
STARTED = "started.json"
EXIT = "exit.json"
STDOUT = "stdout.log"
STDERR = "stderr.log"
TELEMETRY = "telemetry.jsonl"
LOG_INDEX = "log.index"
POST_MORTEM = "post-mortem.txt"
STACKS = "python-stacks.txt"
LEFTOVERS = "leftovers.json"
WORKER_CONFIG = "worker-config.json"

CHECKPOINTS = "checkpoints"

#: Environment variable that marks every process of a run.
MARKER = "MOSAIC_RUN_ID"

STREAMS = {"stdout": STDOUT, "stderr": STDERR, "post-mortem": POST_MORTEM}

#: The parent of the temporary directories of attempts; short, because socket paths have a limit.
TEMPORARY_BASE = "/tmp"
TAIL_LENGTH = 10  # characters at the end of a run id that these names contain; they are random
_TEMPORARY = re.compile(
    rf"mosaic-([0-9A-HJKMNP-TV-Z]{{{TAIL_LENGTH}}})-([1-9]\d{{0,8}})(?:-[2-9])?", re.ASCII
)

#: Digits of the offset in the name of a segment; fixed, so that sorted names are in the order of offsets.
OFFSET_DIGITS = 16


def segment_name(name: str, offset: int) -> str:
    """Return the name of the segment of log `name` that begins at `offset`."""
    return f"{name}.{offset:0{OFFSET_DIGITS}d}"


def segment_offset(name: str, entry: str) -> int | None:
    """Return the offset at which the file `entry` of the log `name` begins (0: the log itself), or None.

    None: `entry` is not a file of that log.
    """
    if entry == name:
        return 0
    digits = entry.removeprefix(name + ".")
    is_segment = len(digits) == OFFSET_DIGITS and digits.isascii() and digits.isdigit() and entry != digits
    return int(digits) if is_segment else None


def attempt_name(attempt: int) -> str:
    """Return the directory name of an attempt; attempts count from 1."""
    return f"{ATTEMPT_PREFIX}{attempt}"


def attempt_dir(run_dir: str, attempt: int) -> str:
    """Return the path of an attempt's directory."""
    return f"{run_dir.rstrip('/')}/{attempt_name(attempt)}"


def temporary_path(run_id: str, attempt: int) -> str:
    """Return the path of the temporary directory of an attempt; see `temporary_paths` if it exists."""
    return f"{TEMPORARY_BASE}/mosaic-{run_id[-TAIL_LENGTH:]}-{attempt}"


def temporary_paths(run_id: str, attempt: int) -> tuple[str, ...]:
    """Return the short paths for the temporary directory of an attempt; the first free one is used."""
    path = temporary_path(run_id, attempt)
    return (path, f"{path}-2", f"{path}-3")


def parse_temporary_name(name: str) -> tuple[str, int] | None:
    """Return the end of the run id and the attempt in a name of `temporary_path`; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return (found[1], int(found[2])) if found else None
