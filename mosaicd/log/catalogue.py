"""The event catalogue: what the daemon tells its operator, one row each, with an id that never changes.

The ids are MESSAGE_IDs of the journal (`journalctl MESSAGE_ID=...`); `journal_catalogue` makes the file
that gives `journalctl -x` its explanations.  A row's text may change, its id and name may not.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of record: its id, its level, its sentence (fields in braces) and what to make of it."""

    message_id: str
    level: int
    sentence: str
    explanation: str


class Catalogue(Enum):
    """Every structured event that is logged."""

    DAEMON_STARTED = Entry(
        "a0590815e9b13459fda97026da638455",
        logging.INFO,
        "mosaicd {version} started (pid {pid})",
        "The daemon holds its locks and its socket. Requests are answered after RECONCILED.",
    )
    DAEMON_READY = Entry(
        "e2c015f249b9351004f210e44f562165",
        logging.INFO,
        "ready; runs live: {live}, waiting: {waiting}",
        "Reconciliation has ended and every request is answered.",
    )
    DAEMON_STOPPING = Entry(
        "731da59ff9fc2836b7bb00589647a091",
        logging.INFO,
        "stopping: {reason}",
        "The daemon was asked to stop. Runs go on in their shims; nothing that runs is disturbed.",
    )
    DAEMON_REPLACED = Entry(
        "6f1e0c57b4a84b0c9d3a8a2f5be4d7c1",
        logging.INFO,
        "becoming the program that is installed now",
        "The daemon was asked for a reexec: it keeps process, locks and socket, and starts anew.",
    )
    DAEMON_STOPPED = Entry(
        "a014fef5f3e0f836d23c6ee43ddaf436",
        logging.INFO,
        "stopped",
        "The daemon has left in good order.",
    )
    RECONCILED = Entry(
        "9e97b749eef6a5bb6b4035ea65d736ab",
        logging.INFO,
        "reconciled in {seconds:.3f} s; runs: {runs}, alive: {alive}, ended meanwhile: {ended}, lost: {lost}",
        "Rows, run directories and live shims were compared after a start.",
    )
    REGISTRY_BEHIND = Entry(
        "b0f2a7c4d81e4f0f9d2f6a5c3e7b9184",
        logging.ERROR,
        "{sentence}",
        "The registry opened cleanly and knew less than the run directories: it lost its newest commits, or "
        "an older copy lies in its place. What the directories tell was written into it, and the ledger has "
        "a new epoch; daemon.health says so for a week.",
    )
    ROW_QUARANTINED = Entry(
        "1a4d8adbfbf922cbdbe2496d7e074aab",
        logging.ERROR,
        "record of run {run_id} is set aside: {why}",
        "A record does not make sense. The daemon works without it and changes nothing about it; "
        "daemon.health lists it.",
    )
    SLOTS_WITHHELD = Entry(
        "3d3dcfc380af43d5896510ab04f50571",
        logging.WARNING,
        "{why}",
        "The record of a run that may still work makes no sense and is set aside. What it held is given to "
        "nobody until the launcher finds no process of it and no shim holds one of its attempts.",
    )
    SLOTS_GIVEN_BACK = Entry(
        "5e1a0f7d8f8947ebafb675486260fb52",
        logging.INFO,
        "nothing of run {run_id}, whose record is set aside, lives any more; what it held is free",
        "What was withheld because of a record that is set aside is handed out again.",
    )
    RUN_SUBMITTED = Entry(
        "30a41c3dc9df7d9255679f2bd07b9d2a",
        logging.INFO,
        "run {run_id} ({name}) submitted by {owner}",
        "A run was accepted and is durable.",
    )
    RUN_DISPATCHED = Entry(
        "b7f2cc9b70181c25fa68df36378b59b6",
        logging.INFO,
        "run {run_id} attempt {attempt} dispatched",
        "Slots were claimed and a shim was ordered.",
    )
    RUN_STARTED = Entry(
        "6daebbaf71810a8135117f10e099d190",
        logging.INFO,
        "run {run_id} attempt {attempt} works (pid {pid})",
        "The first sign of life of a worker, or the successful exec of a command.",
    )
    RUN_PAUSED = Entry(
        "d154880fdc2319fe9b23bd27ea762912",
        logging.INFO,
        "run {run_id} paused",
        "The tree is frozen, or the worker said that it paused.",
    )
    RUN_CONTINUED = Entry(
        "95a140918edbbd1b20f10d9fc814a1ad",
        logging.INFO,
        "run {run_id} goes on",
        "A paused run works again.",
    )
    RUN_FAULTED = Entry(
        "2e536850b9ca3c706e1fd0839999de95",
        logging.WARNING,
        "run {run_id} attempt {attempt} broke: {cause}",
        "Something broke, and the process tree is being torn down. What follows is either "
        "RUN_REQUEUED or RUN_ENDED.",
    )
    RUN_REQUEUED = Entry(
        "db4c652ff7f5ad001458c1c66ff540da",
        logging.INFO,
        "run {run_id} waits for another attempt",
        "A retry is due, after a back-off.",
    )
    RUN_ENDED = Entry(
        "83058c000cb04909214632a46c1b7824",
        logging.INFO,
        "run {run_id} ended: {outcome}",
        "A run is final. OUTCOME and CAUSE say how and why.",
    )
    RUN_UNKILLABLE = Entry(
        "500ebb5f61be56142f45b1272b3a9af9",
        logging.ERROR,
        "run {run_id} cannot be killed; it keeps slots {slots}",
        "Processes of a run outlive KILL (an uninterruptible wait in the kernel, most often on a disk "
        "or a GPU). Its slots are not given to anybody else.",
    )
    REQUEST_MADE = Entry(
        "4b3d2d8ecd9ffa18373faf09e960e8f2",
        logging.INFO,
        "{who} asked: {request} {run_id}",
        "Somebody asked for a stop, a pause, a resume or another change of a run.",
    )
    REQUEST_FAILED = Entry(
        "d5e64832a1878fff741550231e9fa7a1",
        logging.ERROR,
        "request {method} failed inside the daemon, reference {reference}",
        "The daemon made a mistake while it worked on a request. The caller was given the reference; "
        "the traceback is in this record.",
    )
    FACT_REFUSED = Entry(
        "2a28e1281378392121d7d69a71ec0683",
        logging.WARNING,
        "fact {fact} refused for run {run_id} in {state}",
        "A shim reported something that cannot happen in the run's state, most often because it came "
        "late. Nothing was changed.",
    )
    PEER_REFUSED = Entry(
        "f31082aab6b21aee44af6335fcaff047",
        logging.WARNING,
        "connection of uid {uid} refused: {why}",
        "Somebody connected whom this daemon does not serve, or with too many connections.",
    )
    SHIM_REFUSED = Entry(
        "6daa00c5de89b0c57a855e272441f8f7",
        logging.WARNING,
        "registration refused for run {run_id} attempt {attempt}: {why}",
        "A process claimed to be the shim of an attempt and could not prove it, or the attempt is over.",
    )
    SHIM_LOST = Entry(
        "d563a8372b9cd56541a413b5f832dd4c",
        logging.WARNING,
        "shim of run {run_id} attempt {attempt} is gone",
        "A shim ended without an exit record. What is left of its tree is being torn down.",
    )
    LAUNCHER_STARTED = Entry(
        "62fa6be6d300c3545d133ea5aabd458b",
        logging.INFO,
        "launcher started (pid {pid})",
        "The process that forks shims is there.",
    )
    LAUNCHER_LOST = Entry(
        "2a63eb432445f23bac0b2037076b283b",
        logging.WARNING,
        "launcher (pid {pid}) is gone: {why}",
        "The process that forks shims ended; another one is started. Runs are not disturbed.",
    )
    RUNS_PRUNED = Entry(
        "559173e4860c40f3bb277cb04459e085",
        logging.INFO,
        "{count} ended runs pruned by {who}: {bytes} bytes",
        "Ended runs were removed for good, directory, row and events, because the settings or somebody "
        "said so. Their ids are never used again.",
    )
    WATCHER_LAGS = Entry(
        "7bbfca3c650e43d3d57f959a6c013b6a",
        logging.WARNING,
        "watcher {subscription} of uid {uid} lags: events {first} to {last} left out",
        "A client does not read what it asked for. It was told which events it missed and can read "
        "them again from its cursor. Told once an episode.",
    )
    WAL_CHECKPOINTED = Entry(
        "87b6ef103430d7f712df9f99fed550b1",
        logging.DEBUG,
        "checkpoint: busy {busy}, log {log_pages}, checkpointed {checkpointed}",
        "The write-ahead log was copied into the registry.",
    )
    WAL_BUSY = Entry(
        "4dbb44d748baefac2631a2a00157eb2b",
        logging.WARNING,
        "checkpoint was busy {rounds} times in a row; the write-ahead log has {log_pages} pages",
        "A reader keeps the write-ahead log from being cut. It grows until that reader ends.",
    )
    REGISTRY_FAILED = Entry(
        "575c1afc63bd6febafc6dfc7d089d9f7",
        logging.CRITICAL,
        "registry cannot be written: {why}",
        "The daemon cannot keep its promises and leaves; systemd starts it again. Runs are safe in "
        "their shims.",
    )
    DISK_FULL = Entry(
        "9329530914aa186ee72e9c5eb1d2e141",
        logging.ERROR,
        "no space for {what}",
        "Requests that would have to be stored are refused until there is space again.",
    )
    WORKER_KIND_BROKEN = Entry(
        "2b2de74e4d9a36ccb8871527a6add25e",
        logging.WARNING,
        "worker {kind} cannot be used: {why}",
        "The interpreter of a worker did not say in time, or not in a way that can be understood, "
        "what it has installed. Other workers are not affected.",
    )
    WATCHDOG_WITHHELD = Entry(
        "c0abf78051c9ecaf8bace5b22e9e7664",
        logging.ERROR,
        "watchdog tick withheld: the registry's writer has not committed for too long",
        "The daemon's loop turns, but its writer does not. Unless it recovers, the service manager ends the "
        "daemon and starts it again; runs are not disturbed.",
    )
    LOG_DROPPED = Entry(
        "2821bc0c39bc5b438267a262be855064",
        logging.WARNING,
        "{count} log records were lost: the journal did not take them",
        "The journal was too slow for a while. The daemon does not wait for it.",
    )


def journal_catalogue() -> Iterator[str]:
    """Yield the journal catalogue file (see journalctl --update-catalog) as blocks of text."""
    yield "# The events of mosaicd, for journalctl -x.  Generated from mosaicd/log/catalogue.py.\n"
    for event in Catalogue:
        subject = event.name.replace("_", " ").capitalize()
        yield (
            f"-- {event.value.message_id}\nSubject: {subject}\nDefined-By: mosaicd\n"
            f"Documentation: man:mosaicd(8)\n\n{event.value.explanation}\n"
        )
