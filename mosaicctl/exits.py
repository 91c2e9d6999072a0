"""Exit codes: of mosaicctl itself, and of a run as `run` and `wait` report it.

Both use the same numbers, as env(1), timeout(1) and the shells do.  A script that must distinguish exit code
5 of a run from exit code 5 of mosaicctl (wrong state) reads `mosaicctl show -o json`.
"""

from typing import Any

from mosaicd.protocol.errors import EXIT_CODES, MosaicError

DONE = 0
FAILED = 1
USAGE = 2
WRONG_STATE = 5
NO_DAEMON = 69
TIMEOUT = 124
INTERNAL = 125
NOT_EXECUTABLE = 126
NOT_STARTED = 127
INTERRUPTED = 130
CANCELLED = 130
BROKEN_PIPE = 141


class UsageError(Exception):
    """The command line has a mistake; the text has the mistake and the rule."""

    exit_code = USAGE


def code_of(error: MosaicError) -> int:
    """Return mosaicctl's exit code for an error of the daemon."""
    return EXIT_CODES.get(error.name, INTERNAL)


def explain(error: MosaicError, subject: str = "") -> str:
    """Return the text for `error`: one line, and a line for each fault, each matching run and the advice."""
    is_named = subject in error.message.replace("'", " ").replace(":", " ").split()
    prefix = f"mosaicctl: {subject}: " if subject and not is_named else "mosaicctl: "
    lines = [prefix + error.message]
    faults = error.data.get("errors")
    faults_text = (
        [_fault_text(fault) for fault in faults if isinstance(fault, dict)]
        if isinstance(faults, list)
        else []
    )
    if faults_text and faults_text[0].partition(": ")[2] in error.message:
        # The message repeats the first fault, or all faults, so the list of faults replaces it.
        lines = lines if len(faults_text) == 1 else [f"mosaicctl: the request has {len(faults_text)} faults:"]
        faults_text = faults_text if len(faults_text) > 1 else []
    lines += [f"  {fault}" for fault in faults_text]
    lines += [
        f"  {_candidate_text(run)}" for run in error.data.get("candidates") or () if isinstance(run, dict)
    ]
    advice = error.data.get("help")
    if isinstance(advice, str):
        lines.append(f"  {advice}")
    return "\n".join(lines) + "\n"


def _candidate_text(run: dict[str, Any]) -> str:
    """Return the id and name of a run that an ambiguous RUN matches."""
    name = "".join(c if c.isprintable() else "?" for c in str(run.get("name") or ""))
    return f"{run.get('run_id')}  {name}".rstrip()


def _fault_text(fault: dict[str, Any]) -> str:
    """Return `path: rule` of a fault in a request."""
    return f"{fault.get('path') or '(top level)'}: {fault.get('rule', '')}"


def code_of_run(run: dict[str, Any]) -> int:
    """Return the exit code of mosaicctl for an ended run: that of the run, 128 + signal, 124, 127 or 130.

    The outcome has priority over the exit status of the process: a run that reached its step limit succeeded,
    although a signal ended its process; a worker that reported `run_failed` failed, although it exited with
    0.
    """
    outcome = run.get("outcome")
    cause = (run.get("cause") or {}).get("kind")
    if outcome == "succeeded":
        return DONE
    if outcome == "timeout":
        return TIMEOUT
    if outcome == "cancelled":
        return CANCELLED
    if cause in ("spawn_failed", "disk_full"):
        return NOT_STARTED
    if run.get("signal"):
        return 128 + int(run["signal"])
    if run.get("exit_code"):
        return int(run["exit_code"])
    return INTERNAL if outcome == "interrupted" else FAILED
