"""One kind of log record: its code, its level, its sentence, and what the operator should know about it.

The form is that of the documents' log constants: code, level, message, component, subcomponent, tags.
"""

#: Levels, as in the standard library's logging, which shims do not load.
DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
_PRIORITIES = ((CRITICAL, 2), (ERROR, 3), (WARNING, 4), (INFO, 6))

#: The component of every record of the daemon, as "Worker" is that of every record of a worker.
COMPONENT = "Daemon"


class Entry:
    """One kind of log record.

    `code` and `message_id` never change and are never given to another entry.  `sentence` has the names of
    the record's fields in braces.  `explanation` is for `journalctl -x`: the meaning, and what to do.
    """

    def __init__(
        self, code: str, message_id: str, level: int, sentence: str, explanation: str, subcomponent: str,
        tags: tuple[str, ...], component: str = COMPONENT,
    ) -> None:  # fmt: skip
        self.code = code
        self.message_id = message_id
        self.level = level
        self.sentence = sentence
        self.explanation = explanation
        self.subcomponent = subcomponent
        self.tags = tags
        self.component = component
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the class attribute that the entry is assigned to: Python calls this once."""
        self.name = name

    def journal_fields(self) -> dict[str, str]:
        """Return the fields that each record of this entry has in the journal."""
        return {
            "MESSAGE_ID": self.message_id,
            "MOSAIC_EVENT": self.name,
            "LOG_CODE": self.code,
            "LOG_COMPONENT": self.component,
            "LOG_SUBCOMPONENT": self.subcomponent,
            "LOG_TAGS": " ".join(self.tags),
        }


def priority(level: int) -> int:
    """Return the journal's PRIORITY for a level."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)
