"""The log records of the daemon as text: code, level, name, sentence and explanation of each."""

import logging
from textwrap import fill

from mosaicd.log import ENTRIES, Entry

_HEAD = """\
The log records of mosaicd.  Fields of a record stand in braces.
Each has: code, level, name, subcomponent and tags; its sentence; its explanation for `journalctl -x`.
Written by `make golden`.
"""


def text() -> str:
    """Return the text of journal_messages.txt."""
    return _HEAD + "".join(map(_block, ENTRIES))


def _block(entry: Entry) -> str:
    head = f"{entry.code} {logging.getLevelName(entry.level)} {entry.name}"
    where = f"[{entry.component}, {entry.subcomponent}: {' '.join(entry.tags)}]"
    explanation = fill(entry.explanation, 106, initial_indent="    ", subsequent_indent="    ")
    return f"\n{head}  {where}\n  {entry.sentence}\n{explanation}\n"
