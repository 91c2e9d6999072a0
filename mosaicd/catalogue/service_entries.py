"""Log records about the daemon itself: its start, its stop, its own faults."""

from mosaicd.catalogue.entry import CRITICAL, ERROR, INFO, WARNING, Entry


class ServiceEntries:
    """LOG2000 to LOG2099."""

    DAEMON_STARTED = Entry(
        "LOG2001",
        "a0590815e9b13459fda97026da638455",
        INFO,
        "mosaicd {version} started (pid {pid})",
        "The daemon holds its locks and its socket. Before DAEMON_READY it answers only shims, daemon.hello "
        "and daemon.health; other requests wait.",
        "Service",
        ("lifecycle",),
    )
    DAEMON_READY = Entry(
        "LOG2002",
        "e2c015f249b9351004f210e44f562165",
        INFO,
        "ready; live runs: {live}, of which {waiting} wait",
        "The daemon answers every request. Recovery is complete, unless RECONCILE_LATE was logged.",
        "Service",
        ("lifecycle",),
    )
    DAEMON_STOPPING = Entry(
        "LOG2003",
        "731da59ff9fc2836b7bb00589647a091",
        INFO,
        "stopping ({reason})",
        "The daemon received the signal that is named, or (reexec) was asked to replace itself. Runs "
        "continue in their shims.",
        "Service",
        ("lifecycle",),
    )
    DAEMON_REPLACED = Entry(
        "LOG2004",
        "6f1e0c57b4a84b0c9d3a8a2f5be4d7c1",
        INFO,
        "replacing the daemon with the program that is installed now",
        "`mosaicctl daemon reexec` was called. The process, its locks and its socket stay; the program "
        "starts again.",
        "Service",
        ("lifecycle",),
    )
    DAEMON_STOPPED = Entry(
        "LOG2005",
        "a014fef5f3e0f836d23c6ee43ddaf436",
        INFO,
        "stopped",
        "The daemon has stopped in good order.",
        "Service",
        ("lifecycle",),
    )
    RECONCILED = Entry(
        "LOG2006",
        "9e97b749eef6a5bb6b4035ea65d736ab",
        INFO,
        "reconciled in {seconds:.3f} s; runs: {runs}, alive: {alive}, ended: {ended}, lost: {lost}",
        "At the start, the daemon compared the runs that hold slots with their run directories and "
        "living shims. ALIVE: a shim holds the attempt. ENDED: the shim has ended and its worker's exit "
        "is recorded. LOST: the shim has ended without an exit record. TO_LAUNCH: the order to start the "
        "shim is sent again.",
        "Service",
        ("lifecycle", "recovery"),
    )
    REPLACE_FAILED = Entry(
        "LOG2020",
        "2f21a907191f477087cb56a9dd54bf06",
        ERROR,
        "the daemon was not replaced: {why}; it continues as version {version}",
        "The installed program could not be executed. Most often the installation is broken: repair it, "
        "then call `mosaicctl daemon reexec` again. Runs are not affected.",
        "Service",
        ("lifecycle",),
    )
    RECONCILE_LATE = Entry(
        "LOG2021",
        "6e01b6eda02d4ee5917fc9f602ee5cff",
        ERROR,
        "the run directories were not all read within {timeout_s:g} s; the daemon starts without the rest",
        "Most often a disk is slow, or there are very many runs. The dispatcher reads the remaining run "
        "directories while the daemon already answers.",
        "Service",
        ("recovery", "disk"),
    )
    FATAL_ERROR = Entry(
        "LOG2022",
        "31cb6eab3a6c4bccbf53f8eb5f10120d",
        CRITICAL,
        "the daemon stops because of an internal error: {why}",
        "Most often the daemon has a defect, or the disk of the registry has failed. The service manager "
        "starts the daemon again. Runs continue in their shims. The traceback is in this record; please "
        "report it.",
        "Service",
        ("defect",),
    )
    TASK_FAILED = Entry(
        "LOG2023",
        "25f90258f6db45b4bb03b46ea1bb40be",
        ERROR,
        "background task {task} failed and is off until the next start: {why}",
        "The daemon has a defect. It still answers requests. `mosaicctl daemon reexec` starts the task "
        "again. The traceback is in this record; please report it.",
        "Service",
        ("defect",),
    )
    NOTIFY_SOCKET_DEAD = Entry(
        "LOG2024",
        "0d47e42aa2c84784a92704e04abb4ad5",
        WARNING,
        "cannot connect to the notify socket {path}; systemd is not informed",
        "NOTIFY_SOCKET names a socket that does not exist, that no process reads, or that the daemon may "
        "not use. The daemon connects only when it starts. It answers requests, but sends neither READY=1 "
        "nor watchdog messages: systemd stops a unit with Type=notify when its start times out.",
        "Service",
        ("systemd",),
    )
    WATCHDOG_WITHHELD = Entry(
        "LOG2025",
        "c0abf78051c9ecaf8bace5b22e9e7664",
        ERROR,
        "no watchdog message was sent: the registry has not committed for {watchdog_s:g} s",
        "The event loop works, but the thread that writes the registry does not. If it does not recover, "
        "the service manager stops the daemon and starts it again. Runs are not affected.",
        "Service",
        ("systemd", "registry"),
    )
    LOG_DROPPED = Entry(
        "LOG2026",
        "2821bc0c39bc5b438267a262be855064",
        WARNING,
        "{count} log records are lost because the journal did not accept them",
        "Most often the journal was too slow. The daemon never waits for it.",
        "Service",
        ("journal",),
    )
