"""The options that `submit` and `run` have in common, and the parameters of run.submit made from them."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from mosaicctl.client import Client
from mosaicctl.configfile import assign, read_config
from mosaicctl.environment import differing_line, left_out_line
from mosaicctl.exits import UsageError
from mosaicctl.process import capture_process, cut_line
from mosaicctl.requestsize import check_sizes
from mosaicctl.select import label_filter
from mosaicctl.stdin import Input, submit_with_input
from mosaicctl.submit_check import check_submit
from mosaicctl.values import (
    duration,
    memory_mb,
    nonempty,
    one_of,
    positive_duration,
    retry_cause,
    stop_signal,
    whole_number,
)
from mosaicctl.variables import caller_environment, given_environment, variable_arguments
from mosaicd.protocol import Json


def submission_arguments(parser: Any) -> None:
    """Add the options that choose the program, its resources and limits, and its place in the queue."""
    program = parser.add_argument_group("program")
    program.add_argument("command", metavar="-- COMMAND", nargs="...", help="a program with its arguments")
    program.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        type=nonempty,
        help="a TrainRunConfig, JSON or TOML; - is standard input",
    )
    program.add_argument(
        "--worker", metavar="KIND", type=nonempty, help="an installed worker (see `mosaicctl workers`)"
    )
    program.add_argument(
        "--set", metavar="K=V", action="append", default=[],
        help="a value in the worker's own config; a dot in K separates levels, V may be JSON (repeatable)",
    )  # fmt: skip
    variable_arguments(program)
    program.add_argument(
        "--stdin", metavar="FILE", type=nonempty,
        help="the standard input of the run, for every attempt: the content of FILE, or for - all of yours "
        "(default: empty)",
    )  # fmt: skip
    default_cwd = "default for a command: here; for a worker: the run's files; for other configs: your home"
    program.add_argument("--cwd", metavar="DIR", type=nonempty, help=f"the working directory ({default_cwd})")
    program.add_argument(
        "--no-check",
        action="store_true",
        help="do not look whether the program, its directory and the worker's values are usable now",
    )
    _resources_and_limits(parser.add_argument_group("resources and limits"))
    _liveness_limits(parser.add_argument_group("liveness limits"))
    queue = parser.add_argument_group("queue")
    queue.add_argument("-n", "--name", metavar="NAME", type=nonempty, help="a name; need not be unique")
    queue.add_argument(
        "-p",
        "--priority",
        metavar="PRIORITY",
        type=whole_number(-1000, 1000),
        help="a run with a higher number starts first (default 0)",
    )
    label_filter(queue, "a label (repeatable)")
    queue.add_argument(
        "--dedup",
        metavar="HOW",
        type=one_of(("attach", "new", "fail"), "a choice"),
        help="if the same run is live: attach returns it (the default for configs), "
        "new starts another (the default for commands), fail refuses",
    )
    queue.add_argument(
        "--key",
        metavar="KEY",
        type=nonempty,
        help="a submit with a key that was used before returns that run, live or ended",
    )


def _resources_and_limits(group: Any) -> None:
    """Add the options for resources, the time and step limits, the grace period and retries."""
    group.add_argument(
        "-c", "--cpus", metavar="CPUS", type=whole_number(1),
        help="number of CPU slots; the run has MOSAIC_CPUS, and as many threads (OMP_NUM_THREADS, MKL, "
        "OPENBLAS, NUMEXPR) unless you set one",
    )  # fmt: skip
    group.add_argument("-g", "--gpus", metavar="GPUS", type=whole_number(0), help="number of GPU slots")
    group.add_argument(
        "-m", "--memory", metavar="SIZE", type=memory_mb,
        help="memory limit, with a unit: 512M, 1.5G; the kernel ends a run that needs more (default: none)",
    )  # fmt: skip
    group.add_argument(
        "-t", "--time", metavar="DURATION", type=positive_duration,
        help="time limit, with a unit: 90s, 15m, 1h30m, 2d or 1:30:00; paused time does not count",
    )  # fmt: skip
    group.add_argument(
        "--max-steps",
        metavar="N",
        type=whole_number(1),
        help="end the run after N steps, with the outcome succeeded",
    )
    group.add_argument(
        "--grace",
        metavar="DURATION",
        type=duration,
        help="time between TERM and KILL when the run is stopped",
    )
    group.add_argument(
        "--signal", metavar="SIGNAL", type=stop_signal,
        help="the first signal of a stop (default TERM); KILL means no grace period",
    )  # fmt: skip
    group.add_argument(
        "--signal-to", metavar="WHOM", type=one_of(("leader", "tree"), "a choice"),
        help="when the run is stopped, send the signal first to the leader alone, or to the whole process "
        "tree at once (default: to the leader, and if it is a shell to the commands that it waits for)",
    )  # fmt: skip
    group.add_argument(
        "--retries",
        metavar="N",
        type=whole_number(0, 100),
        help="after a fault that --retry-on names, start the run again, up to N times (at most 100)",
    )
    group.add_argument(
        "--retry-on", metavar="CAUSE", type=retry_cause, action="append",
        help='retry only after this cause (repeatable); "infrastructure" (the default) is every fault of the '
        'machine, "any" is every fault',
    )  # fmt: skip


def _liveness_limits(group: Any) -> None:
    """Add the options for the liveness limits."""
    for option, read, meaning in (
        (
            "--heartbeat",
            positive_duration,
            "end the run if it has printed nothing for this long (default: 5m for a worker, no limit for a "
            "command)",
        ),
        (
            "--start-timeout",
            positive_duration,
            "end the run if its worker shows no sign of life for this long after its start (default 1m; "
            "ignored for a command)",
        ),
        (
            "--stall",
            duration,
            "end the run if it has finished no step and no episode for this long (default 0: no limit)",
        ),
        (
            "--handshake",
            positive_duration,
            "end the run if its shim has not registered after this long (default 30s)",
        ),
    ):
        group.add_argument(option, metavar="DURATION", type=read, help=meaning)


def submit_parameters(get_client: Callable[[], Client], args: Any) -> Json:
    """Return the parameters of run.submit.

    `get_client` is called only for workers.  Mistakes that need no daemon are reported before that.
    """
    if sum((bool(args.command), args.file is not None, args.worker is not None)) != 1:
        raise UsageError("give exactly one of -- COMMAND, -f FILE and --worker KIND")
    given = given_environment(args)
    params = _command_parameters(args, given) if args.command else _config_parameters(get_client, args, given)
    captured = caller_environment(args, given)
    params |= {"caller_environment": captured.values, "process": capture_process()}
    own = params.get("config", {}).get("environment")
    sys.stderr.write(left_out_line(captured, {**own, **given} if isinstance(own, dict) else given))
    for name, value in (
        ("cpus", args.cpus), ("gpus", args.gpus), ("memory_mb", args.memory),
        ("max_steps", args.max_steps), ("retries", args.retries),
        ("priority", args.priority), ("name", args.name), ("dedup", args.dedup), ("key", args.key),
        ("retry_on", args.retry_on), ("time_limit_s", args.time), ("grace_s", args.grace),
        ("signal", args.signal), ("signal_to", args.signal_to),
        ("stall_s", args.stall), ("heartbeat_timeout_s", args.heartbeat),
        ("start_timeout_s", args.start_timeout), ("handshake_timeout_s", args.handshake),
    ):  # fmt: skip
        if value is not None:
            params[name] = value
    if args.label:
        params["labels"] = dict(args.label)
    check_sizes(params)
    if not args.no_check:
        check_submit(get_client, params, args)
    return params


def submit_with_key(
    client: Client, params: Json, method: str = "run.submit", source: Input | None = None
) -> Json:
    """Submit, with the input `source`, and return the run.

    A random key allows the client to repeat the request after a restart of the daemon.
    """
    began_at, generation = time.time(), client.generation
    if params.get("key") is None:
        params = {**params, "key": f"mosaicctl-{os.urandom(12).hex()}"}
    run: Json = client.call(method, params) if source is None else submit_with_input(client, params, source)
    if client.generation > generation and run.get("duplicate") and run["created_at"] >= began_at:
        run["duplicate"] = False  # this call made the run; the reply was lost
    sys.stderr.write(differing_line(run) + overwritten_line(run) + cut_line(run))
    return run


def overwritten_line(run: Json) -> str:
    """Return the warning about submitted variables whose values do not count; "" if all count."""
    names = run.get("overwritten_variables")
    return (
        f"mosaicctl: warning: mosaicd sets {', '.join(names)}; the given values do not count\n"
        if names
        else ""
    )


def _command_parameters(args: Any, given: dict[str, str]) -> Json:
    """Return the parameters of a submit with `-- COMMAND`."""
    if args.set:
        raise UsageError("--set needs --worker or -f: it changes the config of a worker")
    cwd = os.path.abspath(args.cwd) if args.cwd is not None else _working_directory()
    return {"command": args.command, "cwd": cwd, "environment": given}


def _working_directory() -> str:
    """Return the working directory: $PWD (it keeps symbolic links) if it is correct, else the real path."""
    logical = os.environ.get("PWD", "")
    try:
        if os.path.isabs(logical) and os.path.samefile(logical, "."):
            return logical
        return os.getcwd()
    except OSError as error:
        raise UsageError(f"your working directory cannot be used ({error.strerror}); give --cwd") from error


def _config_parameters(get_client: Callable[[], Client], args: Any, given: dict[str, str]) -> Json:
    """Return the parameters of a submit with -f or --worker."""
    if args.worker is not None:
        from mosaicctl.workerconfig import train_run_config

        config = train_run_config(get_client, args)
    else:
        config = read_config(args.file)
        if args.set:
            assign(_worker_config(config), args.set)
    params: Json = {"config": config, "environment": given}
    if args.cwd is not None:
        params["cwd"] = os.path.abspath(args.cwd)
    return params


def _worker_config(config: Json) -> Json:
    """Return `metadata.worker.config` of a TrainRunConfig, created if it is missing."""
    node: Any = config
    for name in ("metadata", "worker", "config"):
        node = node.setdefault(name, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise UsageError("--set: `metadata.worker.config` in the config is not an object")
    return node
