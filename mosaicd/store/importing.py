"""Read the table `runs` of a registry of the original MOSAIC, to import its runs as history.

The file and its WAL are copied first, because SQLite may write beside a database that it opens.  Two forms of
the table are known: that of the blueprint (config_digest, gpu_slot, last_heartbeat) and that of the code
after it (digest, gpu_slots, outcome).  Columns may be missing; unknown columns are reported and not guessed.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaicd.protocol.errors import InvalidParams
from mosaicd.protocol.faults import invalid
from mosaicd.store.database import rows

TABLE = "runs"
#: Largest file that is read; the original stored no large values.
LIMIT_BYTES = 1 << 30

#: Meaning of a column -> the names that the column may have.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "run_id": ("run_id", "id"),
    "status": ("status", "state"),
    "name": ("run_name", "name"),
    "config": ("config_json", "config", "config_payload", "payload"),
    "digest": ("digest", "config_digest"),
    "created": ("created_at", "submitted_at", "queued_at"),
    "started": ("started_at",),
    "finished": ("finished_at", "completed_at", "ended_at"),
    "updated": ("updated_at", "last_heartbeat", "last_heartbeat_at", "heartbeat_at"),
    "outcome": ("outcome", "run_outcome"),
    "failure": ("failure_reason", "error", "error_message"),
    "gpus": ("gpu_slots", "gpu_slot"),
}


@dataclass(slots=True)
class OldRuns:
    """The rows, by the meaning of their columns; `unknown` are the columns that are not imported."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read(path: Path) -> OldRuns:
    """Return the contents of the file; raise InvalidParams if it cannot be read."""
    try:
        if not path.is_file():
            raise _refusal(path, "is not a file")
        if path.stat().st_size > LIMIT_BYTES:
            raise _refusal(path, f"is larger than {LIMIT_BYTES} bytes")
        with tempfile.TemporaryDirectory(prefix="mosaicd-import-") as folder:
            return _read_copy(_copy_with_wal(path, Path(folder)), path)
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from error
    except sqlite3.Error as error:
        raise _refusal(path, f"is not a readable SQLite database: {error}") from error


def _refusal(path: Path, rule: str) -> InvalidParams:
    return invalid("path", f"{path} {rule}")


def _copy_with_wal(path: Path, folder: Path) -> Path:
    target = folder / "source.sqlite3"
    shutil.copyfile(path, target)
    wal = Path(f"{path}-wal")
    if wal.is_file():
        shutil.copyfile(wal, f"{target}-wal")
    return target


def _read_copy(copy: Path, path: Path) -> OldRuns:
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        columns = [str(row["name"]) for row in rows(connection, f"PRAGMA table_info({TABLE})")]
        if not columns:
            raise _refusal(path, f"has no table {TABLE!r}")
        names = dict(_known_columns(columns))
        if "run_id" not in names.values() or "status" not in names.values():
            raise _refusal(
                path, f"has a table {TABLE!r} without run_id and status: it has {', '.join(columns)}"
            )
        if {"want", "body", "rev"} <= set(columns):
            raise _refusal(path, "is a registry of mosaicd; see `mosaicctl restore`")
        found = rows(connection, f"SELECT * FROM {TABLE} ORDER BY rowid")
    return OldRuns(
        [{meaning: row[name] for name, meaning in names.items()} for row in found],
        [name for name in columns if name not in names],
        [meaning for meaning in COLUMNS if meaning not in names.values()],
    )


def _known_columns(columns: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (column, meaning); of two columns with the same meaning, the name that is listed first."""
    by_name = {column.lower(): column for column in columns}
    for meaning, aliases in COLUMNS.items():
        for alias in aliases:
            if alias in by_name:
                yield by_name[alias], meaning
                break
