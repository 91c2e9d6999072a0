"""The catalogue of log records: each kind of line that the daemon logs, with a code that never changes.

The codes continue the documents' scheme (LOG431 to LOG460 and LOG1001 to LOG1015 are codes of workers, LOG702
is one of the client).  LOG2000 to LOG2999 are the daemon's; the hundreds name the subcomponent:

    LOG2000  Service   start and stop of the daemon, its own faults
    LOG2100  Registry  loss and recovery, quarantined runs, the write-ahead log
    LOG2200  Run       the life of runs, requests about them, their files
    LOG2300  Shim      the launcher and the shims
    LOG2400  Request   connections and requests
    LOG2500  Upkeep    retention, temporary directories, import, discovery of workers

In the journal: `journalctl LOG_CODE=LOG2207`, `MESSAGE_ID=...` or `MOSAIC_EVENT=RUN_ENDED`.  The sentence and
the explanation of an entry may change; its code, its name and its message id may not.  All of them stand
together in tests/golden/journal_messages.txt.
"""

from collections.abc import Iterator

from mosaicd.catalogue.entry import Entry
from mosaicd.catalogue.registry_entries import RegistryEntries
from mosaicd.catalogue.request_entries import RequestEntries
from mosaicd.catalogue.run_entries import RunEntries
from mosaicd.catalogue.service_entries import ServiceEntries
from mosaicd.catalogue.shim_entries import ShimEntries
from mosaicd.catalogue.upkeep_entries import UpkeepEntries


class Catalogue(ServiceEntries, RegistryEntries, RunEntries, ShimEntries, RequestEntries, UpkeepEntries):
    """Every entry by its name: `Catalogue.RUN_ENDED`."""


#: Every entry, in the order of the codes.
ENTRIES: tuple[Entry, ...] = tuple(
    sorted(
        (value for area in Catalogue.__mro__ for value in vars(area).values() if isinstance(value, Entry)),
        key=lambda entry: entry.code,
    )
)


def journal_catalogue() -> Iterator[str]:
    """Yield the journal catalogue file (see journalctl --update-catalog) as blocks of text."""
    yield "# The log records of mosaicd, for journalctl -x.  Generated from mosaicd/catalogue/.\n"
    for entry in ENTRIES:
        subject = entry.name.replace("_", " ").capitalize()
        yield (
            f"-- {entry.message_id}\nSubject: {subject} ({entry.code})\nDefined-By: mosaicd\n"
            f"Documentation: man:mosaicd(8)\n\n{entry.explanation}\n"
        )
