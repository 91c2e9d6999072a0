"""Log records of a shim: they go directly to the journal, because a shim has no stderr.

Note: on a machine without journald such a record is lost.
"""

from mosaicd import journald
from mosaicd.catalogue.entry import Entry, priority


def event(entry: Entry, **fields: str | int) -> None:
    """Write a record of `entry` to the journal, if one exists, without waiting."""
    record = {
        **{name.upper(): str(value) for name, value in fields.items()},
        **entry.journal_fields(),
        "MESSAGE": entry.sentence.format_map(fields),
        "PRIORITY": str(priority(entry.level)),
        "SYSLOG_IDENTIFIER": "mosaicd",
        "LOGGER": __name__,
    }
    try:
        journal = journald.Journal(journald.SOCKET_PATH)
        try:
            journal.send(record)
        finally:
            journal.close()
    except OSError:
        pass  # no journal, or no descriptor for its socket
