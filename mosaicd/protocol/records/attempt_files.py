"""The files of one attempt, as the daemon has read them."""

from dataclasses import dataclass

from mosaicd.protocol.records.attempt import Exit, Launch, Started


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """An absent file is None; an invalid file is a record without values.  `is_held`: the shim is alive."""

    number: int
    launch: Launch | None = None
    started: Started | None = None
    exit: Exit | None = None
    is_held: bool = False
