"""Collect the faults of an input (parameters, a config, settings) and refuse it with all of them at once."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from mosaicd.protocol.errors import InvalidParams

#: A reply must stay small however broken the input is: so many faults are listed, the rest are counted.
MAX_FAULTS = 200
#: A search for a similar word costs more than a check: it is made for so many faults, and for words so long.
MAX_SEARCHES = 20
MAX_SEARCHED = 64

#: The keys and indexes that lead to a value.
Path = tuple[str | int, ...]
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,120}")


class Fault(NamedTuple):
    """A rule that the input breaks, and the place; `rule` is a phrase that can follow `path`."""

    path: str
    rule: str


class Faults:
    """The faults found so far.  The checks of one input all add to one collector; `refuse` comes last."""

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
        if self.count > MAX_SEARCHES or len(word) > MAX_SEARCHED:
            return None
        return next(iter(get_close_matches(word, known, n=1)), None)

    def to_list(self) -> list[Fault]:
        """Return every fault; above MAX_FAULTS the last entry counts the rest."""
        left = self.count - len(self._listed)
        return [*self._listed, Fault("", f"and {left} more faults")] if left else [*self._listed]

    def to_dicts(self) -> list[dict[str, str]]:
        """Return the faults of `to_list` as they are sent: {"path", "rule"}."""
        return [fault._asdict() for fault in self.to_list()]

    def refuse(self) -> None:
        """Raise InvalidParams with all faults if there are any."""
        if self.count:
            raise self.error()

    def error(self) -> InvalidParams:
        """Return the error for the faults, of which there is at least one; its message shows the first."""
        path, rule = self._listed[0]
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return InvalidParams((f"{path}: {rule}" if path else rule) + more, errors=self.to_dicts())


def invalid(path: Path | str, rule: str) -> InvalidParams:
    """Return the error for an input with this one fault."""
    faults = Faults()
    faults.add(path, rule)
    return faults.error()


def dotted(path: Path) -> str:
    """Return `resources.gpus.requested`, `arguments[2]`, `environment["A.B"]`; the root is ``."""
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
    """Return `value` as JSON, cut to `limit` characters, for a sentence about it."""
    if isinstance(value, str):
        value = value[:limit]
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
