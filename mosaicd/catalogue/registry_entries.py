"""Log records about the registry: its loss and recovery, quarantined runs, its write-ahead log."""

from mosaicd.catalogue.entry import DEBUG, ERROR, WARNING, Entry


class RegistryEntries:
    """LOG2100 to LOG2199."""

    REGISTRY_BEHIND = Entry(
        "LOG2101",
        "b0f2a7c4d81e4f0f9d2f6a5c3e7b9184",
        ERROR,
        "{summary}",
        "The registry opened without an error but knew less than the run directories. Most often its "
        "newest commits were lost, or an older copy was put in its place. The daemon recovered runs from "
        "their directories and changed the epoch. `mosaicctl health` shows this for a week.",
        "Registry",
        ("recovery",),
    )
    REGISTRY_REBUILT = Entry(
        "LOG2102",
        "df92ee7ef70145c19f0372e1eff687fb",
        ERROR,
        "{summary}",
        "The registry was missing, empty or damaged. The daemon set the old file aside, if there was "
        "one, and made a new registry from the run directories. `mosaicctl health` shows this until the "
        "set-aside directory is moved away.",
        "Registry",
        ("recovery",),
    )
    DIRECTORY_NOT_RECOVERED = Entry(
        "LOG2103",
        "1708f872978d45bd800441b827c6d826",
        WARNING,
        "no run is recovered from directory {directory}: {why}",
        "The files in the directory do not describe a complete run, or the run cannot be stored in the "
        "registry. The daemon changes nothing in the directory. `mosaicctl doctor` lists the directories "
        "that have no record in the registry.",
        "Registry",
        ("recovery", "files"),
    )
    RUN_NOT_RECOVERED = Entry(
        "LOG2104",
        "338dba34fe11471499a480f2c7334572",
        ERROR,
        "run {run_id} is quarantined and not recovered: {why}",
        "The registry did not know this run, and another run has its slots or its key. The run is "
        "quarantined: the daemon does not manage it, and its slots, if it has any, stay reserved while a "
        "process of it is alive. Check its processes and end those that should not run.",
        "Registry",
        ("recovery",),
    )
    ROW_QUARANTINED = Entry(
        "LOG2105",
        "1a4d8adbfbf922cbdbe2496d7e074aab",
        ERROR,
        "run {run_id} is quarantined: {why}",
        "The record of the run in the registry cannot be read, or contradicts the events or the slots of "
        "the run. The daemon moves the record into the quarantine unchanged and does not manage the run. "
        "`mosaicctl health` lists it under quarantine.",
        "Registry",
        ("quarantine",),
    )
    COMMIT_RETRIED = Entry(
        "LOG2107",
        "b00c60dc12594147a318f9a022956ca6",
        WARNING,
        "a change of a run could not be saved: {why}; the daemon tries again until it is saved",
        "Most often the disk is full. While the registry cannot be written, requests that change "
        "something are refused. This is logged at most once in 30 s.",
        "Registry",
        ("disk",),
    )
    RUN_NOT_RECORDED = Entry(
        "LOG2108",
        "ee290559e7d34533ab1ce83708c81b3e",
        WARNING,
        "the events of run {run_id} from the time without a daemon cannot be saved yet: {why}",
        "Most often the disk is full. The daemon reads the run's files again until the change is saved.",
        "Registry",
        ("recovery", "disk"),
    )
    WAL_CHECKPOINTED = Entry(
        "LOG2120",
        "87b6ef103430d7f712df9f99fed550b1",
        DEBUG,
        "checkpoint: busy {busy}, log {log_pages}, checkpointed {checkpointed}",
        "The result of PRAGMA wal_checkpoint(TRUNCATE). With busy 0, the write-ahead log was copied into "
        "the registry and is empty. With busy 1, another connection used it, and the next checkpoint "
        "continues.",
        "Registry",
        ("checkpoint",),
    )
    WAL_BUSY = Entry(
        "LOG2121",
        "4dbb44d748baefac2631a2a00157eb2b",
        WARNING,
        "{rounds} checkpoints in a row did not empty the registry's write-ahead log, because another "
        "connection uses it; it has {log_pages} pages",
        "Most often a process reads the registry for a long time (a backup, an sqlite3 shell). The "
        "write-ahead log grows until that process ends its transaction.",
        "Registry",
        ("checkpoint",),
    )
    CHECKPOINT_FAILED = Entry(
        "LOG2122",
        "862f5ddd089241ea8e5765c8b5d45046",
        WARNING,
        "the checkpoint of the registry's write-ahead log failed: {why}; the daemon tries again later",
        "Most often the disk is full or faulty. The write-ahead log grows until a checkpoint succeeds.",
        "Registry",
        ("checkpoint", "disk"),
    )
