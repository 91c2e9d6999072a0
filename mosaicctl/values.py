"""The values of options and arguments, read by argparse: a mistake is reported before a daemon is asked.

Each function takes the text and returns its value, or raises ArgumentTypeError with a sentence that says
which values are allowed.  Note: an empty text is a mistake, too.  An unset variable of a script becomes an
empty text, and `prune --name "$name"` must not mean every name.
"""

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence


def text(word: str) -> str:
    """Return a text that is not empty."""
    if not word:
        raise ArgumentTypeError("the value is empty (is a variable unset?)")
    return word


def selector(word: str) -> str:
    """Return what names a run, or several."""
    if not word.strip():
        raise ArgumentTypeError("the value is empty (is a variable unset?); @ is your last run")
    return word


def duration(word: str) -> float:
    """Return seconds, 0 or more."""
    from mosaicd.protocol.durations import parse_duration

    try:
        return parse_duration(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def positive_duration(word: str) -> float:
    """Return seconds, more than 0."""
    seconds = duration(word)
    if not seconds:
        raise ArgumentTypeError(f"{word!r} is not allowed; give more than 0")
    return seconds


def moment(word: str) -> float:
    """Return what --since means, in seconds since the epoch."""
    from mosaicctl.moment import parse_moment

    try:
        return parse_moment(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def pair(word: str) -> tuple[str, str]:
    """Return key and value of K=V."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ArgumentTypeError(f"{word!r} is not a label; write K=V")
    return key, value


def states(words: str) -> list[str]:
    """Return the wire names of states given as `EXEC`, `running` or `exec,pause`."""
    from mosaicd.protocol.states import LEGACY_OUTCOMES, parse_state

    found = []
    for word in (word.strip() for word in words.split(",")):
        try:
            state = parse_state(word).value
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None
        # `failed`, an older state, says more than TERM: the daemon knows what.
        found.append(word.lower() if word.lower() in LEGACY_OUTCOMES else state)
    return found


def outcomes(words: str) -> list[str]:
    """Return the outcomes given as `failed` or `failed,timeout`."""
    from mosaicd.protocol.states import Outcome

    read = one_of([*Outcome], "an outcome")
    return [read(word.strip().lower()) for word in words.split(",")]


def causes(word: str) -> str:
    """Return a cause to retry after, or a word for several; the daemon checks that it can be retried."""
    from mosaicd.protocol.states import CauseKind

    return one_of(["any", "infrastructure", *CauseKind], "a cause")(word)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the reader of integers that are at least `least` and at most `most`."""
    allowed = f"{least} or more" if most is None else f"{least} to {most}"

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise ArgumentTypeError(f"{word!r} is not a whole number") from None
        if number < least or (most is not None and number > most):
            raise ArgumentTypeError(f"{number} is not allowed; give {allowed}")
        return number

    return read


def readable(path: str) -> str:
    """Return the path of a file that we can read."""
    try:
        with open(text(path), "rb") as file:
            file.read(0)
    except OSError as error:
        raise ArgumentTypeError(f"{path}: {error.strerror}") from None
    return path


def existing(path: str) -> str:
    """Return the path of a file that exists.  The daemon reads it, possibly with other rights than ours."""
    import os

    if not os.path.exists(text(path)) or os.path.isdir(path):
        raise ArgumentTypeError(f"{path} is not a file")
    return path


def target(path: str) -> str:
    """Return the path of a file that can be written: its directory exists, and it is not a directory."""
    import os

    if os.path.isdir(text(path)):
        raise ArgumentTypeError(f"{path} is a directory; name a file in it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ArgumentTypeError(f"{path}: the directory {folder} does not exist")
    return path


def one_of(known: Sequence[str], what: str) -> Callable[[str], str]:
    """Return the reader of one of the words `known`; `what` they are goes into the sentence."""

    def read(word: str) -> str:
        if word not in known:
            raise ArgumentTypeError(f"{word!r} is not {what}; use one of {', '.join(known)}")
        return word

    return read
