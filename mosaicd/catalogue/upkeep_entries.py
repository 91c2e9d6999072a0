"""Log records about retention, temporary directories, import and the discovery of workers."""

from mosaicd.catalogue.entry import INFO, WARNING, Entry


class UpkeepEntries:
    """LOG2500 to LOG2599."""

    RUNS_PRUNED = Entry(
        "LOG2501",
        "559173e4860c40f3bb277cb04459e085",
        INFO,
        "{count} ended runs pruned by {who}: {bytes} bytes",
        "Ended runs were removed for good: row, events and directory (LOG2503 names a directory that could "
        "not be removed). The settings in [retention] or a user asked for it. Their ids are never used "
        "again.",
        "Upkeep",
        ("retention",),
    )
    PRUNE_FAILED = Entry(
        "LOG2502",
        "eee9e5ea4edb442daec45e7db875234a",
        WARNING,
        "ended runs could not be pruned: {why}; the daemon tries again later",
        "Most often the disk is full: to prune, the daemon has to write to the registry.",
        "Upkeep",
        ("retention", "disk"),
    )
    PRUNED_DIRECTORY_LEFT = Entry(
        "LOG2503",
        "bac52c775deb4614a15ff32d6dff4d18",
        WARNING,
        "the directory of pruned run {run_id} cannot be removed: {why}",
        "The run is pruned, but its files still take space. The daemon tries again later.",
        "Upkeep",
        ("retention", "files"),
    )
    HOLDER_UNKNOWN = Entry(
        "LOG2504",
        "6a346e7c355c4aaaa5b816a384372d08",
        WARNING,
        "run {run_id} is not pruned now: the daemon cannot find out whether a shim holds it: {why}",
        "The daemon tries again later.",
        "Upkeep",
        ("retention",),
    )
    TEMP_DIRS_UNREAD = Entry(
        "LOG2520",
        "c574cd035fe049ba9ee570629e80b2f7",
        INFO,
        "leftover temporary directories cannot be listed: {why}; the daemon tries again later",
        "A killed shim does not remove its run's temporary directory. The daemon removes the directory "
        "when it can list such directories again, through the launcher.",
        "Upkeep",
        ("files",),
    )
    HISTORY_IMPORTED = Entry(
        "LOG2530",
        "926bc366f57b49f9ac1fd0564f568672",
        INFO,
        "{who} imported {count} runs from {path}",
        "Runs of the original MOSAIC's registry were added as history.",
        "Upkeep",
        ("import",),
    )
    WORKER_KIND_BROKEN = Entry(
        "LOG2540",
        "2b2de74e4d9a36ccb8871527a6add25e",
        WARNING,
        "worker {kind} cannot be used: {why}",
        "The interpreter did not start, did not list its installed workers in time and readably, or does "
        "not have this worker; or the worker itself cannot be loaded. Other workers are not affected.",
        "Upkeep",
        ("workers",),
    )
    NO_OWN_WORKERS = Entry(
        "LOG2541",
        "1cd28cffe4bb48e9a4416eaedea5d37d",
        INFO,
        "the workers in the daemon's own Python environment cannot be listed: {why}",
        "The SDK is not installed there, or its interpreter did not answer. Until `mosaicctl workers "
        "--refresh` queries it again, `--worker KIND` finds only the workers of the sections "
        "[workers.KIND] of mosaicd.toml(5).",
        "Upkeep",
        ("workers",),
    )
