"""The processes that a run left behind when its program ended by itself, as text."""

from mosaicctl.sizes import counted
from mosaicd.protocol import Json

_ADVICE = (
    "to keep a program in the foreground, "
    "leave out the '&', end the script with 'wait', or start it with 'exec'"
)


def left_text(run: Json) -> str:
    """Return `2 processes were still running and were ended`; an empty text if the run left none behind."""
    count = run.get("left_processes")
    if not count:
        return ""
    was = "was" if count == 1 else "were"
    return f"{counted(count, 'process', 'processes')} {was} still running and {was} ended"


def left_advice(run: Json) -> str:
    """Return how to keep such processes in the foreground; empty unless the run is a command that succeeded.

    Note: the script of a run that failed ended before its last line, so this advice does not help.
    """
    is_advised = run.get("left_processes") and run.get("kind") == "command"
    return _ADVICE if is_advised and run.get("outcome") == "succeeded" else ""


def left_sentence(run: Json) -> str:
    """Return `left_text` with the advice, if there is one."""
    return "; ".join(text for text in (left_text(run), left_advice(run)) if text)
