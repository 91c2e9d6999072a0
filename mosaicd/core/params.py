"""Ranges and forms of what is submitted: what types and the config's schema cannot say.

These rules are ours, and each keeps out something that could be stored or executed by nobody (a NUL in
an argument, a number that SQLite has no room for).  A config that a JSON Schema validator accepts and
that could be run anywhere is accepted here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mosaicd.core.program import WORDS, worker_section
from mosaicd.core.run import INFRASTRUCTURE_CAUSES
from mosaicd.core.schema import Number, Record, check_rule, check_text, check_unicode
from mosaicd.protocol.faults import Faults, Path, shown
from mosaicd.protocol.messages import Submit
from mosaicd.protocol.states import CauseKind

#: Integers that are stored and computed with; more than any machine has, and exact in every JSON reader.
MAX_NUMBER = 2**53 - 1
#: One argument, or one NAME=value, that execve takes (MAX_ARG_STRLEN less its NUL).
MAX_WORD_BYTES = 131071
#: All arguments together: a run object stays well below the longest reply, and the kernel takes them.
MAX_COMMAND_BYTES = 256 << 10
MAX_PATH_BYTES = 4095
MAX_LABELS = 64
MAX_KEY = 200
MAX_PRIORITY = 1000
DAY_S = 86400
YEAR_S = 366 * DAY_S

#: Causes that can end an attempt and leave the run worth another one.
RETRYABLE = tuple(
    kind
    for kind in CauseKind
    if kind not in (CauseKind.BY_USER, CauseKind.TIME_LIMIT, CauseKind.STEP_LIMIT, CauseKind.UNKILLABLE)
)

#: Words that stand for several causes.
RETRY_SETS: Mapping[str, tuple[CauseKind, ...]] = {
    "any": RETRYABLE,
    "infrastructure": INFRASTRUCTURE_CAUSES,
}

#: What a number among the parameters may be.
_RANGES: dict[str, Number] = {
    "cpus": Number(1, MAX_NUMBER),
    "gpus": Number(0, 1024),  # a config's own limit is 8; beyond the machine it is impossible, not invalid
    "time_limit_s": Number(0, MAX_NUMBER, closed=False),
    "max_steps": Number(1, MAX_NUMBER),
    "priority": Number(-MAX_PRIORITY, MAX_PRIORITY),
    "retries": Number(0, 100),
    "grace_s": Number(0, DAY_S),
    "heartbeat_timeout_s": Number(0, YEAR_S, closed=False),
    "handshake_timeout_s": Number(0, DAY_S, closed=False),
    "start_timeout_s": Number(0, YEAR_S, closed=False),
    "stall_s": Number(0, YEAR_S),
}

#: metadata.worker.liveness: the same words as the parameters', in the same ranges, and no others.
LIVENESS = Record(
    {
        name: _RANGES[name]
        for name in ("handshake_timeout_s", "start_timeout_s", "heartbeat_timeout_s", "stall_s")
    }
)


def check_params(submit: Submit, faults: Faults) -> None:
    """Add every parameter that is out of its range; `config` is not looked at."""
    for name, rule in _RANGES.items():
        value = getattr(submit, name)
        if value is not None:
            check_rule(rule, value, (name,), faults)
    for name, longest in (("name", 120), ("key", MAX_KEY)):
        check_name(getattr(submit, name), name, longest, faults)
    for index, word in enumerate(submit.retry_on or ()):
        if word not in RETRYABLE and word not in RETRY_SETS:
            words = ", ".join((*RETRY_SETS, *RETRYABLE))
            faults.add(("retry_on", index), f"{shown(word)} is no cause to retry; use {words}")
    _check_labels(submit.labels, faults)
    check_environment(submit.environment, faults)
    if submit.cwd is not None:
        if not submit.cwd.startswith("/"):
            faults.add(("cwd",), "must be an absolute path")
        check_word(submit.cwd, ("cwd",), faults, MAX_PATH_BYTES)
    if submit.command is not None:
        _check_command(submit.command, faults)


def retry_causes(words: Sequence[str] | None) -> tuple[CauseKind, ...]:
    """Return the causes that checked `words` stand for, each once; None: those that are the machine's."""
    found: list[CauseKind] = []
    for word in ("infrastructure",) if words is None else words:
        found += RETRY_SETS[word] if word in RETRY_SETS else [CauseKind(word)]
    return tuple(dict.fromkeys(found))


def liveness(config: Mapping[str, Any]) -> Any:
    """Return what a config says of when its run counts as dead, without nulls; {} where it says nothing."""
    found = worker_section(config).get("liveness", {})
    if not isinstance(found, dict):
        return found
    return {key: value for key, value in found.items() if value is not None}


def check_liveness(config: Mapping[str, Any], faults: Faults) -> None:
    """Add every place where metadata.worker.liveness is not what `LIVENESS` says."""
    check_rule(LIVENESS, liveness(config), ("metadata", "worker", "liveness"), faults)


def check_config_words(config: Mapping[str, Any], faults: Faults) -> None:
    """Add what is wrong with a config that fits its schema: words exec cannot take, numbers out of bounds."""
    check_word(config["run_name"], ("run_name",), faults)
    check_word(config["entry_point"], ("entry_point",), faults)
    _check_words(config["arguments"], ("arguments",), faults)
    check_environment(config["environment"], faults)
    section = worker_section(config)
    for key in WORDS:
        if key in section:
            check_word(section[key], ("metadata", "worker", key), faults)
    _check_words(section.get("arguments", []), ("metadata", "worker", "arguments"), faults)
    for parent, key in (
        ("resources", "cpus"),
        ("resources", "memory_mb"),
        ("schedule", "max_duration_seconds"),
        ("schedule", "max_steps"),
    ):
        value = config.get(parent, {}).get(key, 1)
        if value > MAX_NUMBER:
            faults.add((parent, key), f"{shown(value)} is more than the {MAX_NUMBER} allowed")


def check_word(word: str, path: Path, faults: Faults, most: int = MAX_WORD_BYTES) -> None:
    """Add what no kernel interface and no database takes: a NUL, a lone surrogate, more than `most` bytes."""
    if "\0" in word:
        faults.add(path, "must not hold a NUL character")
    check_unicode(word, path, faults)
    size = len(word.encode(errors="surrogatepass"))
    if size > most:
        faults.add(path, f"{size} bytes are more than the {most} that can be passed on")


def _check_words(words: Sequence[str], path: Path, faults: Faults) -> None:
    for index, word in enumerate(words):
        check_word(word, (*path, index), faults)
    size = sum(len(json.dumps(word, ensure_ascii=False).encode(errors="surrogatepass")) + 1 for word in words)
    if size > MAX_COMMAND_BYTES:
        rule = f"{size} bytes in all (as JSON) are more than the {MAX_COMMAND_BYTES} allowed; use a file"
        faults.add(path, rule)


def _check_command(command: Sequence[str], faults: Faults) -> None:
    if not command:
        faults.add(("command",), "must not be empty")
    elif not command[0]:
        faults.add(("command", 0), "must not be empty")
    _check_words(command, ("command",), faults)


def check_name(value: str | None, name: str, longest: int, faults: Faults) -> None:
    """Add what keeps a given name or key from being stored and shown."""
    if value is not None:
        check_text(value, (name,), faults, 1, longest)
        check_word(value, (name,), faults)


def check_environment(environment: Mapping[str, str], faults: Faults) -> None:
    """Add every variable that cannot be handed to a program."""
    for name, value in environment.items():
        if not name or "=" in name:
            faults.add(("environment", name), "a variable's name must not be empty or hold =")
        else:
            check_word(f"{name}={value}", ("environment", name), faults)


def _check_labels(labels: Mapping[str, str], faults: Faults) -> None:
    if len(labels) > MAX_LABELS:
        faults.add(("labels",), f"{len(labels)} labels are more than the {MAX_LABELS} allowed")
        return
    for key, value in labels.items():
        if not 1 <= len(key) <= 63 or "=" in key or not key.isprintable():
            faults.add(("labels", key), "a label's key is 1 to 63 printable characters without =")
        if len(value) > 255 or not value.isprintable():
            faults.add(("labels", key), "a label's value is at most 255 printable characters")
