"""Names inside a run directory; the contract itself is mosaic-rundir(5)."""

import re

SPEC = "spec.json"
ENVIRONMENT = "environment.json"
FILES = "files"
#: There until the run is committed: who finds it, and no row, has found a submit that was never answered.
UNACKNOWLEDGED = "unacknowledged"
#: There from just before an ended run is pruned until nothing of its directory is left.
PRUNED = "pruned"
#: A directory is removed with these last, so that no half of it is taken for a run that is wanted.
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
WORKER_CONFIG = "worker-config.json"

CHECKPOINTS = "checkpoints"

#: Environment variable that marks every process of a run.
MARKER = "MOSAIC_RUN_ID"

STREAMS = {"stdout": STDOUT, "stderr": STDERR, "post-mortem": POST_MORTEM}

#: An attempt's own temporary directory lies here, with a name short enough for sockets in it.
TEMPORARY_BASE = "/tmp"
TAIL_LENGTH = 10  # of a run's id: its random part
_TEMPORARY = re.compile(rf"mosaic-([0-9A-HJKMNP-TV-Z]{{{TAIL_LENGTH}}})-([1-9]\d{{0,8}})", re.ASCII)

#: Digits of the offset in a segment's name: names in their order are bytes in their order.
OFFSET_DIGITS = 16


def segment_name(name: str, offset: int) -> str:
    """Return the name of the segment of log `name` that begins at `offset`."""
    return f"{name}.{offset:0{OFFSET_DIGITS}d}"


def segment_offset(name: str, entry: str) -> int | None:
    """Return where a file of the log `name` begins (0: the log itself); None for no part of it."""
    if entry == name:
        return 0
    digits = entry.removeprefix(name + ".")
    is_ours = len(digits) == OFFSET_DIGITS and digits.isascii() and digits.isdigit() and entry != digits
    return int(digits) if is_ours else None


def attempt_name(attempt: int) -> str:
    """Return the directory name of an attempt; attempts count from 1."""
    return f"{ATTEMPT_PREFIX}{attempt}"


def attempt_dir(run_dir: str, attempt: int) -> str:
    """Return the path of an attempt's directory."""
    return f"{run_dir.rstrip('/')}/{attempt_name(attempt)}"


def temporary_path(run_id: str, attempt: int) -> str:
    """Return where the temporary directory of an attempt is, unless that name was taken."""
    return f"{TEMPORARY_BASE}/mosaic-{run_id[-TAIL_LENGTH:]}-{attempt}"


def parse_temporary_name(name: str) -> tuple[str, int] | None:
    """Return the end of a run's id and the attempt that a name like these means; None for another name."""
    found = _TEMPORARY.fullmatch(name)
    return (found[1], int(found[2])) if found else None
