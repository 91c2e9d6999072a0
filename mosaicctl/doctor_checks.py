"""The checks of `doctor`: each returns findings with their meaning and the repair.

The checks only read the facts that `doctor` has gathered.  A check without a problem gives an `ok` finding.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mosaicctl.sizes import counted, size
from mosaicd.protocol import Json

OK, WARNING, PROBLEM = "ok", "warning", "problem"

WAL_LARGE_BYTES = 128 << 20
DISK_LOW_BYTES, DISK_OUT_BYTES = 1 << 30, 100 << 20
DISK_LOW_SHARE, INODES_LOW_SHARE = 0.02, 0.01
CLOCK_SLACK_S, CLOCK_WRONG_S = 60.0, 86400.0


def finding(check: str, level: str, found: str, means: str = "", do: str = "") -> Json:
    """Return one entry of the report: the check, its level, the fact, its meaning and the repair."""
    return {"check": check, "level": level, "found": found, "means": means, "do": do}


def judge(facts: Mapping[str, Any]) -> list[Json]:
    """Return every finding, in the order of the checks."""
    findings = list(_daemon(facts))
    if facts["inspection"] is None:
        findings.append(
            finding(
                "state",
                PROBLEM,
                f"the state directory cannot be read: {facts['trouble']}",
                "Registry, directories and permissions are not checked.",
                "Give the state directory with --state-dir or --config.",
            )
        )
        return findings
    for check in _CHECKS:
        problems = list(check(facts))
        findings += problems or [finding(_NAMES[check], OK, _OK_TEXTS[check])]
    return findings


def _daemon(facts: Mapping[str, Any]) -> Iterator[Json]:
    health = facts["health"]
    if health is None:
        yield finding(
            "daemon",
            PROBLEM,
            "no daemon answers: " + "; ".join(facts["tried"]),
            "No run starts, and no request is answered. Live runs continue in their shims.",
            "systemctl --user start mosaicd, or `mosaicd` in a terminal; its log has the reason of its "
            "end: journalctl --user -u mosaicd",
        )
        return
    program = f"mosaicd {health['version']} (pid {health['pid']})"
    if health["ready"]:
        yield finding("daemon", OK, f"{program} answers at {health['socket']}")
    else:
        yield finding(
            "daemon",
            WARNING,
            f"{program} is still starting",
            "The daemon reads the run directories.",
            "Wait a moment and try again.",
        )
    for warning in health.get("warnings") or []:
        yield finding(
            "daemon",
            WARNING,
            str(warning),
            "A warning of the daemon itself.",
            "Read its log: journalctl --user -u mosaicd",
        )


def _versions(facts: Mapping[str, Any]) -> Iterator[Json]:
    health, registry = facts["health"], facts["inspection"]["registry"]
    if health is not None and health["version"] != facts["version"]:
        yield finding(
            "versions",
            WARNING,
            f"mosaicctl has version {facts['version']}, the daemon {health['version']}",
            "They work together, but the daemon was not restarted after an upgrade, or another mosaicctl "
            "comes first in PATH.",
            "systemctl --user restart mosaicd; runs are not affected.",
        )
    stored, known = registry["version"], registry["known_version"]
    if stored is not None and stored > known:
        yield finding(
            "versions",
            PROBLEM,
            f"the registry has version {stored}, this mosaicd knows {known}",
            "A newer mosaicd wrote it; this one refuses to start on it.",
            "Install the newer mosaicd again, or restore a backup from before.",
        )


def _permissions(facts: Mapping[str, Any]) -> Iterator[Json]:
    for mode in facts["inspection"]["modes"]:
        if mode.get("is_fixed"):
            continue
        if not mode["is_ours"]:
            yield finding(
                "permissions",
                PROBLEM,
                f"{mode['path']} belongs to uid {mode['owner_uid']}",
                "Another user can change the files of the daemon.",
                f"Find the reason; then chown it, or move it away: {mode['path']}",
            )
        else:
            yield finding(
                "permissions",
                PROBLEM,
                f"{mode['path']} has mode {mode['mode']}",
                "Other users can read or change private files.",
                f"--fix, or: chmod {mode['wanted']} {mode['path']}",
            )


def _registry(facts: Mapping[str, Any]) -> Iterator[Json]:
    registry = facts["inspection"]["registry"]
    for fault in registry["faults"]:
        if "no registry yet" in fault and not facts["inspection"]["live_count"]:
            yield finding("registry", OK, f"{registry['path']} does not exist yet")
            continue
        yield finding(
            "registry",
            PROBLEM,
            f"{registry['path']}: {fault}",
            "The registry is damaged. Live runs continue in their shims, and run directories are not "
            "affected.",
            "Stop the daemon, keep the file, and restore your last backup: mosaicctl restore FILE",
        )


def _wal(facts: Mapping[str, Any]) -> Iterator[Json]:
    size_bytes = facts["inspection"]["registry"]["wal_bytes"]
    if size_bytes > WAL_LARGE_BYTES:
        yield finding(
            "wal",
            WARNING,
            f"the registry's write-ahead log is {size(size_bytes)} large",
            "A process that reads the registry prevents checkpoints; reads become slower.",
            "End long reads (a backup, an sqlite3 shell), or restart the daemon.",
        )


def _quarantine(facts: Mapping[str, Any]) -> Iterator[Json]:
    health = facts["health"] or {}
    rows = health.get("quarantine") or facts["inspection"]["registry"]["quarantine"]
    if rows:
        shown = "; ".join(f"{row['run_id']}: {row['why']}" for row in rows[:3])
        yield finding(
            "quarantine",
            WARNING,
            f"{counted(len(rows), 'run is', 'runs are')} quarantined ({shown})",
            "Their records in the registry are not valid. The daemon does not manage these runs.",
            "Their run directories have the output of the runs; keep the registry for a repair.",
        )


def _recoverable_runs(facts: Mapping[str, Any]) -> set[str]:
    """Return live runs without a record: the next start of the daemon recovers them."""
    unknown = facts["inspection"]["directories"]["unknown"]
    return {entry["name"] for entry in unknown if entry["is_held"]} if facts["health"] is None else set()


def _orphans(facts: Mapping[str, Any]) -> Iterator[Json]:
    processes = [process for process in facts["orphans"] if process["run_id"] not in _recoverable_runs(facts)]
    if processes:
        shown = "; ".join(
            f"{process['pid']} ({process['command'][:60]}, run {process['run_id']})"
            for process in processes[:5]
        )
        yield finding(
            "orphans",
            PROBLEM,
            f"{counted(len(processes), 'process', 'processes')} of runs that are not live: {shown}",
            "No daemon watches them. Their slots are free for other runs, unless the run is quarantined.",
            f"Check them, then end them: kill {' '.join(str(process['pid']) for process in processes[:20])}",
        )


def _shims(facts: Mapping[str, Any]) -> Iterator[Json]:
    directories = facts["inspection"]["directories"]
    recoverable = _recoverable_runs(facts)
    held = directories["held_after_end"] + [
        entry["name"]
        for entry in directories["unknown"]
        if entry["is_held"] and entry["name"] not in recoverable
    ]
    if recoverable:
        yield finding(
            "shims",
            WARNING,
            f"{counted(len(recoverable), 'live run')} without a record: {' '.join(sorted(recoverable)[:5])}",
            "The registry is behind, or an older copy was restored.",
            "Start the daemon: it recovers them.",
        )
    if held:
        yield finding(
            "shims",
            WARNING,
            f"{counted(len(held), 'shim')} of runs that have ended or have no record: {' '.join(held[:5])}",
            "A shim exits when the process tree of its run is empty.",
            "Try again in a minute; `fuser` on the attempt's directory names the process.",
        )
    if directories["missing_count"]:
        yield finding(
            "shims",
            PROBLEM,
            f"{counted(directories['missing_count'], 'live run')} without a directory: "
            f"{' '.join(directories['missing'][:5])}",
            "Another program removed the directories; such a run cannot be started or read.",
            "Stop these runs: mosaicctl stop " + " ".join(directories["missing"][:5]),
        )


def _directories(facts: Mapping[str, Any]) -> Iterator[Json]:
    inspection = facts["inspection"]
    directories, pruned = inspection["directories"], inspection["registry"]["pruned_left"]
    if directories["unknown_count"]:
        names = " ".join(entry["name"] for entry in directories["unknown"][:5])
        count = counted(directories["unknown_count"], "directory", "directories")
        where = f"{count} in {inspection['state_dir']}/runs"
        if facts["health"] is None:
            means = "The registry is behind, an older copy was restored, or a user put them there."
            do = "Start the daemon: it recovers every run whose directory describes it, and logs them."
        else:
            means = "Their files describe no run that the daemon could recover. They may have results."
            do = "The daemon's log has the reasons. Move them away, or delete them."
        yield finding("directories", WARNING, f"{where} without a record: {names}", means, do)
    if directories["strays_count"]:
        first = directories["strays"][0]
        yield finding(
            "directories",
            WARNING,
            f"{counted(directories['strays_count'], 'leftover file')}, for example "
            f"{first['path']} ({first['why']})",
            "They remain from a crash; an environment file may contain secrets of its user.",
            "--fix",
        )
    if pruned:
        yield finding(
            "directories",
            WARNING,
            f"{counted(len(pruned), 'pruned run')} with a directory: {pruned[0]}",
            "Their removal was interrupted or failed; the daemon tries again.",
            "--fix, while the daemon runs; its log has the reason",
        )


def _clock(facts: Mapping[str, Any]) -> Iterator[Json]:
    newest, now = facts["inspection"]["registry"]["newest_at"], facts["now"]
    ahead_s = (newest or 0.0) - now
    if ahead_s > CLOCK_SLACK_S:
        level = PROBLEM if ahead_s > CLOCK_WRONG_S else WARNING
        yield finding(
            "clock",
            level,
            f"the newest event of the ledger is {ahead_s:.0f} s in the future",
            "The machine's clock was set back, or was wrong before. Deadlines of runs do not "
            "depend on it; printed times, waits before retries and retention by age do.",
            "Check the clock: timedatectl",
        )


def _disk(facts: Mapping[str, Any]) -> Iterator[Json]:
    disk, state_dir = facts["inspection"]["disk"], facts["inspection"]["state_dir"]
    if "error" in disk:
        yield finding(
            "disk",
            PROBLEM,
            f"{state_dir}: {disk['error']}",
            "The state directory cannot be used.",
            "The first start of mosaicd creates it; if it existed before, check that it is mounted.",
        )
        return
    free, total = disk["free_bytes"], max(1, disk["total_bytes"])
    # Both are 0 on a file system that does not count inodes.
    inodes, free_inodes = disk["total_inodes"], disk["free_inodes"]
    few_inodes = inodes and free_inodes < INODES_LOW_SHARE * inodes
    if free < DISK_LOW_BYTES or free < DISK_LOW_SHARE * total or few_inodes:
        is_out = free < DISK_OUT_BYTES or (inodes and not free_inodes)
        yield finding(
            "disk",
            PROBLEM if is_out else WARNING,
            f"{size(free)} of {size(total)} and {free_inodes} inodes are free below {state_dir}",
            "If the disk is full, requests are refused and output is cut; runs continue.",
            "mosaicctl prune --dry-run --older-than 30d; or set [retention] in mosaicd.toml",
        )


def _lingering(facts: Mapping[str, Any]) -> Iterator[Json]:
    if facts["lingering"] is False:
        yield finding(
            "lingering",
            WARNING,
            "the daemon is a systemd user service without lingering",
            "Your user manager, the daemon and every run end with your last logout.",
            "loginctl enable-linger",
        )


Check = Callable[[Mapping[str, Any]], Iterator[Json]]

#: Check -> the sentence of its `ok` finding.
_OK_TEXTS: dict[Check, str] = {
    _versions: "client, daemon and registry have compatible versions",
    _permissions: "only you can access socket, state directory, launch key and environments",
    _registry: "every page, index and reference is intact",
    _wal: "the write-ahead log is small",
    _quarantine: "no run is quarantined",
    _orphans: "no process of a run that is not live",
    _shims: "every shim has a live run, and every live run has a directory",
    _directories: "no leftover files or directories",
    _clock: "no event of the ledger is in the future",
    _disk: "the disk has free space",
    _lingering: "a logout does not end the daemon",
}
_CHECKS = tuple(_OK_TEXTS)
_NAMES = {check: check.__name__.lstrip("_") for check in _CHECKS}
