"""The teardown shim: it ends the process tree of a dead shim.

It takes the attempt's lock, which proves that the other shim is dead.  It runs the kill sequence until two
surveys in a row find no process, removes control groups and temporary directory, and writes teardown.json.
If the lock is held, a living shim is responsible for the tree, and the teardown shim exits.
"""

import select
import time

from mosaicd import crash_points
from mosaicd.protocol.records.orders import TeardownOrder
from mosaicd.shim import child
from mosaicd.shim.attempt_dir import AttemptDir, AttemptTaken
from mosaicd.shim.kill_sequence import KillSequence
from mosaicd.shim.run_cgroup import CgroupRoot, find
from mosaicd.shim.signal_pipe import SignalPipe
from mosaicd.shim.temp_cleanup import TempCleanup
from mosaicd.shim.tree import OrphanTree

TEARDOWN = "teardown.json"
_SURVEY_S = 0.02


def run(order: TeardownOrder, signals: SignalPipe, root: CgroupRoot) -> int:
    """End the process tree; return the exit status 0 when it is empty."""
    if order.given_up_shim is not None:
        child.kill_and_wait(order.given_up_shim.pid, order.given_up_shim.start_ticks)
    try:
        attempt_dir = AttemptDir(order.attempt_dir)
    except AttemptTaken:
        return 0
    crash_points.reach("shim.teardown_locked")
    began_at = time.time()
    run_cgroup = find(root, order.run_id, order.attempt)
    tree = OrphanTree(order.run_id, order.pid, order.start_ticks, run_cgroup)
    found = tree.read_members().processes
    kill_sequence = KillSequence(tree, order.signal_to, order.signal)
    if found:
        kill_sequence.begin(time.monotonic(), order.limits.grace_s)
        _wait_until_empty(tree, kill_sequence, signals)
    temp_cleanup = TempCleanup(order.run_id, order.attempt, attempt_dir)
    temp_cleanup.note_empty()
    run_cgroup.remove()
    temp_cleanup.keep_processes()
    temp_cleanup.clean_up()
    try:
        attempt_dir.write_durably(TEARDOWN, {
            "run_id": order.run_id, "attempt": order.attempt, "found": [p.pid for p in found[:50]],
            "containment": run_cgroup.kind,
            "forced": kill_sequence.is_killing, "at": began_at, "finished_at": time.time(),
        })  # fmt: skip
    except OSError:
        pass  # teardown.json is only information
    return 0


def _wait_until_empty(tree: OrphanTree, kill_sequence: KillSequence, signals: SignalPipe) -> None:
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    empty_surveys = 0
    while empty_surveys < 2:
        now = time.monotonic()
        kill_sequence.note_end(now)
        kill_sequence.tick(now)
        due = kill_sequence.next_at() or now
        poll.poll(max(0.0, min(_SURVEY_S, due - now)) * 1000 + 1)
        signals.drain()
        signals.take_term()  # SIGTERM is ignored: the teardown has to finish
        child.reap()
        empty_surveys = 0 if tree.read_members().processes else empty_surveys + 1
