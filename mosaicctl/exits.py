"""Exit codes: of mosaicctl itself, and of a run as `run` and `wait` report it.

The two share one number space on purpose (as env(1), timeout(1) and the shells do): a script that wants
to tell a run's 5 from our own `wrong state` asks `show -o json`.
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
NOT_STARTED = 127
INTERRUPTED = 130
CANCELLED = 130
BROKEN_PIPE = 141


class UsageError(Exception):
    """The command line has a mistake; the text says which, and what to write instead."""


def code_of(error: MosaicError) -> int:
    """Return mosaicctl's exit code for an error of the daemon."""
    return EXIT_CODES.get(error.name, INTERNAL)


def explain(error: MosaicError, subject: str = "") -> str:
    """Return what to print for `error`: one line, and one more for each fault the daemon found."""
    is_named = subject in error.message.replace("'", " ").replace(":", " ").split()
    lead = f"mosaicctl: {subject}: " if subject and not is_named else "mosaicctl: "
    lines = [lead + error.message]
    faults = error.data.get("errors")
    told = [_fault(fault) for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
    if told and told[0].partition(": ")[2] in error.message:
        # The message is the first fault, or all of them in a row; a list begins with it anyway.
        lines = lines if len(told) == 1 else [f"mosaicctl: the request has {len(told)} faults:"]
        told = told if len(told) > 1 else []
    lines += [f"  {fault}" for fault in told]
    lines += [f"  {_candidate(run)}" for run in error.data.get("candidates") or () if isinstance(run, dict)]
    advice = error.data.get("help")
    if isinstance(advice, str):
        lines.append(f"  {advice}")
    return "\n".join(lines) + "\n"


def _candidate(run: dict[str, Any]) -> str:
    name = "".join(c if c.isprintable() else "?" for c in str(run.get("name") or ""))
    return f"{run.get('run_id')}  {name}".rstrip()


def _fault(fault: dict[str, Any]) -> str:
    return f"{fault.get('path') or '(top level)'}: {fault.get('rule', '')}"


def code_of_run(run: dict[str, Any]) -> int:
    """Return the exit code that stands for an ended run: its own, 128 + signal, 124, 127 or 130.

    What was decided goes before what the kernel said: a run that ended at its step limit succeeded,
    although a signal ended its process; a worker that said `run_failed` failed, although it exited 0.
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
