"""Read settings strictly from a parsed TOML document, with all faults together; write settings as TOML.

A TOML integer is accepted for seconds; nothing else is converted.  `true` is not 1.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from mosaicd.config.settings import GROUPS, Settings, Worker
from mosaicd.protocol.faults import Faults

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9]{1,64}")
_MOST_WORDS = 1000
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_groups(document: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """Return group name -> settings object for every group in `document`; add faults to `faults`."""
    groups: dict[str, Any] = {}
    for name, table in document.items():
        if name == "paths":  # resolved by the caller, which has the flags
            continue
        if name not in GROUPS and name != "workers":
            sections = ", ".join(["paths", *GROUPS, "workers"])
            faults.add(f"[{name}]", f"is not a section; the sections are {sections}")
        elif not isinstance(table, dict):
            faults.add(name, f"must be a section: [{name}]")
        elif name == "workers":
            groups[name] = _read_workers(table, faults)
        else:
            groups[name] = GROUPS[name](**_read_fields(name, GROUPS[name], table, faults))
    return groups


def _read_fields(group: str, cls: Any, table: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    known = {f.name: f for f in fields(cls)}
    values = {}
    for key, value in table.items():
        path = f"[{group}] {key}"
        if key not in known:
            faults.add(path, f"is not a setting; [{group}] has {', '.join(known)}")
            continue
        try:
            values[key] = _check_value(known[key], value)
        except ValueError as fault:
            faults.add(path, str(fault))
    return values


def _check_value(setting: Field[Any], value: Any) -> object:
    """Return `value` as the setting's type; raise ValueError with the rule."""
    choices = setting.metadata.get("choices")
    if choices:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {_shown(value)}")
        return value
    if "words" in setting.metadata:
        return _check_words(value)
    low, high = setting.metadata["low"], setting.metadata["high"]
    is_whole = setting.type is int
    kind = "a whole number" if is_whole else "a number of " + _unit(setting.name)
    allowed = int if is_whole else (int, float)
    fits = isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high:
        raise ValueError(f"must be {kind} from {low:.15g} to {high:.15g}, not {_shown(value)}")
    return value if is_whole else float(value)


def _check_words(value: Any) -> tuple[str, ...]:
    """Return a list of words as capitals; raise ValueError with the rule."""
    is_list = isinstance(value, list) and len(value) <= _MOST_WORDS
    if not is_list or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in value):
        rule = f"must be a list of at most {_MOST_WORDS} words of letters and digits"
        raise ValueError(f"{rule}, not {_shown(value)}")
    return tuple(word.upper() for word in value)


def _unit(name: str) -> str:
    return {"ms": "milliseconds", "days": "days"}.get(name.rpartition("_")[2], "seconds")


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_workers(table: Mapping[str, Any], faults: Faults) -> dict[str, Worker]:
    workers = {}
    for kind, entry in table.items():
        path = f"[workers.{kind}]"
        if not _KIND.fullmatch(kind):
            faults.add(path, "is not a worker kind: letters, digits, '_', '.', '-', at most 64")
        elif not isinstance(entry, dict):
            faults.add(path, f"must be a section: {path}")
        else:
            worker = _read_worker(path, entry, faults)
            if worker:
                workers[kind] = worker
    return workers


def _read_worker(path: str, entry: Mapping[str, Any], faults: Faults) -> Worker | None:
    before = faults.count
    for key, value in entry.items():
        if key not in ("python", "module"):
            faults.add(f"{path} {key}", "is not a setting; a worker has python, module")
        elif not isinstance(value, str) or not value or "\0" in value:
            faults.add(f"{path} {key}", f"must be a string that is not empty, not {_shown(value)}")
        elif key == "python" and not value.startswith("/"):
            faults.add(f"{path} {key}", f"must be the absolute path of an interpreter, not {_shown(value)}")
    if "python" not in entry:
        faults.add(f"{path} python", "is missing: the interpreter in which this worker is installed")
    return Worker(entry["python"], entry.get("module")) if faults.count == before else None


def to_toml(settings: Settings) -> str:
    """Return `settings` as the text of a settings file."""
    tables: dict[str, Any] = {"paths": settings.paths, **{name: getattr(settings, name) for name in GROUPS}}
    tables |= {f"workers.{_key(kind)}": worker for kind, worker in settings.workers.items()}
    blocks = []
    for name, group in tables.items():
        values = ((f.name, getattr(group, f.name)) for f in fields(group))
        lines = [f"{key} = {_value(value)}" for key, value in values if value is not None]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _quoted(text)


def _value(value: object) -> str:
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    escaped = (
        f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else "\\" + c if c in '"\\' else c for c in text
    )
    return '"' + "".join(escaped) + '"'
