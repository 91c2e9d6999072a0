"""Log records about the launcher and the shims."""

from mosaicd.catalogue.entry import DEBUG, ERROR, INFO, WARNING, Entry


class ShimEntries:
    """LOG2300 to LOG2399."""

    LAUNCHER_STARTED = Entry(
        "LOG2301",
        "62fa6be6d300c3545d133ea5aabd458b",
        DEBUG,
        "launcher started (pid {pid})",
        "The process that forks shims was started.",
        "Shim",
        ("launcher", "lifecycle"),
    )
    LAUNCHER_LOST = Entry(
        "LOG2302",
        "2a63eb432445f23bac0b2037076b283b",
        WARNING,
        "the launcher (pid {pid}) ended with status {status}; another one is started",
        "The process that forks shims ended. Live runs are not affected; starts of runs wait for the "
        "next launcher, which starts after a back-off.",
        "Shim",
        ("launcher",),
    )
    LAUNCHER_NOT_STARTED = Entry(
        "LOG2303",
        "2fa142277efe420f816878831cb63e16",
        ERROR,
        "the launcher cannot be started: {why}; the daemon tries again",
        "Most often the machine has no free process, memory or file descriptor. No run starts until "
        "there is a launcher; live runs continue.",
        "Shim",
        ("launcher", "resources"),
    )
    LAUNCHER_KILLED = Entry(
        "LOG2304",
        "ec830de9dd0a43ff933aa36e7942a712",
        WARNING,
        "the launcher did not exit within {limit_s:g} s and is killed",
        "The daemon stops and ends its launcher by force. Live runs are not affected.",
        "Shim",
        ("launcher",),
    )
    LAUNCHER_SILENT = Entry(
        "LOG2305",
        "b7002b7fff7342daa81e7fe31e368c1e",
        WARNING,
        'the launcher did not answer the order "{order}" of run {run_id} in {silence_s:g} s and is killed',
        "Orders are launch, teardown and is_empty (is the process tree empty?). The daemon starts another "
        "launcher and sends it all orders that were not answered. No run starts twice, and live runs are not "
        "affected.",
        "Shim",
        ("launcher",),
    )
    SHIM_LOST = Entry(
        "LOG2320",
        "d563a8372b9cd56541a413b5f832dd4c",
        WARNING,
        "run {run_id} attempt {attempt} has lost its shim ({cause})",
        "The shim ended without an exit record, or was silent for too long (SHIM_SILENT), or (rebooted) "
        "the machine was restarted. The daemon ends the rest of the process tree.",
        "Shim",
        ("shim",),
    )
    SHIM_SILENT = Entry(
        "LOG2321",
        "54f684c4dccb4f43bca196c3a74ac9d6",
        WARNING,
        "the shim of run {run_id} is alive but has sent nothing for {silence_s:g} s",
        "The daemon treats the shim as lost and ends it, then its process tree.",
        "Shim",
        ("shim",),
    )
    SHIM_STUCK = Entry(
        "LOG2322",
        "ed32391a86514cdaaab1bbc2e079bed0",
        WARNING,
        "the shim of run {run_id} does not end its process tree; the launcher starts a teardown shim",
        "The daemon gives up the shim. A teardown shim ends it and the rest of the process tree.",
        "Shim",
        ("shim", "processes"),
    )
    SHIM_ENDED = Entry(
        "LOG2323",
        "dd414125bc7a466c98b070ee9cdc7b4d",
        INFO,
        "the shim of run {run_id} (pid {pid}) was ended by signal {signal}",
        "A shim or a teardown shim was killed. If the run has not failed yet and has no exit record, "
        "SHIM_LOST follows.",
        "Shim",
        ("shim",),
    )
    SHIM_CRASHED = Entry(
        "LOG2324",
        "4f22e02b122a47799256f11ba5723b5f",
        ERROR,
        "the shim of run {run_id} (pid {pid}) failed with exit code {exit_code}",
        "A shim or a teardown shim has a defect. Its traceback, if the disk had room, is in "
        "shim-crash.txt in the attempt's directory; please report it.",
        "Shim",
        ("shim", "defect"),
    )
    LAUNCH_FAILED = Entry(
        "LOG2325",
        "a30326251c3c400dbc411141aa3616c6",
        ERROR,
        "attempt {attempt} of run {run_id} cannot be launched: {why}",
        "The launcher could not start the shim, several shims ended before they wrote launch.json, or "
        "spec.json or environment.json cannot be read. The attempt fails with the cause spawn_failed or, "
        "if the disk or the quota is full, disk_full. A new attempt follows if the retries of the run "
        "allow it.",
        "Shim",
        ("launch",),
    )
    LAUNCH_DELAYED = Entry(
        "LOG2326",
        "0880c805bcb84e769c2d0bf4d718fe33",
        WARNING,
        "run {run_id} cannot be launched yet: {why}; the daemon tries again until the handshake timeout",
        "The machine has no process, file descriptor or memory for a shim. This is logged once for an "
        "attempt, and again only after a shim was forked.",
        "Shim",
        ("launch", "resources"),
    )
    TEARDOWN_FAILED = Entry(
        "LOG2327",
        "ba8409bebeac450bb74cd0ec43a5e271",
        ERROR,
        "no teardown shim could be started for run {run_id}: {why}",
        "A teardown shim ends what remains of a run whose shim has died or was given up: its processes, and "
        "the shim that was given up. The daemon tries again.",
        "Shim",
        ("processes",),
    )
    FACT_REFUSED = Entry(
        "LOG2328",
        "2a28e1281378392121d7d69a71ec0683",
        WARNING,
        "facts of run {run_id} are refused because they cannot happen in state {state}: {facts}",
        "A shim reported something that its run's state does not allow. These facts changed nothing.",
        "Shim",
        ("protocol",),
    )
    FACT_LATE = Entry(
        "LOG2329",
        "c921a12e585941ff9c51749977a35a9f",
        INFO,
        "facts of run {run_id} came too late and are ignored: {facts}",
        "The shim reported them after the attempt had failed (state FAULT). These facts changed nothing; "
        "other facts of the same message may have been recorded.",
        "Shim",
        ("protocol",),
    )
    RUN_DIR_REMOVED = Entry(
        "LOG2330",
        "0cb41f0a77abfa1b3c291c87ff19cd23",
        WARNING,
        "{path} was removed: the output and the end of run {run_id} attempt {attempt} are not recorded",
        "The shim of the run writes this record itself. The worker continues, and the daemon can stop it. A "
        "running daemon gets the outcome; otherwise the outcome is lost.",
        "Shim",
        ("shim", "rundir"),
    )
