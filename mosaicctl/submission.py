"""What `submit` and `run` share: their options, and the parameters of run.submit made from them."""

import os
import time
from collections.abc import Callable
from typing import Any

from mosaicctl.client import Client, Json
from mosaicctl.configfile import assign, read_config
from mosaicctl.environment import handed_over, shell_of
from mosaicctl.exits import UsageError
from mosaicctl.select import label_filter
from mosaicctl.values import causes, duration, span, text, whole


def submission_arguments(parser: Any) -> None:
    """Add what says what to run, and how."""
    what = parser.add_argument_group("what to run")
    what.add_argument("command", metavar="-- COMMAND", nargs="...", help="a program with its arguments")
    what.add_argument(
        "-f", "--file", metavar="FILE", type=text, help="a TrainRunConfig, JSON or TOML; - is standard input"
    )
    what.add_argument(
        "--worker", metavar="KIND", type=text, help="an installed worker (see `mosaicctl workers`)"
    )
    what.add_argument(
        "--set", metavar="K=V", action="append", default=[],
        help="a value of the worker's own config; dots nest, JSON is understood (repeatable)",
    )  # fmt: skip
    what.add_argument(
        "-e", "--env", metavar="K=V", action="append", default=[],
        help="an environment variable; K alone hands over your own (repeatable)",
    )  # fmt: skip
    places = "commands: here; configs: your home; workers: their files"
    what.add_argument("--cwd", metavar="DIR", type=text, help=f"where it runs ({places})")
    _needs(parser.add_argument_group("what it needs and may use"))
    _patience(parser.add_argument_group("when it counts as dead"))
    how = parser.add_argument_group("how it is queued")
    how.add_argument("-n", "--name", metavar="NAME", type=text, help="a name; need not be unique")
    how.add_argument(
        "-p", "--priority", metavar="PRIORITY", type=whole(-1000, 1000), help="higher goes first (default 0)"
    )
    label_filter(how, "a label (repeatable)")
    how.add_argument(
        "--dedup",
        choices=("attach", "new", "fail"),
        help="when the same run is already alive: attach to it (the default for configs), "
        "start a new one (the default for commands), or fail",
    )
    how.add_argument(
        "--key", metavar="KEY", type=text, help="the same key gives the same run back, ended or not"
    )


def _needs(group: Any) -> None:
    group.add_argument("-c", "--cpus", metavar="CPUS", type=whole(1), help="CPU slots")
    group.add_argument("-g", "--gpus", metavar="GPUS", type=whole(0), help="GPUs")
    group.add_argument(
        "-t", "--time", metavar="DURATION", type=span,
        help="time limit: 90, 15m, 1h30m, 2d (without pauses)",
    )  # fmt: skip
    group.add_argument("--max-steps", metavar="N", type=whole(1), help="end it, as succeeded, after N steps")
    group.add_argument(
        "--grace", metavar="DUR", type=duration, help="time between TERM and KILL when it is stopped"
    )
    group.add_argument(
        "--retries", metavar="N", type=whole(0, 100), help="start it again when it fails, up to N times"
    )
    group.add_argument(
        "--retry-on", metavar="CAUSE", type=causes, action="append",
        help="retry only after this cause; any and infrastructure (the default) are several (repeatable)",
    )  # fmt: skip


def _patience(group: Any) -> None:
    for option, read, meaning in (
        ("--heartbeat", span, "it has printed nothing for so long (workers: 5m)"),
        ("--start-timeout", span, "a worker shows no life so long at first (1m)"),
        ("--stall", duration, "it lives, but has made no step for so long (0: never)"),
        ("--handshake", span, "nothing has been heard of its start so long (30s)"),
    ):
        group.add_argument(option, metavar="DUR", type=read, help=meaning)


def parameters(ask: Callable[[], Client], args: Any) -> Json:
    """Return run.submit's parameters; `ask` gives the daemon that knows --worker, and is used for that alone.

    All that can be told without a daemon is told before it is asked.
    """
    if sum((bool(args.command), args.file is not None, args.worker is not None)) != 1:
        raise UsageError(f"{args.verb} what? Give one of -- COMMAND, -f FILE or --worker KIND")
    params = _command(args) if args.command else _config(ask, args)
    for name, value in (
        ("cpus", args.cpus), ("gpus", args.gpus), ("max_steps", args.max_steps), ("retries", args.retries),
        ("priority", args.priority), ("name", args.name), ("dedup", args.dedup), ("key", args.key),
        ("retry_on", args.retry_on), ("time_limit_s", args.time), ("grace_s", args.grace),
        ("stall_s", args.stall), ("heartbeat_timeout_s", args.heartbeat),
        ("start_timeout_s", args.start_timeout), ("handshake_timeout_s", args.handshake),
    ):  # fmt: skip
        if value is not None:
            params[name] = value
    if args.label:
        params["labels"] = dict(args.label)
    return params


def hand_in(client: Client, params: Json, method: str = "run.submit") -> Json:
    """Submit and return the run; a key of our own makes it safe to ask again when the daemon is restarted."""
    began_at, repeats = time.time(), client.repeats
    if params.get("key") is None:
        params = {**params, "key": f"mosaicctl-{os.urandom(12).hex()}"}
    run: Json = client.call(method, params)
    if client.repeats > repeats and run.get("duplicate") and run["created_at"] >= began_at:
        run["duplicate"] = False  # of our own first try, whose answer was lost
    return run


def explicit_environment(items: list[str]) -> dict[str, str]:
    """Return the variables of -e; a bare name takes the caller's value, UsageError where there is none."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name:
            raise UsageError(f"-e {item}: write it as K=V, or K to hand over your own")
        if not equals and name not in os.environ:
            raise UsageError(f"-e {name}: you have no such variable; write {name}=VALUE")
        found[name] = value if equals else os.environ[name]
    return found


def _command(args: Any) -> Json:
    if args.set:
        raise UsageError("--set changes a worker's config; it goes with --worker or -f")
    cwd = os.path.abspath(args.cwd) if args.cwd is not None else _here()
    return {
        "command": args.command,
        "cwd": cwd,
        "environment": {**handed_over(os.environ), **explicit_environment(args.env)},
    }


def _here() -> str:
    """Return the working directory by the name the shell calls it, where that name is true."""
    logical = os.environ.get("PWD", "")
    try:
        if os.path.isabs(logical) and os.path.samefile(logical, "."):
            return logical
        return os.getcwd()
    except OSError as error:
        raise UsageError(f"your working directory is gone ({error.strerror}); try --cwd") from error


def _config(ask: Callable[[], Client], args: Any) -> Json:
    own = explicit_environment(args.env)
    if args.worker is not None:
        from mosaicctl.workerconfig import train_run_config

        config = train_run_config(ask, args)
    else:
        config = read_config(args.file)
        if args.set:
            assign(_worker_config(config), args.set)
    if own:
        environment = config.setdefault("environment", {})
        if not isinstance(environment, dict):
            raise UsageError("-e: the config's environment is no object")
        environment.update(own)
    params: Json = {"config": config, "environment": shell_of(os.environ)}
    if args.cwd is not None:
        params["cwd"] = os.path.abspath(args.cwd)
    return params


def _worker_config(config: Json) -> Json:
    place: Any = config
    for name in ("metadata", "worker", "config"):
        place = place.setdefault(name, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise UsageError("--set: the config has no metadata.worker.config that could be changed")
    return place
