"""Names inside a run directory; the contract itself is mosaic-rundir(5)."""

SPEC = "spec.json"
ENVIRONMENT = "environment.json"
FILES = "files"
ATTEMPT_PREFIX = "attempt-"

LAUNCH = "launch.json"
STARTED = "started.json"
EXIT = "exit.json"
STDOUT = "stdout.log"
STDERR = "stderr.log"
TELEMETRY = "telemetry.jsonl"
WORKER_CONFIG = "worker-config.json"

CHECKPOINTS = "checkpoints"
ANALYTICS = "analytics.json"

#: Environment variable that marks every process of a run.
MARKER = "MOSAIC_RUN_ID"

STREAMS = {"stdout": STDOUT, "stderr": STDERR}


def attempt_name(attempt: int) -> str:
    """Return the directory name of an attempt; attempts count from 1."""
    return f"{ATTEMPT_PREFIX}{attempt}"


def attempt_dir(run_dir: str, attempt: int) -> str:
    """Return the path of an attempt's directory."""
    return f"{run_dir.rstrip('/')}/{attempt_name(attempt)}"
