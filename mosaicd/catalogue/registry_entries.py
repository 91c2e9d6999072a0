"""Log records about the registry: its loss and recovery, quarantined runs, its write-ahead log."""

from mosaicd.catalogue.entry import CRITICAL, DEBUG, ERROR, WARNING, Entry


class RegistryEntries:
    """LOG2100 to LOG2199."""

    REGISTRY_BEHIND = Entry(
        "LOG2101",
        "b0f2a7c4d81e4f0f9d2f6a5c3e7b9184",
        ERROR,
        "{summary}",
        "The registry opened without an error but knew less than the run directories: its newest commits "
        "were lost, or an older copy was put in its place. The daemon wrote the missing runs into it and "
        "changed the epoch. `mosaicctl health` shows this for a week.",
        "Registry",
        ("recovery",),
    )
    REGISTRY_REBUILT = Entry(
        "LOG2102",
        "df92ee7ef70145c19f0372e1eff687fb",
        ERROR,
        "{summary}",
        "The registry was missing or damaged. The daemon set the damaged file aside and made a new "
        "registry from the run directories. `mosaicctl health` shows this until the set-aside directory is "
        "moved away.",
        "Registry",
        ("recovery",),
    )
    DIRECTORY_NOT_RECOVERED = Entry(
        "LOG2103",
        "1708f872978d45bd800441b827c6d826",
        WARNING,
        "no run is recovered from directory {directory}: {why}",
        "A run directory has no record in the registry and its files do not describe a complete run. The "
        "daemon changes nothing in it. `mosaicctl doctor` lists such directories.",
        "Registry",
        ("recovery", "files"),
    )
    RUN_NOT_RECOVERED = Entry(
        "LOG2104",
        "338dba34fe11471499a480f2c7334572",
        ERROR,
        "run {run_id} is not recovered: {why}; its slots stay reserved",
        "A live run that the registry does not know needs slots, or has a key, that another run has. The "
        "daemon does not manage it. Look at its processes and end those that should not run.",
        "Registry",
        ("recovery",),
    )
    ROW_QUARANTINED = Entry(
        "LOG2105",
        "1a4d8adbfbf922cbdbe2496d7e074aab",
        ERROR,
        "run {run_id} is quarantined: {why}",
        "The record of the run in the registry is not valid. The daemon moves the record aside and does not "
        "manage the run. `mosaicctl health` lists it under quarantine.",
        "Registry",
        ("quarantine",),
    )
    REGISTRY_FAILED = Entry(
        "LOG2106",
        "575c1afc63bd6febafc6dfc7d089d9f7",
        CRITICAL,
        "the registry cannot be written any more: {why}",
        "The daemon cannot save what it accepts, so it stops; the service manager starts it again. Runs "
        "continue in their shims.",
        "Registry",
        ("disk",),
    )
    COMMIT_RETRIED = Entry(
        "LOG2107",
        "b00c60dc12594147a318f9a022956ca6",
        WARNING,
        "a change of a run could not be saved: {why}; the daemon tries again until it is saved",
        "Most often the disk is full. New requests are refused meanwhile. This is logged at most once "
        "in 30 s.",
        "Registry",
        ("disk",),
    )
    RUN_NOT_RECORDED = Entry(
        "LOG2108",
        "ee290559e7d34533ab1ce83708c81b3e",
        WARNING,
        "what run {run_id} did while no daemon ran could not be saved yet: {why}",
        "Most often the disk is full. The daemon reads the run's files again until the change is saved.",
        "Registry",
        ("recovery", "disk"),
    )
    WAL_CHECKPOINTED = Entry(
        "LOG2120",
        "87b6ef103430d7f712df9f99fed550b1",
        DEBUG,
        "checkpoint: busy {busy}, log {log_pages}, checkpointed {checkpointed}",
        "SQLite's answer to a checkpoint: the write-ahead log was copied into the registry.",
        "Registry",
        ("checkpoint",),
    )
    WAL_BUSY = Entry(
        "LOG2121",
        "4dbb44d748baefac2631a2a00157eb2b",
        WARNING,
        "{rounds} checkpoints in a row did not empty the registry's write-ahead log: a reader holds it; it "
        "has {log_pages} pages",
        "A process reads the registry for a long time (a backup, an sqlite3 shell). The write-ahead log "
        "grows until that reader ends.",
        "Registry",
        ("checkpoint",),
    )
    CHECKPOINT_FAILED = Entry(
        "LOG2122",
        "862f5ddd089241ea8e5765c8b5d45046",
        WARNING,
        "the checkpoint of the registry failed: {why}; the next one is tried later",
        "Most often the disk is full or faulty. The write-ahead log grows until a checkpoint succeeds.",
        "Registry",
        ("checkpoint", "disk"),
    )
