"""Crash points: named places at which a drill may kill a process; MOSAICD_CRASH_AT=name[:n], see mosaicd(8).

`reach` marks a crash point; if no point is armed, it costs one comparison.  An armed point kills its process
with SIGKILL when it is reached for the n-th time: nothing is cleaned up, flushed or logged.
Note: all processes forked since `arm` share one count (its tokens are in a pipe), so exactly one shim dies.
"""

import os
import signal

#: Name -> the moment.  The first word is the activity; launcher and shims reach only the names of FORKED.
POINTS: dict[str, str] = {
    "startup.listening": "the socket is bound; the registry is not open yet",
    "startup.loaded": "the registry is open; nothing is reconciled yet",
    "startup.reconciled": "the events that live runs missed are recorded; other runs still wait",
    "startup.ready": "from now on the daemon answers all clients",
    "replace.staged": "the file that replaces the registry is complete; its use is not decided yet",
    "replace.decided": "the file that replaces the registry has its name; the registry is still there",
    "replace.set_aside": "the registry is set aside; nothing is in its place yet",
    "recover.before_commit": "the runs from the run directories are written; they are not committed yet",
    "recover.after_commit": "the runs from the run directories are committed; no client knows it yet",
    "submit.directory_written": "spec and environment are on the disk; the registry has no row yet",
    "submit.before_commit": "inside the transaction of a new run, before its commit",
    "submit.after_commit": "the run is committed; the daemon's memory does not have it yet",
    "submit.before_reply": "the run is stored; the client has no reply yet",
    "record.before_commit": "inside any transaction, after its last write",
    "record.after_commit": "after any commit, before the event loop knows it",
    "dispatch.chosen": "a run is chosen to start; nothing is recorded yet",
    "dispatch.recorded": "the slots are reserved; no shim is ordered yet",
    "order.made": "an order to the launcher is ready; it is not sent yet",
    "order.sent": "the order is sent; the launcher has not answered yet",
    "order.answered": "the launcher has forked and answered",
    "register.before_record": "a shim registers; nothing is recorded yet",
    "register.before_reply": "the registration is recorded; the shim has no reply yet",
    "fact.before_record": "facts have arrived; nothing is recorded yet",
    "fact.before_reply": "facts are recorded; the shim has no reply yet",
    "exit.before_conclude": "the process tree is empty; the end is not recorded yet",
    "exit.concluded": "the end is recorded; the environment is not removed yet",
    "checkpoint.before": "the write-ahead log is about to be checkpointed",
    "checkpoint.after": "the write-ahead log is checkpointed; the result is not reported yet",
    "prune.marked": "directories of ended runs are marked as pruned; nothing is recorded yet",
    "prune.recorded": "the rows of pruned runs are deleted; their directories are complete",
    "prune.removing": "the directory of a pruned run has lost its spec, and nothing else",
    "prune.removed": "the directories of pruned runs are removed; this is not recorded yet",
    "launcher.order_taken": "the launcher has read an order",
    "launcher.forked": "the launcher has forked; it has not answered yet",
    "shim.forked": "a shim has its own process; it has no lock yet",
    "shim.locked": "the shim holds the lock of its attempt",
    "shim.launch_written": "launch.json is written",
    "shim.registering": "the shim has sent its registration",
    "shim.accepted": "the shim has received the order to start its worker",
    "shim.spawned": "the worker runs; started.json is not written yet",
    "shim.started_written": "started.json is written; no fact is sent yet",
    "shim.reaped": "the worker is reaped; exit.json is not written yet",
    "shim.exit_written": "exit.json is written; no fact is sent yet",
    "shim.leaving": "all facts are sent; the lock is still held",
    "shim.teardown_locked": "a teardown shim holds the lock of an orphaned process tree",
}
FORKED = ("launcher.", "shim.")
#: The daemon reaches these only after damage to its registry, or when runs are pruned.
RARE = ("replace.", "recover.", "prune.")
VARIABLE = "MOSAICD_CRASH_AT"

_armed: str | None = None
_tokens = -1


def parse(spec: str) -> tuple[str, int]:
    """Return name and count of `name[:n]`; ValueError with the rule."""
    name, _, count = spec.partition(":")
    if name not in POINTS:
        raise ValueError(f"{name!r} is not a crash point; the crash points are {', '.join(POINTS)}")
    if not (count or "1").isdecimal() or not 1 <= int(count or "1") <= 1000:
        raise ValueError(f"the count after {name} must be a number from 1 to 1000, not {count!r}")
    return name, int(count or "1")


def is_forked(spec: str) -> bool:
    """Return whether only the launcher or a shim reaches this point, and not the daemon."""
    return spec.startswith(FORKED)


def arm_for_daemon(spec: str | None) -> None:
    """Arm the point, unless it is in the launcher or in a shim."""
    if spec and not is_forked(spec):
        arm(spec)


def arm(spec: str) -> None:
    """Kill the process that reaches the point for the n-th time: this one, or one forked from it."""
    global _armed, _tokens
    name, count = parse(spec)
    _tokens, tokens = os.pipe()
    os.set_blocking(_tokens, False)
    os.write(tokens, b"." * (count - 1) + b"x")
    os.close(tokens)
    _armed = name


def reach(name: str) -> None:
    """Mark a crash point; kill this process here if the point is armed and its count is reached."""
    if name == _armed and os.read(_tokens, 1) == b"x":
        signal.raise_signal(signal.SIGKILL)
