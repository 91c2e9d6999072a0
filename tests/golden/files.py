"""The golden files: every sentence that an operator or a user reads, in one place for review.

Tests look at codes, names, exit codes and data.  The sentences stand here: a change of one is a change of a
golden file, which a reviewer reads.  `make golden` writes the files anew from the program.
"""

from collections.abc import Callable
from pathlib import Path

from tests.golden import cli, errors, journal

HERE = Path(__file__).parent

#: Name of a golden file -> what makes its text.
FILES: dict[str, Callable[[], str]] = {
    "cli_messages.txt": cli.text,
    "error_messages.txt": errors.text,
    "journal_messages.txt": journal.text,
}


def read(name: str) -> str:
    """Return the text of a golden file; empty if it does not exist yet."""
    path = HERE / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write(name: str) -> bool:
    """Write a golden file from the program, and return whether that changed it."""
    before, now = read(name), FILES[name]()
    (HERE / name).write_text(now, encoding="utf-8")
    return now != before
