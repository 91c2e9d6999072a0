"""What `set` changed, in words: `priority 0 -> 10`, `label team: a -> b`."""

from mosaicctl.render import clean
from mosaicd.protocol import Json


def changes(was: Json, now: Json) -> list[str]:
    """Return a phrase for each field of `now` that `was` has otherwise, or does not have."""
    names = [name for name in ("name", "priority") if name in now and now[name] != was.get(name)]
    before = was.get("labels") or {}
    after = now.get("labels", before) or {}
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [
        *(f"{name} {_word(was, name)} -> {_word(now, name)}" for name in names),
        *(f"label {clean(key)}: {_word(before, key)} -> {_word(after, key)}" for key in keys),
    ]


def _word(values: Json, key: str) -> str:
    """Return a value; an empty one, and one that is not there, are told apart."""
    return (clean(values[key]) or '""') if key in values else "(none)"
