"""Named places at which a drill may kill the process that passes: MOSAICD_CRASH_AT=name[:n], see mosaicd(8).

`reach` marks a place; where nothing is armed it is one comparison.  An armed place kills its process with
SIGKILL when it is passed for the n-th time: nothing is cleaned up, flushed or said.  A reader would get
wrong: the count is of all processes forked since `arm` together (the tokens lie in a pipe), so exactly one
shim dies, whichever comes n-th.
"""

import os
import signal

#: Name -> the moment.  The first word says where it lies; what a launcher or a shim passes is in FORKED.
POINTS: dict[str, str] = {
    "startup.listening": "the socket is bound, the registry not yet open",
    "startup.loaded": "the registry is open, nothing reconciled",
    "startup.reconciled": "what live runs missed is recorded, nothing carried out",
    "startup.ready": "everybody is answered from now on",
    "rebuild.written": "another registry is whole, and not decided on",
    "restore.decided": "what takes the registry's place is named, the registry still in its own",
    "restore.set_aside": "the registry is moved aside, nothing in its place",
    "adopt.before_commit": "what only run directories knew is written, not committed",
    "adopt.after_commit": "what only run directories knew is in the registry, and nobody was told",
    "submit.directory_written": "spec and environment are on the disk, the registry knows nothing",
    "submit.before_commit": "inside the transaction of a new run",
    "submit.after_commit": "the run is on the disk, the daemon's memory does not know it",
    "submit.before_reply": "the run is everywhere but with its submitter",
    "record.before_commit": "inside any transaction, all of it written",
    "record.after_commit": "after any COMMIT, before anybody learns of it",
    "dispatch.chosen": "it is a run's turn, nothing recorded",
    "dispatch.recorded": "slots are claimed, no shim ordered",
    "order.made": "an order to the launcher is put together, not sent",
    "order.sent": "the order is with the launcher, unanswered",
    "order.answered": "the launcher has forked, the daemon has taken note",
    "register.before_record": "a shim registers, nothing recorded",
    "register.before_reply": "the shim is recorded and bound, and does not know it",
    "fact.before_record": "facts have arrived, nothing recorded",
    "fact.before_reply": "facts are recorded, the shim does not know it",
    "exit.before_conclude": "the tree is empty, the run not concluded",
    "exit.concluded": "the run is concluded, its environment not yet removed",
    "checkpoint.before": "the write-ahead log is about to be moved",
    "checkpoint.after": "the write-ahead log is empty, nobody knows it",
    "prune.marked": "directories of ended runs say that they are given up, nothing recorded",
    "prune.recorded": "rows of pruned runs are gone, their directories whole",
    "prune.removing": "a pruned run's directory has lost its spec, and nothing else",
    "prune.removed": "directories of pruned runs are gone, nobody has noted it",
    "launcher.order_taken": "the launcher has an order in hand",
    "launcher.forked": "the launcher has forked and not answered",
    "shim.forked": "a shim is a process of its own, without its lock",
    "shim.locked": "it holds the attempt's lock",
    "shim.launch_written": "launch.json is there",
    "shim.registering": "its register is sent",
    "shim.accepted": "it was told to start its worker",
    "shim.spawned": "the worker runs, started.json does not say so",
    "shim.started_written": "started.json is there, no fact sent",
    "shim.reaped": "the worker was reaped, exit.json is not there",
    "shim.exit_written": "exit.json is there, no fact sent",
    "shim.leaving": "everything is told, the lock is still held",
    "shim.teardown_locked": "a teardown shim holds the lock of an orphaned tree",
}
FORKED = ("launcher.", "shim.")
#: What a daemon passes only when something happened to its registry, or when runs are pruned.
CARE = ("rebuild.", "restore.", "adopt.", "prune.")
VARIABLE = "MOSAICD_CRASH_AT"

_armed: str | None = None
_tokens = -1


def parse(spec: str) -> tuple[str, int]:
    """Return name and count of `name[:n]`; ValueError with the rule."""
    name, _, count = spec.partition(":")
    if name not in POINTS:
        raise ValueError(f"{name!r} is no crash point; there are {', '.join(POINTS)}")
    if not (count or "1").isdecimal() or not 1 <= int(count or "1") <= 1000:
        raise ValueError(f"the count after {name} must be a number from 1 to 1000, not {count!r}")
    return name, int(count or "1")


def is_forked(spec: str) -> bool:
    """Whether the place lies in the launcher or in a shim, and not in the daemon."""
    return spec.startswith(FORKED)


def arm_for_daemon(spec: str | None) -> None:
    """Arm what is asked for, unless it lies in the launcher or in a shim."""
    if spec and not is_forked(spec):
        arm(spec)


def arm(spec: str) -> None:
    """Have the n-th passing of the place, here or in a process forked from here, be the last."""
    global _armed, _tokens
    name, count = parse(spec)
    _tokens, tokens = os.pipe()
    os.set_blocking(_tokens, False)
    os.write(tokens, b"." * (count - 1) + b"x")
    os.close(tokens)
    _armed = name


def reach(name: str) -> None:
    """Pass a place."""
    if name == _armed and os.read(_tokens, 1) == b"x":
        signal.raise_signal(signal.SIGKILL)
