"""Types of options and arguments for argparse: a mistake is reported before a request is sent.

Each function receives the text of the command line and returns its value, or raises ArgumentTypeError with
the rule.  Note: an empty text is a mistake, too.  An unset variable of a script becomes an empty text, and
`prune --name "$name"` must not mean every name.
"""

import signal
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence

from mosaicd.protocol import signals


def nonempty(value: str) -> str:
    """Return a text that is not empty."""
    if not value:
        raise ArgumentTypeError("the value is empty (is a variable unset?)")
    return value


def selector(value: str) -> str:
    """Return a RUN argument: an id, a name, a pattern or `@`; it is not blank."""
    if not value.strip():
        raise ArgumentTypeError("the value is empty (is a variable unset?); @ is your last run")
    return value


def duration(value: str) -> float:
    """Return seconds, 0 or more."""
    from mosaicd.protocol.durations import parse_duration

    try:
        return parse_duration(value)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def positive_duration(value: str) -> float:
    """Return seconds, more than 0."""
    seconds = duration(value)
    if not seconds:
        raise ArgumentTypeError(f"{value!r} is not allowed; give more than 0")
    return seconds


def memory_mb(value: str) -> int:
    """Return a size of memory in MiB."""
    from mosaicctl.sizes import parse_mebibytes

    try:
        return parse_mebibytes(value)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def moment(value: str) -> float:
    """Return the time of --since in seconds since the epoch."""
    from mosaicctl.moment import parse_moment

    try:
        return parse_moment(value)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def label_pair(item: str) -> tuple[str, str]:
    """Return key and value of K=V."""
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ArgumentTypeError(f"{item!r} is not a label; write K=V")
    return key, value


def states(items: str) -> list[str]:
    """Return the wire names of states given as `EXEC`, `running` or `exec,pause`."""
    from mosaicd.protocol.states import LEGACY_OUTCOMES, parse_state

    names = []
    for item in (item.strip() for item in items.split(",")):
        try:
            state = parse_state(item).value
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None
        # An older state name such as `failed` means TERM with an outcome; the daemon knows both.
        names.append(item.lower() if item.lower() in LEGACY_OUTCOMES else state)
    return names


def outcomes(items: str) -> list[str]:
    """Return the outcomes given as `failed` or `failed,timeout`."""
    from mosaicd.protocol.states import Outcome

    read = one_of([*Outcome], "an outcome")
    return [read(item.strip().lower()) for item in items.split(",")]


def retry_cause(value: str) -> str:
    """Return a cause, `any` or `infrastructure`; the daemon checks that the cause allows a retry."""
    from mosaicd.protocol.states import CauseKind

    return one_of(["any", "infrastructure", *CauseKind], "a cause")(value)


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return the type of integers from `minimum` to `maximum`."""
    allowed = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"

    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ArgumentTypeError(f"{value!r} is not a whole number") from None
        if number < minimum or (maximum is not None and number > maximum):
            raise ArgumentTypeError(f"{number} is not allowed; give {allowed}")
        return number

    return read


def readable_file(path: str) -> str:
    """Return the path of a file that mosaicctl can read."""
    try:
        with open(nonempty(path), "rb") as file:
            file.read(0)
    except OSError as error:
        raise ArgumentTypeError(f"{path}: {error.strerror}") from None
    return path


def existing_file(path: str) -> str:
    """Return the path of a file that exists; the daemon reads it, possibly with other permissions."""
    import os

    if not os.path.exists(nonempty(path)) or os.path.isdir(path):
        raise ArgumentTypeError(f"{path} is not a file")
    return path


def new_file(path: str) -> str:
    """Return the path of a file to write: its directory exists, and it is not a directory."""
    import os

    if os.path.isdir(nonempty(path)):
        raise ArgumentTypeError(f"{path} is a directory; name a file in it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ArgumentTypeError(f"{path}: the directory {folder} does not exist")
    return path


def stop_signal(value: str) -> str:
    """Return the name of a signal for a stop, from a name with or without SIG, or a number."""
    name = value.upper().removeprefix("SIG")
    if value.isdecimal() and int(value) in set(signal.Signals):
        name = signal.Signals(int(value)).name.removeprefix("SIG")
    if name not in signals.NAMES:
        raise ArgumentTypeError(f"{value!r} cannot begin a stop; use one of {', '.join(signals.NAMES)}")
    return name


def one_of(choices: Sequence[str], noun: str) -> Callable[[str], str]:
    """Return the type of the words in `choices`; its error says "is not `noun`"."""

    def read(value: str) -> str:
        if value not in choices:
            raise ArgumentTypeError(f"{value!r} is not {noun}; use one of {', '.join(choices)}")
        return value

    return read
