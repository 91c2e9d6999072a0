"""`show`: everything known about a run, in an order that answers the likely questions first."""

import sys
from typing import Any

from mosaicctl.client import connect
from mosaicctl.render import (
    ago,
    cause,
    clean,
    clock,
    emit,
    facts,
    has_colour,
    note,
    number,
    paint,
    progress,
    took,
)
from mosaicctl.select import references, selector_argument
from mosaicctl.sizes import counted
from mosaicd.protocol import Json

_EPILOG = """\
  mosaicctl show              your last run
  mosaicctl show my-run 01K8
  mosaicctl -o json show @ | jq .metrics
"""


#: The liveness limits of a run, in the order in which they can be reached, with their names.
_LIVENESS = (
    ("handshake_timeout_s", "handshake"),
    ("start_timeout_s", "start"),
    ("heartbeat_timeout_s", "heartbeat"),
    ("stall_s", "stall"),
)


def arguments(parser: Any) -> None:
    """Add the options of `show`."""
    parser.epilog = _EPILOG
    selector_argument(parser, default_last=True)


def execute(args: Any) -> int:
    """Print the chosen runs."""
    with connect(args.socket) as client:
        named = references(client, args.runs or ["@"])
        runs = [client.call("run.get", {"run_id": reference}) for reference in named]
    text = "\n".join(describe(run) for run in runs) if args.output == "table" else ""
    emit(args.output, runs, text, single=len(runs) == 1 and len(args.runs) <= 1)
    return 0


def describe(run: Json) -> str:
    """Return a run as readable lines; what is not known is left out."""
    title = paint(run["run_id"], "1", has_colour(sys.stdout))
    lines = facts([*_life(run), *_work(run), *_place(run)]).splitlines()
    return f"{title}\n" + "".join(f"  {line}\n" for line in lines)


def _life(run: Json) -> list[tuple[str, object]]:
    state = str(run.get("state"))
    if run.get("outcome"):
        state += f", {run['outcome']}"
    aside = note(run)
    is_imported = run.get("origin") == "import"
    worked = f", after {took(run)}" if run.get("started_at") else "" if is_imported else ", before it started"
    ended = [("ended", f"{clock(run['finished_at'])}{worked}")] if run.get("finished_at") else []
    return [
        ("name", run.get("name")),
        ("state", f"{state} ({aside})" if aside else state),
        ("owner", run.get("owner")),
        ("created", f"{clock(run.get('created_at'))} ({ago(run.get('created_at'))} ago)"),
        ("not before", clock(run["not_before"]) if run.get("not_before") else None),
        ("started", clock(run["started_at"]) if run.get("started_at") else None),
        *ended,
        ("cause", cause(run)),
        ("stood still", _standing(run)),
        ("post-mortem", f"mosaicctl logs --post-mortem {run['run_id']}" if _standing(run) else None),
        ("exit code", run.get("exit_code")),
        ("signal", run.get("signal")),
        ("attempt", _attempt(run)),
        ("origin" if is_imported else "retry of", run.get("origin")),
        ("resumed from", _point(run.get("resumed_from"))),
        ("checkpoint", _point(run.get("checkpoint"))),
    ]


def _standing(run: Json) -> str | None:
    """Return where a run stood that was ended because it stood still."""
    found = (run.get("cause") or {}).get("post_mortem")
    if not found:
        return None
    where = [found.get("python"), f"waits in {found['waits_in']}" if found.get("waits_in") else None]
    return f"{counted(found.get('processes') or 0, 'process', 'processes')}, " + ", ".join(
        clean(text) for text in (*where, f"state {found.get('state')}") if text
    )


def _point(found: Json | None) -> str | None:
    if not found:
        return None
    return f"step {found['step']}, {found['path']}" if found.get("step") is not None else str(found["path"])


def _attempt(run: Json) -> str | None:
    if not run.get("attempt"):
        return None
    text = str(run["attempt"])
    if run.get("retries"):
        text += f" ({run.get('retries_used') or 0} of {run['retries']} retries used)"
    return text


def _work(run: Json) -> list[tuple[str, object]]:
    found = run.get("progress") or {}
    done = progress(run)
    if found.get("steps") and "steps" not in done:
        done += f", {found['steps']} steps"
    if found.get("steps_per_s"):
        done += f", {number(found['steps_per_s'])} steps/s"
    beat = run.get("last_heartbeat_at")
    metrics = [(f"  {name}", number(value)) for name, value in (run.get("metrics") or {}).items()]
    return [
        ("progress", done if done != "-" else None),
        ("last sign of life", f"{ago(beat)} ago" if beat and run.get("state") != "TERM" else None),
        *([("metrics", "(last values)"), *metrics] if metrics else []),
    ]


def _place(run: Json) -> list[tuple[str, object]]:
    from mosaicd.protocol.durations import format_duration

    def seconds(key: str) -> str | None:
        return None if run.get(key) is None else format_duration(run[key])

    return [
        ("cpus", granted(run.get("cpus"))),
        ("gpus", granted(run.get("gpus"))),
        ("slots", " ".join(str(slot) for slot in run.get("slots") or [])),
        ("memory", _memory(run)),
        ("priority", run.get("priority")),
        ("pinned", "yes" if run.get("pinned") else None),
        ("labels", " ".join(f"{key}={value}" for key, value in (run.get("labels") or {}).items())),
        ("time limit", seconds("time_limit_s")),
        ("step limit", run.get("max_steps")),
        ("grace", seconds("grace_s")),
        ("liveness limits", ", ".join(f"{name} {seconds(key)}" for key, name in _LIVENESS if run.get(key))),
        ("worker", run.get("worker_kind")),
        ("command", shell_words(run.get("command") or [])),
        ("directory", run.get("cwd")),
        ("pid", run.get("pid")),
        ("containment", containment(run)),
        ("run directory", run.get("run_dir")),
        ("digest", run.get("digest")),
    ]


def _memory(run: Json) -> str | None:
    if not run.get("memory_mb"):
        return None
    is_known = run.get("containment") is not None
    is_limit = (run.get("limits") or {}).get("memory_bytes") is not None
    return f"{run['memory_mb']} MiB" + (", enforced" if is_limit else ", not enforced" if is_known else "")


def containment(run: Json) -> str | None:
    """Return what holds a run and which limits it sets: `cgroup-v2: memory 512 MiB, 16384 tasks`."""
    limits = run.get("limits") or {}
    told = []
    if limits.get("memory_bytes"):
        told.append(f"memory {limits['memory_bytes'] >> 20} MiB")
    if limits.get("tasks"):
        told.append(f"{limits['tasks']} tasks")
    if limits.get("cpu_weight"):
        told.append(f"CPU weight {limits['cpu_weight']}")
    word = run.get("containment")
    return f"{word}: {', '.join(told)}" if word and told else word


def granted(share: Json | None) -> str | None:
    """Return `1`, or `2 of the 4 asked for` when the machine had fewer; None when nothing was asked for."""
    if not share or not share.get("requested"):
        return None
    got = share.get("granted")
    if got is None or got == share["requested"]:
        return str(share["requested"])
    return f"{got} of the {share['requested']} asked for"


def shell_words(argv: list[str]) -> str:
    """Return a command as one could type it."""
    import shlex

    return shlex.join(argv)
