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
    """Stands for an exit record."""

    def to_json(self) -> dict[str, Any]:
        return {"exit_code": 0}


class Daemon:
    """Stands for the shim's connection and dialogue with the daemon."""

    down_since: float | None = None
    is_accepted = True
    has_unacknowledged_facts = True


class Shim:
    """A departure, the time of its shim, and the records that it logged."""

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


def test_the_shim_leaves_when_all_facts_are_acknowledged(shim: Shim) -> None:
    """The shim leaves when the process tree is empty and the daemon has acknowledged all facts."""
    shim.end()
    shim.daemon.has_unacknowledged_facts = False
    assert not shim.leaves(is_emptied=False)
    shim.daemon.has_unacknowledged_facts = True
    assert not shim.leaves()
    shim.daemon.has_unacknowledged_facts = False
    assert shim.leaves()
    assert not shim.logged


def test_the_shim_leaves_soon_after_the_connection_is_lost(shim: Shim) -> None:
    """Without a connection the shim leaves after 2 s; with a connection it waits longer for an answer."""
    shim.end()
    assert not shim.leaves(20.0)
    shim.daemon.down_since = shim.now
    assert not shim.leaves(1.9)
    assert shim.departure.next_at(is_emptied=True) == pytest.approx(shim.now + 0.1)
    assert shim.leaves(0.2)


def test_exit_json_is_retried_until_the_disk_has_room(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the shim retries once a second and stays until exit.json is written."""
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


def test_the_shim_leaves_without_exit_json_if_its_directory_was_removed(shim: Shim) -> None:
    """The shim logs the removed directory once, stays while the worker lives, and then leaves."""
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
    """The daemon may remove the directory of an ended run before its shim has left."""
    shim.end()
    shim.remove_dir()
    assert not shim.leaves(5.0)
    assert not shim.logged
