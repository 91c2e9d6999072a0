"""The shim: the process of one run; it owns the worker's output, limits, pauses, end and exit record.

The launcher forks it.  It works while launcher and daemon are down:

| when | the shim does | and writes |
|---|---|---|
| forked | reads its order, takes the lock (held, or launch.json exists: leaves) | launch.json |
| registered, order `start` | starts the worker, sends the facts `spawned` (and `started`) | started.json |
| output | appends it, numbers telemetry, sends advances | stdout.log stderr.log telemetry.jsonl |
| pause, resume | freezes and thaws the process tree, or asks the worker; facts `paused`, `continued` | |
| stop, limit reached | begins the kill sequence; for a limit, the fact `limit_reached` | |
| the worker has ended | reaps it, reads its output, counts and ends the rest; fact `exited` | exit.json |
| the process tree is empty | sends the fact `emptied`; leaves when the daemon has acknowledged all facts | |

Facts are sent in the order in which they happened, and again after a lost connection until they are
acknowledged.  If the daemon is down and the tree is empty, the shim leaves, because exit.json is on the disk.
The shim has one thread and no asyncio: `loop` is its poll loop.

    life            the course of the process       process_table   surveys of /proc
    loop            the poll loop                   tree            the process tree: members, signals
    attempt         decides on each event           kill_sequence   TERM, CONT, grace, STOP, KILL
    commands        commands of the daemon          pause           freeze, thaw, cooperative pause
    start           the start of a worker           limits          time limit and max_steps
    worker_control  pause, limits, end of a worker  post_mortem     evidence of a run that hangs
    child           start, signal, reap a process   run_cgroup      control groups of an attempt
    ending          the content of exit.json        cgroup          control groups as files
    departure       exit.json, and when to leave    temp_cleanup    TMPDIR and /dev/shm
    attempt_dir     the lock and small records      teardown        the end of a dead shim's tree
    spool           pipes -> logs, counted gaps     link            connection to the daemon's socket
    scanner         bytes -> telemetry lines        dialogue        register, facts, advances
    telemetry_file  telemetry.jsonl                 signal_pipe     signals -> a readable descriptor
    progress        steps, episodes, last metrics   operator_log    records for the journal
    segments        a log with a size limit         output          makes the files of the spool
    index           log.index                       left_behind     processes that outlive their program
    worker_steps    the worker's side of its start
    signal_order    which process gets a signal     process_traits  shells and filters, in /proc
"""
