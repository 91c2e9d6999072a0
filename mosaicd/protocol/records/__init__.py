"""Records: what crosses between daemon, launcher, shim and run directory; each one is defined once.

The writer and the reader of a record use the same class: its fields are the keys of the JSON object.

    record     the mechanism                            untrusted      reads what a user may have written
    orders     the two orders a shim is forked for      packets        between daemon and launcher
    attempt    launch.json, started.json, exit.json     attempt_files  those files as the daemon has read them
    reports    what a shim reports: status, cursors     facts          what has happened to an attempt
    control    what the daemon tells a shim

Standard library only: the launcher and every shim load this package, so it must stay small.
"""
