"""Collect the faults of an input (parameters, a config, settings) and refuse it with all of them at once."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from mosaicd.protocol.errors import InvalidParams

#: The largest number of faults in a reply; further faults are only counted, so a reply stays small.
MAX_FAULTS = 200
#: A search for a similar word is expensive, so it is done only for the first faults and for short words.
MAX_SEARCHES = 20
MAX_SEARCHED_LENGTH = 64

#: The keys and indexes that lead to a value.
Path = tuple[str | int, ...]
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,120}")


class Fault(NamedTuple):
    """A broken rule and its place in the input; `rule` is a phrase that follows `path` in a message."""

    path: str
    rule: str


class Faults:
    """The faults of one input.  All checks of the input add to the same object; `refuse` is called last."""

    def __init__(self) -> None:
        self._listed: list[Fault] = []
        self.count = 0

    def add(self, path: Path | str, rule: str) -> None:
        """Add a fault; a `path` that is a string is shown as it is."""
        self.count += 1
        if len(self._listed) < MAX_FAULTS:
            self._listed.append(Fault(path if isinstance(path, str) else dotted(path), rule))

    def similar(self, word: str, known: Iterable[str]) -> str | None:
        """Return the known word that is most similar to `word`; None also after many faults."""
        if self.count > MAX_SEARCHES or len(word) > MAX_SEARCHED_LENGTH:
            return None
        return next(iter(get_close_matches(word, known, n=1)), None)

    def to_list(self) -> list[Fault]:
        """Return every fault; above MAX_FAULTS the last entry counts the rest."""
        unlisted = self.count - len(self._listed)
        return [*self._listed, Fault("", f"and {unlisted} more faults")] if unlisted else [*self._listed]

    def to_dicts(self) -> list[dict[str, str]]:
        """Return the faults of `to_list` in their wire form: {"path", "rule"}."""
        return [fault._asdict() for fault in self.to_list()]

    def refuse(self) -> None:
        """Raise InvalidParams with all faults if there are any."""
        if self.count:
            raise self.error()

    def error(self) -> InvalidParams:
        """Return the error for the faults (at least one); its message shows the first fault."""
        path, rule = self._listed[0]
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return InvalidParams((f"{path}: {rule}" if path else rule) + more, errors=self.to_dicts())


def invalid(path: Path | str, rule: str) -> InvalidParams:
    """Return the error for an input with this one fault."""
    faults = Faults()
    faults.add(path, rule)
    return faults.error()


def dotted(path: Path) -> str:
    """Return the text of a path: `resources.gpus.requested`, `arguments[2]`, `environment["A.B"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part, 120)}]"
    return text


def shown(value: str | float, limit: int = 60) -> str:
    """Return `value` as JSON, cut to `limit` characters, for an error message."""
    if isinstance(value, str):
        value = value[:limit]
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
