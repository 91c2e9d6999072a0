"""What options and arguments hold, read by argparse itself: a slip is told before any daemon is asked.

Each function takes the text and returns its value, or raises ArgumentTypeError with a sentence that says
what would do.  An empty text is a slip, too: it is what a script's unset variable becomes, and `prune
--name "$name"` must not mean every name.
"""

from argparse import ArgumentTypeError
from collections.abc import Callable


def text(word: str) -> str:
    """Return a text that is not empty."""
    if not word:
        raise ArgumentTypeError("an empty text means nothing here (an unset variable?)")
    return word


def selector(word: str) -> str:
    """Return what names a run, or several."""
    if not word.strip():
        raise ArgumentTypeError("an empty text names no run (an unset variable?); @ is your last one")
    return word


def duration(word: str) -> float:
    """Return seconds, 0 or more."""
    from mosaicd.protocol.durations import parse_duration

    try:
        return parse_duration(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def span(word: str) -> float:
    """Return seconds, more than 0."""
    seconds = duration(word)
    if not seconds:
        raise ArgumentTypeError(f"{word} is no time at all; it must be more than 0")
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
        raise ArgumentTypeError(f"{word!r} is no label; write it as K=V")
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

    return [_one_of(word.strip().lower(), [*Outcome], "an outcome") for word in words.split(",")]


def causes(word: str) -> str:
    """Return a cause to retry after, or a word for several; whether it can be retried the daemon knows."""
    from mosaicd.protocol.states import CauseKind

    return _one_of(word, ["any", "infrastructure", *CauseKind], "a cause")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the reader of integers from `least` on, up to `most`."""
    wanted = f"{least} or more" if most is None else f"{least} to {most}"

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise ArgumentTypeError(f"{word!r} will not do; give a whole number, {wanted}")
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
    """Return the path of a file that is there; who reads it is somebody else, and may do more than we."""
    import os

    if not os.path.exists(text(path)) or os.path.isdir(path):
        raise ArgumentTypeError(f"{path} is no file")
    return path


def target(path: str) -> str:
    """Return the path of a file that could be written: its directory is there, and it is none itself."""
    import os

    if os.path.isdir(text(path)):
        raise ArgumentTypeError(f"{path}: this is a directory; name a file in it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ArgumentTypeError(f"{path}: there is no directory {folder}")
    return path


def _one_of(word: str, known: list[str], what: str) -> str:
    if word not in known:
        raise ArgumentTypeError(f"{word!r} is not {what}; use one of {', '.join(known)}")
    return word
