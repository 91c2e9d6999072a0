"""The signals that a stop can begin with.

A signal that stops a process without ending it (STOP, TSTP) is none of them: such a process cannot save.
"""

import signal
from typing import Literal, get_args

#: A name that a stop may ask for; KILL means a grace period of 0.
StopSignal = Literal[
    "TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ABRT", "ALRM", "CONT", "WINCH", "XCPU", "PWR", "KILL"
]

NAMES: tuple[str, ...] = get_args(StopSignal)
KILL = "KILL"


def number_of(name: str) -> signal.Signals:
    """Return the signal of a name in NAMES."""
    return signal.Signals[f"SIG{name}"]
