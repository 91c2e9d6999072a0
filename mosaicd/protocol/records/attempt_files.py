"""The files of one attempt, as the daemon has read them."""

from dataclasses import dataclass

from mosaicd.protocol.records.attempt import Exit, Launch, Started


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """A file that is absent is None, one that cannot be used has no values.  `is_held`: the shim lives."""

    number: int
    launch: Launch | None = None
    started: Started | None = None
    exit: Exit | None = None
    is_held: bool = False
