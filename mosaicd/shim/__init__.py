"""The shim: one small process a run, which owns the worker's output, limits, pauses, end and record.

It is forked by the launcher, carries on while launcher and daemon are down, and does no more than this:

| when | it does | and records |
|---|---|---|
| forked | reads its order; takes the attempt's lock (held, or launch.json there: leaves) | launch.json |
| registered, order `start` | starts the worker, facts `spawned` (and `started`) | started.json, fsynced |
| output | appends it, numbers telemetry, sends coalesced advances | stdout.log stderr.log telemetry.jsonl |
| pause, resume | freezes and thaws the tree, or asks the worker; facts `paused`, `continued` | |
| stop, a limit passed | kill sequence; fact `limit_reached` for a limit | |
| the leader ended | reaps it, empties the pipes; fact `exited`; sweeps the rest | exit.json, fsynced |
| the tree is empty | fact `emptied`; leaves when `exited` was acknowledged | |

Facts are sent in the order they happened, and again after a lost connection until they are acknowledged.
With the daemon away and the tree empty the shim leaves too: by then exit.json is on the disk, and files
are the truth.  One thread, no asyncio: everything is driven from `loop`.

    life         from a fresh fork to a shim        containment  who belongs to a tree (reads /proc)
    loop         the poll loop                      tree         a tree to look at and to signal
    attempt      what each event leads to           ladder       TERM, CONT, grace, STOP, KILL, until empty
    record       lock and small records             pause        freeze, thaw, cooperative pause
    start        from order to worker               limits       time limit and max_steps
    child        starts, signals, reaps             progress     steps, episodes, last metrics
    link         lines over the daemon's socket
    dialogue     register, facts, advances          ending       what exit.json says
    spool        pipes -> logs, counted gaps        teardown     ends an orphaned tree instead
    scanner      bytes -> telemetry lines           cell         those of one attempt, and its limits
    journal      telemetry.jsonl                    wake         signals -> a readable descriptor
    cgroup       control groups as files            post_mortem  why a run stands still
    leftovers    TMPDIR and /dev/shm
"""
