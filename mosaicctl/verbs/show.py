"""`show`: print everything known about a run, the most important facts first."""

import sys
from typing import Any

from mosaicctl.client import Client, connect
from mosaicctl.exits import explain
from mosaicctl.left import leftover_facts
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
from mosaicctl.sizes import counted, size
from mosaicd.protocol import Json
from mosaicd.protocol.errors import Unavailable

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
    parser.add_argument(
        "--env", action="store_true", help="print the environment of your run instead; no value of a secret"
    )


def execute(args: Any) -> int:
    """Print the selected runs, or their environments."""
    with connect(args.socket) as client:
        targets = references(client, args.runs or ["@"])
        if args.env:
            found = [client.call("run.environment", {"run_id": reference}) for reference in targets]
            text = "\n".join(map(environment_text, found)) if args.output == "table" else ""
            emit(args.output, found, text, single=len(found) == 1 and len(args.runs) <= 1)
            return 0
        runs = [_fetch(client, reference) for reference in targets]
    text = "\n".join(describe(run) for run in runs) if args.output == "table" else ""
    emit(args.output, runs, text, single=len(runs) == 1 and len(args.runs) <= 1)
    return 0


def _fetch(client: Client, reference: str) -> Json:
    """Return a run; if its program has ended, with what it left behind in `leftovers`."""
    run: Json = client.call("run.get", {"run_id": reference})
    leftovers = None
    if (run.get("outcome") and run.get("attempt")) or run.get("left_processes"):
        try:
            leftovers = client.call("run.leftovers", {"run_id": run["run_id"]})
        except Unavailable as error:
            sys.stderr.write(explain(error, reference))
    return {**run, "leftovers": leftovers}


def environment_text(environment: Json) -> str:
    """Return the variables as lines NAME=VALUE, quoted for the shell; a secret is a comment."""
    import shlex

    lines = [f"{name}={shlex.quote(value)}" for name, value in environment["variables"].items()]
    lines += [f"# {name}: a secret, its value is not shown" for name in environment["secrets"]]
    return "".join(f"{line}\n" for line in lines)


def describe(run: Json) -> str:
    """Return a run as lines of `name  value`; unknown values are omitted."""
    title = paint(run["run_id"], "1", has_colour(sys.stdout))
    lines = facts([*_state_facts(run), *_progress_facts(run), *_program_facts(run)]).splitlines()
    return f"{title}\n" + "".join(f"  {line}\n" for line in lines)


def _state_facts(run: Json) -> list[tuple[str, object]]:
    """Return name, state, times, cause and origin of a run."""
    state = str(run.get("state"))
    if run.get("outcome"):
        state += f", {run['outcome']}"
    note_text = note(run)
    is_imported = run.get("origin") == "import"
    worked = f", after {took(run)}" if run.get("started_at") else "" if is_imported else ", before it started"
    ended = [("ended", f"{clock(run['finished_at'])}{worked}")] if run.get("finished_at") else []
    return [
        ("name", run.get("name")),
        ("state", f"{state} ({note_text})" if note_text else state),
        ("owner", run.get("owner")),
        ("created", f"{clock(run.get('created_at'))} ({ago(run.get('created_at'))} ago)"),
        ("not before", clock(run["not_before"]) if run.get("not_before") else None),
        ("started", clock(run["started_at"]) if run.get("started_at") else None),
        *ended,
        ("cause", cause(run)),
        *leftover_facts(run, run.get("leftovers")),
        ("stuck at", _stuck_text(run)),
        ("post-mortem", f"mosaicctl logs --post-mortem {run['run_id']}" if _stuck_text(run) else None),
        ("exit code", run.get("exit_code")),
        ("signal", run.get("signal")),
        ("attempt", _attempt_text(run)),
        ("origin" if is_imported else "retry of", run.get("origin")),
        ("resumed from", _checkpoint_text(run.get("resumed_from"))),
        ("checkpoint", _checkpoint_text(run.get("checkpoint"))),
    ]


def _stuck_text(run: Json) -> str | None:
    """Return where the processes of a stuck run were waiting, from its post-mortem."""
    post_mortem = (run.get("cause") or {}).get("post_mortem")
    if not post_mortem:
        return None
    where = [
        post_mortem.get("python"),
        f"waits in {post_mortem['waits_in']}" if post_mortem.get("waits_in") else None,
    ]
    return f"{counted(post_mortem.get('processes') or 0, 'process', 'processes')}, " + ", ".join(
        clean(text) for text in (*where, f"state {post_mortem.get('state')}") if text
    )


def _checkpoint_text(checkpoint: Json | None) -> str | None:
    """Return step and path of a checkpoint."""
    if not checkpoint:
        return None
    path = str(checkpoint["path"])
    return f"step {checkpoint['step']}, {path}" if checkpoint.get("step") is not None else path


def _attempt_text(run: Json) -> str | None:
    """Return the number of the attempt, and the used retries."""
    if not run.get("attempt"):
        return None
    text = str(run["attempt"])
    if run.get("retries"):
        text += f" ({run.get('retries_used') or 0} of {run['retries']} retries used)"
    return text


def _progress_facts(run: Json) -> list[tuple[str, object]]:
    """Return progress, last report and metrics of a run."""
    counters = run.get("progress") or {}
    done = progress(run)
    if counters.get("steps") and "steps" not in done:
        done += f", {counters['steps']} steps"
    if counters.get("steps_per_s"):
        done += f", {number(counters['steps_per_s'])} steps/s"
    beat = run.get("last_heartbeat_at")
    metrics = [(f"  {name}", number(value)) for name, value in (run.get("metrics") or {}).items()]
    return [
        ("progress", done if done != "-" else None),
        ("last report", f"{ago(beat)} ago" if beat and run.get("state") != "TERM" else None),
        *([("metrics", "(last values)"), *metrics] if metrics else []),
    ]


def _program_facts(run: Json) -> list[tuple[str, object]]:
    """Return resources, limits, command and directories of a run."""
    from mosaicd.protocol.durations import format_duration

    def seconds(key: str) -> str | None:
        return None if run.get(key) is None else format_duration(run[key])

    return [
        ("cpus", _cpus_text(run.get("cpus"))),
        ("gpus", granted_text(run.get("gpus"))),
        ("slots", " ".join(str(slot) for slot in run.get("slots") or [])),
        ("memory", _memory_text(run)),
        ("input", None if run.get("stdin_bytes") is None else size(run["stdin_bytes"])),
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
        ("containment", containment_text(run)),
        ("run directory", run.get("run_dir")),
        ("digest", run.get("digest")),
    ]


def _cpus_text(share: Json | None) -> str | None:
    """Return the CPUs, and once they are granted the variable that tells the run."""
    got = (share or {}).get("granted")
    return f"{granted_text(share)} (MOSAIC_CPUS={got})" if got else granted_text(share)


def _memory_text(run: Json) -> str | None:
    """Return the requested memory, and whether a control group enforces it."""
    if not run.get("memory_mb"):
        return None
    is_known = run.get("containment") is not None
    is_limit = (run.get("limits") or {}).get("memory_bytes") is not None
    text = f"{run['memory_mb']} MiB" + (", enforced" if is_limit else ", not enforced" if is_known else "")
    return f"{text} (MOSAIC_MEMORY_MB={run['memory_mb']})" if is_limit else text


def containment_text(run: Json) -> str | None:
    """Return the kind of containment with its limits: `cgroup-v2: memory 512 MiB, 16384 tasks`."""
    limits = run.get("limits") or {}
    limit_texts = []
    if limits.get("memory_bytes"):
        limit_texts.append(f"memory {limits['memory_bytes'] >> 20} MiB")
    if limits.get("tasks"):
        limit_texts.append(f"{limits['tasks']} tasks")
    if limits.get("cpu_weight"):
        limit_texts.append(f"CPU weight {limits['cpu_weight']}")
    kind = run.get("containment")
    return f"{kind}: {', '.join(limit_texts)}" if kind and limit_texts else kind


def granted_text(share: Json | None) -> str | None:
    """Return `1`, or `2 of the 4 asked for` if the machine has fewer; None if none were requested."""
    if not share or not share.get("requested"):
        return None
    got = share.get("granted")
    if got is None or got == share["requested"]:
        return str(share["requested"])
    return f"{got} of the {share['requested']} asked for"


def shell_words(argv: list[str]) -> str:
    """Return a command quoted for the shell."""
    import shlex

    return shlex.join(argv)
