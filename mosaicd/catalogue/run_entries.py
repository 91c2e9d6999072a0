"""Log records about the life of runs, requests about them, and their files."""

from mosaicd.catalogue.entry import ERROR, INFO, WARNING, Entry


class RunEntries:
    """LOG2200 to LOG2299."""

    RUN_SUBMITTED = Entry(
        "LOG2201",
        "30a41c3dc9df7d9255679f2bd07b9d2a",
        INFO,
        "run {run_id} ({name}) submitted by {owner}",
        "A run was accepted and saved to disk.",
        "Run",
        ("lifecycle",),
    )
    RUN_DISPATCHED = Entry(
        "LOG2202",
        "b7f2cc9b70181c25fa68df36378b59b6",
        INFO,
        "run {run_id} attempt {attempt} dispatched",
        "The run got its slots. The daemon now orders the launcher to start a shim.",
        "Run",
        ("lifecycle",),
    )
    RUN_STARTED = Entry(
        "LOG2203",
        "6daebbaf71810a8135117f10e099d190",
        INFO,
        "run {run_id} attempt {attempt} started (pid {pid})",
        "A command was started, or a worker sent its first telemetry record that is no error.",
        "Run",
        ("lifecycle",),
    )
    RUN_PAUSED = Entry(
        "LOG2204",
        "d154880fdc2319fe9b23bd27ea762912",
        INFO,
        "run {run_id} paused",
        "The process tree is frozen, or the worker reported that it paused.",
        "Run",
        ("lifecycle",),
    )
    RUN_CONTINUED = Entry(
        "LOG2205",
        "95a140918edbbd1b20f10d9fc814a1ad",
        INFO,
        "run {run_id} resumed",
        "The run was paused and is running again.",
        "Run",
        ("lifecycle",),
    )
    RUN_REQUEUED = Entry(
        "LOG2206",
        "db4c652ff7f5ad001458c1c66ff540da",
        INFO,
        "run {run_id} waits for its next attempt",
        "The attempt failed, and the run is retried. NOT_BEFORE is the earliest time of the next attempt.",
        "Run",
        ("lifecycle", "retry"),
    )
    RUN_ENDED = Entry(
        "LOG2207",
        "83058c000cb04909214632a46c1b7824",
        INFO,
        "run {run_id} ended: {outcome}",
        "The run is final. OUTCOME and CAUSE say how it ended and why.",
        "Run",
        ("lifecycle",),
    )
    REQUEST_MADE = Entry(
        "LOG2208",
        "4b3d2d8ecd9ffa18373faf09e960e8f2",
        INFO,
        "{who} requested {request} of run {run_id}",
        "A stop, a pause, a resume, a hold or another change of a run was requested: by a user; by "
        "the daemon, which resumes a run that did not pause in time; or by `rebuild`, if the registry had "
        "lost the request to pause a run that is paused.",
        "Run",
        ("request",),
    )
    RUN_FAULTED = Entry(
        "LOG2220",
        "2e536850b9ca3c706e1fd0839999de95",
        WARNING,
        "run {run_id} attempt {attempt} failed: {cause}",
        "An attempt failed. The daemon ends its process tree, then logs RUN_REQUEUED or RUN_ENDED.",
        "Run",
        ("lifecycle",),
    )
    RUN_UNKILLABLE = Entry(
        "LOG2221",
        "500ebb5f61be56142f45b1272b3a9af9",
        ERROR,
        "run {run_id} cannot be killed; it keeps its CPUs and GPU slots {slots}",
        "Processes of the run are alive long after its grace period (see unkillable_s in "
        "mosaicd.toml(5)). Most often they wait in the kernel for a disk or a GPU and do not react to "
        "SIGKILL. The slots stay reserved until the processes end. PIDS names up to 20 of them.",
        "Run",
        ("processes", "slots"),
    )
    SLOTS_WITHHELD = Entry(
        "LOG2222",
        "3d3dcfc380af43d5896510ab04f50571",
        WARNING,
        "{summary}",
        "The run is quarantined, and processes of it are alive or may be alive. Its slots stay reserved "
        "until no process of it is alive and no shim holds one of its attempts.",
        "Run",
        ("quarantine", "slots"),
    )
    SLOTS_GIVEN_BACK = Entry(
        "LOG2223",
        "5e1a0f7d8f8947ebafb675486260fb52",
        INFO,
        "no process of the quarantined run {run_id} is alive; its CPU and GPU slots are free",
        "Other runs can get the CPU and GPU slots that were reserved for the run. The run stays in "
        "quarantine.",
        "Run",
        ("quarantine", "slots"),
    )
    PAUSE_FAILED = Entry(
        "LOG2224",
        "8d25cac715f747c89e08f9801f46bfdf",
        WARNING,
        "run {run_id} continues: {why}",
        "The worker did not pause, or the shim did not freeze the process tree, within pause_ack_s + "
        "unkillable_s (see mosaicd.toml(5)). The daemon withdraws the request to pause.",
        "Run",
        ("pause",),
    )
    RUN_CONTRADICTED = Entry(
        "LOG2225",
        "a6630f3b2c624c53b542340883214806",
        ERROR,
        "the files of run {run_id} contradict its record: {why}",
        "The daemon changes nothing about the run and lists it under quarantine in `mosaicctl health`.",
        "Run",
        ("recovery", "quarantine"),
    )
    PROCESSES_UNKNOWN = Entry(
        "LOG2226",
        "500ef585be264891bd29fbb5cff73402",
        WARNING,
        "the processes of run {run_id} cannot be looked up: {why}",
        "Most often the daemon has no free file descriptor. The run is quarantined; its slots stay "
        "reserved until a later check finds no process of the run.",
        "Run",
        ("quarantine", "processes"),
    )
    ENVIRONMENT_LEFT = Entry(
        "LOG2240",
        "232b3f4d77354479b30f2d55123556ae",
        WARNING,
        "environment.json of ended run {run_id} was not removed: {why}",
        "The file has the environment variables of the run, which may be secret. `mosaicctl doctor --fix` "
        "removes it.",
        "Run",
        ("files",),
    )
    MARK_LEFT = Entry(
        "LOG2241",
        "2d6d2fcc831a4569a60e55c769c4b468",
        WARNING,
        "the mark `unacknowledged` of run {run_id} was not removed: {why}",
        "The run is saved, and the submit gets its reply. The mark matters only if the registry is lost: "
        "then a marked run that has never started is not recovered, and its directory is removed. The next "
        "start of the daemon tries again to remove the mark.",
        "Run",
        ("files",),
    )
    ATTEMPT_UNREADABLE = Entry(
        "LOG2242",
        "fbb7cf1557eb4cdca52f1e5763e7f13b",
        WARNING,
        "attempt {attempt} of run {run_id} cannot be read: {why}",
        "Most often the attempt's directory was replaced by a link or a file, or its owner removed the "
        "permission. The daemon continues as if a shim had begun the attempt and had written nothing "
        "else.",
        "Run",
        ("files",),
    )
    RECORD_UNREADABLE = Entry(
        "LOG2243",
        "272a98f7d09843c2901b681c0d533006",
        WARNING,
        "the values in {file} of run {run_id} attempt {attempt} are not used: {why}",
        "A record of an attempt (launch.json, started.json or exit.json) cannot be opened or read, or is "
        "not a regular file of the run's owner, or is too large. The file still counts: an attempt with "
        "launch.json is not started again, and an attempt without a readable exit.json is lost, unless the "
        "daemon knows its end.",
        "Run",
        ("files",),
    )
    RECORD_TORN = Entry(
        "LOG2244",
        "4e2ebbc4389e4a78960643d0fb3c533c",
        WARNING,
        "the values in {file} of run {run_id} attempt {attempt} are not used: the file is incomplete",
        "A record of an attempt (launch.json, started.json or exit.json) is not JSON. Most often the "
        "machine stopped before the file was on the disk. The file still counts: an attempt with "
        "launch.json is not started again, and an attempt without a readable exit.json is lost, unless the "
        "daemon knows its end.",
        "Run",
        ("files",),
    )
