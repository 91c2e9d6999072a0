"""Records: the data that daemon, launcher, shim and run directory exchange; each record is defined once.

The writer and the reader of a record use the same class: its fields are the keys of the JSON object.

    record     the base class of records                untrusted      reading data of a user
    orders     the orders for a forked shim             packets        messages between daemon and launcher
    attempt    launch.json, started.json, exit.json     attempt_files  these files, read by the daemon
    reports    requests of a shim: status, cursors      facts          facts of an attempt, sent by its shim
    leftovers  leftovers.json
    control    replies and notifications to a shim

Standard library only: the launcher and every shim load this package, so it must stay small.
"""
