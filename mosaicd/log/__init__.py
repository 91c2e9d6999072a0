"""The daemon's log: records with fields in the journal, or readable lines on stderr.

    log.event(Catalogue.RUN_ENDED, run_id=run.run_id, outcome=run.outcome)
    log.logger(__name__).debug("...")

Each record of level INFO and above is an entry of the catalogue with its fields; only debug lines are free
text.  The standard library's logging carries both, so records of libraries arrive in the same place.
Note: fields named like an environment, a secret or a token are withheld, at any depth, before the record is
made, because a reader of the journal is not the owner of a run.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from string import Formatter
from typing import Any, TextIO

from mosaicd.catalogue import ENTRIES, Catalogue, journal_catalogue
from mosaicd.catalogue.entry import Entry, priority
from mosaicd.journald import Journal, is_journal_stream

__all__ = ["ENTRIES", "Catalogue", "Entry", "event", "journal_catalogue", "logger", "setup", "with_code"]

ROOT = "mosaicd"

_WITHHELD = re.compile(r"(environ(ment)?|env|secret|password|.*_secret|.*_password|(.*_)?token)", re.I)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def logger(name: str) -> logging.Logger:
    """Return the logger of a module of mosaicd."""
    return logging.getLogger(name if name.startswith(ROOT) else f"{ROOT}.{name}")


def event(entry: Entry, *, error: BaseException | None = None, **fields: Any) -> None:
    """Log a record of `entry` with its fields, and with the traceback of `error` if given."""
    known = {name: value for name, value in withhold(fields).items() if value is not None}
    message = _sentence(entry.sentence, known)
    logging.getLogger(ROOT).log(
        entry.level, "%s", message,
        exc_info=error, stacklevel=2, extra={"mosaic_entry": entry, "mosaic_fields": known},
    )  # fmt: skip


def with_code(entry: Entry, sentence: str) -> str:
    """Return a warning of daemon.health: the sentence, and the code under which the log has more."""
    return f"{sentence} [{entry.code}]"


def setup(level: str, journal_stream: str | None = None, stream: TextIO | None = None) -> logging.Handler:
    """Send everything to the journal if stderr is its stream, else to stderr; replaces an earlier setup."""
    is_journal = stream is None and is_journal_stream(journal_stream)
    handler = JournalHandler(Journal()) if is_journal else LineHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, JournalHandler | LineHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())
    return handler


def withhold(value: Any) -> Any:
    """Return `value` with everything under a name that may be secret replaced, at every depth."""
    if isinstance(value, Mapping):
        return {
            name: "(withheld)" if _WITHHELD.fullmatch(str(name)) else withhold(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [withhold(inner) for inner in value]
    return value


class _Fields(dict[str, Any]):
    """Fields for a sentence; a field that is absent is shown as `-`."""

    def __missing__(self, name: str) -> str:
        return "-"


def _sentence(template: str, fields: dict[str, Any]) -> str:
    try:
        return template.format_map(_Fields(fields))
    except ValueError:  # an absent field has the format of a number; the record still has its fields
        return template


def _shown(value: Any) -> str:
    is_plain = isinstance(value, dict | list | int | float)
    return json.dumps(value, default=str, ensure_ascii=False) if is_plain else str(value)


def _one_line(text: str) -> str:
    """Return `text` with control characters escaped: a run's name must not forge a line of the log."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


class LineFormatter(logging.Formatter):
    """`2026-11-21T23:46:01.123+00:00 WARNING LOG2220 run ... failed (seq=7)`, then a traceback, if any."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")
        entry: Entry | None = getattr(record, "mosaic_entry", None)
        head = f"{at} {record.levelname}" + (f" {entry.code}" if entry else "")
        fields: dict[str, Any] = getattr(record, "mosaic_fields", {})
        in_sentence = _field_names_in(entry)
        rest = [f"{name}={_shown(value)}" for name, value in fields.items() if name not in in_sentence]
        line = _one_line(f"{head} {record.getMessage()}" + (f" ({' '.join(rest)})" if rest else ""))
        return line + "\n" + _traceback(record) if record.exc_info else line


@cache
def _field_names_in(entry: Entry | None) -> frozenset[str]:
    parts = Formatter().parse(entry.sentence) if entry else ()
    return frozenset(name for _, name, _, _ in parts if name)


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")


class LineHandler(logging.StreamHandler[TextIO]):
    """Lines on stderr: a terminal, a file, or a journal that turns each into a record."""


class JournalHandler(logging.Handler):
    """Records in the protocol of the journal; lines on stderr if the journal's socket does not exist."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; never raises and never waits."""
        try:
            if self.journal.send(fields_of(record)) and self.journal.dropped:
                self._log_dropped()
        except OSError:
            print(self.format(record), file=sys.stderr, flush=True)

    def _log_dropped(self) -> None:
        """Log how many records the journal did not accept."""
        lost, self.journal.dropped = self.journal.dropped, 0
        event(Catalogue.LOG_DROPPED, count=lost)
        if self.journal.dropped:  # the journal did not accept this record either
            self.journal.dropped = lost

    def close(self) -> None:
        self.journal.close()
        super().close()


def _field_name(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_")[:64]


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the journal fields of a record; the fields of an entry under their names in capitals."""
    fields: dict[str, Any] = getattr(record, "mosaic_fields", {})
    journal_fields = {_field_name(name): _shown(value) for name, value in fields.items()}
    entry: Entry | None = getattr(record, "mosaic_entry", None)
    if entry:
        journal_fields |= entry.journal_fields()
    if record.exc_info:
        journal_fields["TRACEBACK"] = _traceback(record)
    return {
        **journal_fields,
        "MESSAGE": _one_line(record.getMessage()),
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": ROOT,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
