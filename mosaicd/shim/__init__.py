"""The shim: the process of one run; it owns the worker's output, limits, pauses, end and exit record.

The launcher forks it.  It continues while launcher and daemon are down, and does this:

| when | the shim does | and writes |
|---|---|---|
| forked | reads its order, takes the lock (taken, or launch.json exists: it leaves) | launch.json |
| registered, order `start` | starts the worker, sends the facts `spawned` (and `started`) | started.json |
| output | appends it, numbers telemetry, sends advances | stdout.log stderr.log telemetry.jsonl |
| pause, resume | freezes and thaws the process tree, or asks the worker; facts `paused`, `continued` | |
| stop, limit reached | begins the kill sequence; for a limit, the fact `limit_reached` | |
| the worker has ended | reaps it, reads its last output, ends its tree; fact `exited` | exit.json |
| the process tree is empty | sends the fact `emptied`; leaves when the daemon has acknowledged all facts | |

Facts are sent in the order in which they happened, and again after a lost connection until they are
acknowledged.  If the daemon is down and the tree is empty, the shim leaves, because exit.json is on the disk.
The shim has one thread and no event loop of asyncio: `loop` drives everything.

    life            from a fresh fork to a shim     process_table   processes of a run (reads /proc)
    loop            the poll loop                   tree            the process tree: look, signal
    attempt         what each event leads to        kill_sequence   TERM, CONT, grace, STOP, KILL
    commands        what the daemon asks for        pause           freeze, thaw, cooperative pause
    start           from order to worker            limits          time limit and max_steps
    worker_control  pause, limits, end of a worker  post_mortem     why a run stands still
    child           start, signal, reap a process   run_cgroup      control groups of an attempt
    ending          what exit.json says             cgroup          control groups as files
    departure       exit.json, and when to leave    temp_cleanup    TMPDIR and /dev/shm
    attempt_dir     the lock and small records      teardown        the end of a dead shim's tree
    spool           pipes -> logs, counted gaps     link            lines over the daemon's socket
    scanner         bytes -> telemetry lines        dialogue        register, facts, advances
    telemetry_file  telemetry.jsonl                 signal_pipe     signals -> a readable descriptor
    progress        steps, episodes, last metrics   operator_log    records for the journal
    segments        a file with a head and a ring   output          makes the files of the spool
    index           log.index
"""
