"""Ranges and forms of parameters and configs that neither a type nor the config's schema expresses.

Each rule refuses a value with which no program can be started (a NUL in an argument) or that
SQLite cannot store (a number that is too large).  A config that a JSON Schema validator accepts, and that
could be run on any machine, is accepted here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from mosaicd.core.program import TEXT_KEYS, worker_section
from mosaicd.core.run import INFRASTRUCTURE_CAUSES
from mosaicd.core.schema import Number, Record, Whole, check_rule, check_text, check_unicode
from mosaicd.protocol.faults import Faults, Path, shown
from mosaicd.protocol.process_limits import LIMIT_NAMES, MOST_CPUS, UNLIMITED
from mosaicd.protocol.signals import KILL
from mosaicd.protocol.states import CauseKind

#: Integers that are stored and computed with; more than any machine has, and exact in every JSON reader.
MAX_NUMBER = 2**53 - 1
#: One argument, or one NAME=value, that execve takes (MAX_ARG_STRLEN less its NUL).
MAX_WORD_BYTES = 131071
#: All arguments together: a run object stays well below the longest reply, and the kernel takes them.
MAX_COMMAND_BYTES = 256 << 10
MAX_PATH_BYTES = 4095
#: One PiB; a number of bytes that the kernel reads without an overflow.
MAX_MEMORY_MB = 1 << 30
MAX_LABELS = 64
MAX_NAME = 120
MAX_KEY = 200
MAX_PRIORITY = 1000
DAY_S = 86400
YEAR_S = 366 * DAY_S

#: Causes after which another attempt of the run may succeed.
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

#: The range of each parameter that is a number.
_NUMBERS: dict[str, Number] = {
    "cpus": Number(1, MAX_NUMBER),
    "gpus": Number(0, 1024),  # a config's own limit is 8; beyond the machine it is impossible, not invalid
    "memory_mb": Number(1, MAX_MEMORY_MB),
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

#: metadata.worker.liveness: these keys have the names and ranges of the parameters; there are no others.
LIVENESS = Record(
    {
        name: _NUMBERS[name]
        for name in ("handshake_timeout_s", "start_timeout_s", "heartbeat_timeout_s", "stall_s")
    }
)


def check_params(params: Mapping[str, Any], faults: Faults) -> None:
    """Add a fault for each parameter that is out of its range; None: the parameter is not given.

    `params` holds some or all of the parameters of run.submit; other methods have parameters of the same
    names and ranges.  `config` is not checked here.
    """
    for name, check in _CHECKS.items():
        value = params.get(name)
        if value is not None:
            check(value, (name,), faults)


def check_no_grace(signal: str | None, grace_s: float | None, faults: Faults) -> None:
    """Add a fault for the signal KILL with a grace period."""
    if signal == KILL and grace_s:
        faults.add(("grace_s",), "the signal KILL has no grace period; leave grace_s out or give 0")


def retry_causes(words: Sequence[str] | None) -> tuple[CauseKind, ...]:
    """Return the causes that checked `words` stand for, each once; None: the causes of the machine."""
    found: list[CauseKind] = []
    for word in ("infrastructure",) if words is None else words:
        found += RETRY_SETS[word] if word in RETRY_SETS else [CauseKind(word)]
    return tuple(dict.fromkeys(found))


def liveness(config: Mapping[str, Any]) -> dict[str, float]:
    """Return metadata.worker.liveness of a checked config, without nulls; {} if the config has none."""
    found = worker_section(config).get("liveness", {})
    return {key: value for key, value in found.items() if value is not None}


def check_liveness(config: Mapping[str, Any], faults: Faults) -> None:
    """Add a fault for each place in metadata.worker.liveness that breaks `LIVENESS`; null: absent."""
    found = worker_section(config).get("liveness", {})
    if isinstance(found, dict):
        found = {key: value for key, value in found.items() if value is not None}
    check_rule(LIVENESS, found, ("metadata", "worker", "liveness"), faults)


def check_config_words(config: Mapping[str, Any], faults: Faults) -> None:
    """Add the faults of a config that fits its schema: words that exec cannot take, numbers out of range."""
    check_word(config["run_name"], ("run_name",), faults)
    check_word(config["entry_point"], ("entry_point",), faults)
    _check_words(config["arguments"], ("arguments",), faults)
    _check_environment(config["environment"], ("environment",), faults)
    section = worker_section(config)
    for key in TEXT_KEYS:
        if key in section:
            check_word(section[key], ("metadata", "worker", key), faults)
    _check_words(section.get("arguments", []), ("metadata", "worker", "arguments"), faults)
    for parent, key, most in (
        ("resources", "cpus", MAX_NUMBER),
        ("resources", "memory_mb", MAX_MEMORY_MB),
        ("schedule", "max_duration_seconds", MAX_NUMBER),
        ("schedule", "max_steps", MAX_NUMBER),
    ):
        value = config.get(parent, {}).get(key, 1)
        if value > most:
            faults.add((parent, key), f"{shown(value)} is more than the {most} allowed")


def check_word(word: str, path: Path, faults: Faults, most: int = MAX_WORD_BYTES) -> None:
    """Add a fault for a NUL, a lone surrogate, or more than `most` bytes, which exec or SQLite refuses."""
    if "\0" in word:
        faults.add(path, "must not contain a NUL character")
    check_unicode(word, path, faults)
    size = len(word.encode(errors="surrogatepass"))
    if size > most:
        faults.add(path, f"{size} bytes are more than the {most} allowed")


def _check_words(words: Sequence[str], path: Path, faults: Faults) -> None:
    for index, word in enumerate(words):
        check_word(word, (*path, index), faults)
    size = sum(len(json.dumps(word, ensure_ascii=False).encode(errors="surrogatepass")) + 1 for word in words)
    if size > MAX_COMMAND_BYTES:
        rule = f"{size} bytes in all (as JSON) are more than the {MAX_COMMAND_BYTES} allowed; use a file"
        faults.add(path, rule)


def _check_command(command: Sequence[str], path: Path, faults: Faults) -> None:
    if not command:
        faults.add(path, "must not be empty")
    elif not command[0]:
        faults.add((*path, 0), "must not be empty")
    _check_words(command, path, faults)


def _check_name(longest: int, value: str, path: Path, faults: Faults) -> None:
    """Add a fault if a name or key cannot be stored and shown."""
    check_text(value, path, faults, 1, longest)
    check_word(value, path, faults)


def _check_environment(environment: Mapping[str, str], path: Path, faults: Faults) -> None:
    """Add a fault for each variable that cannot be passed to a program."""
    for name, value in environment.items():
        if not name or "=" in name:
            faults.add((*path, name), "the name of a variable must not be empty or contain =")
        else:
            check_word(f"{name}={value}", (*path, name), faults)


def _check_process(process: Mapping[str, Any], path: Path, faults: Faults) -> None:
    """Add a fault for each attribute of a process that is unknown or cannot be set."""
    for name, value in process.items():
        here = (*path, name)
        if name == "umask":
            check_rule(Whole(0, 0o777), value, here, faults)
        elif name == "nice":
            check_rule(Whole(0, 19), value, here, faults)
        elif name == "limits":
            _check_limits(value, here, faults)
        elif name == "affinity":
            _check_affinity(value, here, faults)
        else:
            faults.add(here, "is not an attribute; there are umask, nice, limits, affinity")


def _check_limits(limits: object, path: Path, faults: Faults) -> None:
    if not isinstance(limits, dict):
        faults.add(path, "must be an object")
        return
    for name, limit in limits.items():
        if name not in LIMIT_NAMES:
            faults.add((*path, name), f"is not a limit; there are {', '.join(LIMIT_NAMES)}")
        elif limit != UNLIMITED and (type(limit) is not int or not 0 <= limit <= MAX_NUMBER):
            faults.add((*path, name), f'must be "{UNLIMITED}" or a whole number from 0 to {MAX_NUMBER}')


def _check_affinity(cpus: object, path: Path, faults: Faults) -> None:
    is_list = isinstance(cpus, list) and 1 <= len(cpus) <= MOST_CPUS
    if not (is_list and all(type(cpu) is int and 0 <= cpu < MOST_CPUS for cpu in cast(list[object], cpus))):
        faults.add(path, f"must be a list of CPU numbers from 0 to {MOST_CPUS - 1}, at least one")


def _check_retry_words(words: Sequence[str], path: Path, faults: Faults) -> None:
    for index, word in enumerate(words):
        if word not in RETRYABLE and word not in RETRY_SETS:
            known = ", ".join((*RETRY_SETS, *RETRYABLE))
            faults.add((*path, index), f"{shown(word)} is not a cause that can be retried; use {known}")


def _check_cwd(cwd: str, path: Path, faults: Faults) -> None:
    if not cwd.startswith("/"):
        faults.add(path, "must be an absolute path")
    check_word(cwd, path, faults, MAX_PATH_BYTES)


def _check_labels(labels: Mapping[str, str], path: Path, faults: Faults) -> None:
    if len(labels) > MAX_LABELS:
        faults.add(path, f"{len(labels)} labels are more than the {MAX_LABELS} allowed")
        return
    for key, value in labels.items():
        if not 1 <= len(key) <= 63 or "=" in key or not key.isprintable():
            faults.add((*path, key), "a label's key is 1 to 63 printable characters without =")
        if len(value) > 255 or not value.isprintable():
            faults.add((*path, key), "a label's value is at most 255 printable characters")


#: The check of each parameter, in the order in which faults are reported.
_CHECKS: Mapping[str, Callable[[Any, Path, Faults], None]] = {
    **{name: partial(check_rule, number) for name, number in _NUMBERS.items()},
    "name": partial(_check_name, MAX_NAME),
    "key": partial(_check_name, MAX_KEY),
    "retry_on": _check_retry_words,
    "labels": _check_labels,
    "environment": _check_environment,
    "caller_environment": _check_environment,
    "cwd": _check_cwd,
    "process": _check_process,
    "command": _check_command,
}
#: The names of the parameters that `check_params` knows.
CHECKED = tuple(_CHECKS)
