"""The changes of `set` as text: `priority 0 -> 10`, `label team: a -> b`."""

from mosaicctl.render import clean
from mosaicd.protocol import Json


def changes(old: Json, new: Json) -> list[str]:
    """Return a text for each field of `new` that is missing in `old` or has another value there."""
    names = [name for name in ("name", "priority") if name in new and new[name] != old.get(name)]
    before = old.get("labels") or {}
    after = new.get("labels", before) or {}
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [
        *(f"{name} {_value_text(old, name)} -> {_value_text(new, name)}" for name in names),
        *(f"label {clean(key)}: {_value_text(before, key)} -> {_value_text(after, key)}" for key in keys),
    ]


def _value_text(values: Json, key: str) -> str:
    """Return the value of `key`: `""` if it is empty, `(none)` if it is missing."""
    return (clean(values[key]) or '""') if key in values else "(none)"
