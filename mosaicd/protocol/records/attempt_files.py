"""The files of one attempt, as the daemon has read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """A file that is absent is None, one that cannot be used is empty.  `is_held`: the shim lives."""

    number: int
    launch: Mapping[str, Any] | None = None
    started: Mapping[str, Any] | None = None
    exit: Mapping[str, Any] | None = None
    is_held: bool = False
