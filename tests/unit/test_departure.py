"""When a shim leaves: exit.json is settled, the process tree is empty, and the daemon knows the end."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mosaicd.catalogue import Catalogue
from mosaicd.catalogue.entry import Entry
from mosaicd.protocol.records.attempt import Exit
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.shim import operator_log
from mosaicd.shim.attempt_dir import AttemptDir
from mosaicd.shim.departure import Departure
from mosaicd.shim.dialogue import Dialogue
from mosaicd.shim.link import Link


class Order:
    run_id, attempt = "01ARZ3NDEKTSV4RRFFQ69G5FAV", 1


class Ended:
    """An exit record, as far as it is written."""

    def to_json(self) -> dict[str, Any]:
        return {"exit_code": 0}


class Daemon:
    """The connection to the daemon, and what was said over it."""

    down_since: float | None = None
    is_accepted = True
    has_unacknowledged_facts = True


class Shim:
    """A departure, the clock of its shim, and what it logged."""

    def __init__(self, path: Path) -> None:
        self.attempt_dir = AttemptDir(str(path / "attempt-1"))
        self.daemon = Daemon()
        self.now = 100.0
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.departure = Departure(
            cast(LaunchOrder, Order()), self.attempt_dir, cast(Link, self.daemon),
            cast(Dialogue, self.daemon),
        )  # fmt: skip

    def end(self) -> None:
        self.departure.write_exit(cast(Exit, Ended()), self.now)

    def leaves(self, after_s: float = 0.0, *, is_emptied: bool = True) -> bool:
        """Let time pass and return whether the shim leaves."""
        self.now += after_s
        self.departure.tick(self.now, is_emptied=is_emptied)
        return self.departure.is_due

    def remove_dir(self) -> None:
        for path in Path(self.attempt_dir.path).iterdir():
            path.unlink()
        os.rmdir(self.attempt_dir.path)


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    shim = Shim(tmp_path)

    def event(entry: Entry, **fields: Any) -> None:
        shim.logged.append((entry.name, fields))

    monkeypatch.setattr(operator_log, "event", event)
    yield shim
    os.close(shim.attempt_dir.dir_fd)


def test_it_leaves_when_the_daemon_has_acknowledged(shim: Shim) -> None:
    """Not before the tree is empty, and not before all facts are acknowledged."""
    shim.end()
    shim.daemon.has_unacknowledged_facts = False
    assert not shim.leaves(is_emptied=False)
    shim.daemon.has_unacknowledged_facts = True
    assert not shim.leaves()
    shim.daemon.has_unacknowledged_facts = False
    assert shim.leaves()
    assert not shim.logged


def test_it_does_not_wait_long_for_a_daemon_that_is_away(shim: Shim) -> None:
    """It leaves soon without a connection, later without an answer."""
    shim.end()
    assert not shim.leaves(20.0)
    shim.daemon.down_since = shim.now
    assert not shim.leaves(1.9)
    assert shim.departure.next_at(is_emptied=True) == pytest.approx(shim.now + 0.1)
    assert shim.leaves(0.2)


def test_a_full_disk_is_tried_again_until_it_has_room(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim does not leave before exit.json is written, however long that takes."""
    write = shim.attempt_dir.write_durably

    def refuse(name: str, content: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shim.attempt_dir, "write_durably", refuse)
    shim.end()
    shim.daemon.has_unacknowledged_facts = False
    assert not any(shim.leaves(1.0) for _ in range(100))
    assert shim.departure.next_at(is_emptied=True) == shim.now + 1.0
    monkeypatch.setattr(shim.attempt_dir, "write_durably", write)
    assert shim.leaves(1.0)
    assert (Path(shim.attempt_dir.path) / "exit.json").exists()
    assert not shim.logged


def test_a_removed_directory_is_logged_once_and_not_waited_for(shim: Shim) -> None:
    """While the worker lives, the shim stays; after its end, it leaves as if exit.json were written."""
    shim.remove_dir()
    assert not any(shim.leaves(1.0, is_emptied=False) for _ in range(10))
    assert [name for name, _ in shim.logged] == [Catalogue.RUN_DIR_REMOVED.name]
    assert shim.logged[0][1]["run_id"] == Order.run_id
    shim.end()
    assert not shim.leaves(1.0)
    shim.daemon.has_unacknowledged_facts = False
    assert shim.leaves(1.0)
    assert len(shim.logged) == 1


def test_a_directory_that_is_removed_after_the_end_is_not_logged(shim: Shim) -> None:
    """The daemon may remove the directory of an ended run while its shim still waits for an answer."""
    shim.end()
    shim.remove_dir()
    assert not shim.leaves(5.0)
    assert not shim.logged
