"""A restore is decided by one rename: before it nothing changes, after it the next start finishes it."""

import os
from pathlib import Path

import pytest

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol.states import Dedup
from mosaicd.store.backup import InvalidCopy, write_copy
from mosaicd.store.registry import Registry
from mosaicd.store.replacing import ASIDE, RESTORED, finish, run_ids, stage_copy
from tests.store.building import AT, new_run, raw, submission, to_exec, to_term

FROZEN = sorted(Path(__file__).parent.glob("frozen/v*.sqlite3"))


def no_events(run: Run) -> list[Event]:
    return []


@pytest.fixture
async def copy(path: Path, tmp_path: Path) -> Path:
    """Return a copy with an ended and a waiting run; the registry has changed since."""
    registry = await Registry.open(path)
    ended, _ = await registry.add(submission(new_run(name="ended")), dedup=Dedup.NEW)
    await registry.record(ended.run_id, *to_exec(), *to_term())
    await registry.add(submission(new_run(name="waits")), dedup=Dedup.NEW)
    target = tmp_path / "copy"
    write_copy(path, target)
    await registry.add(submission(new_run(name="later")), dedup=Dedup.NEW)
    await registry.close()
    return target


async def names(path: Path) -> list[str]:
    registry = await Registry.open(path)
    await registry.close()
    connection = raw(path)
    found = [str(name) for (name,) in connection.execute("SELECT name FROM runs ORDER BY n")]
    connection.close()
    return found


class Interrupted(Exception):
    """Stands for a kill of the process."""


def interrupt_at_rename(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise Interrupted instead of the `number`-th rename from now on."""
    remaining = [number]
    rename = os.rename

    def counting(*names: str | Path) -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            raise Interrupted
        rename(*names)

    monkeypatch.setattr(os, "rename", counting)


@pytest.mark.parametrize("number", range(1, 6))
async def test_an_interrupted_restore_is_finished_or_not_begun(
    copy: Path, path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill at any rename the registry is the old one or the copy; the old one is kept."""
    Path(f"{path}-wal").write_bytes(b"")
    interrupt_at_rename(number, monkeypatch)
    is_decided = number > 1
    with pytest.raises(Interrupted):
        stage_copy(copy, path, no_events, AT)
        finish(path)
    monkeypatch.undo()

    aside = finish(path)
    assert (aside is not None) == is_decided
    assert await names(path) == (["ended", "waits"] if is_decided else ["ended", "waits", "later"])
    if aside is not None:
        assert await names(aside / path.name) == ["ended", "waits", "later"]
        assert len(list((path.parent / ASIDE).iterdir())) == 1
    assert finish(path) is None
    assert not Path(f"{path}{RESTORED}").exists() and not list(path.parent.glob("*.part*"))


async def test_live_runs_are_changed_by_events_only(copy: Path, path: Path) -> None:
    """The changes of a restore to live runs are events in their ledgers, and the rows agree."""
    staged = stage_copy(copy, path, lambda run: [Event(Kind.HOLD, AT, "restore")], AT)
    finish(path)
    registry = await Registry.open(path)
    assert registry.quarantine == []
    [run] = registry.live.values()
    assert (run.name, run.held) == ("waits", True)
    assert staged.changed == {"hold": [run.run_id]} and staged.unchanged == []
    assert registry.epoch == staged.epoch
    await registry.close()


async def test_the_ledger_continues_after_the_copy(copy: Path, path: Path) -> None:
    """seq of the restored ledger continues that of the copy; no seq is used twice within the epoch."""
    staged = stage_copy(copy, path, no_events, AT)
    finish(path)
    registry = await Registry.open(path)
    assert registry.last_seq == staged.last_seq
    await registry.add(submission(new_run()), dedup=Dedup.NEW)
    assert registry.last_seq == staged.last_seq + 1
    await registry.close()


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
async def test_a_copy_of_every_version_can_be_restored(frozen: Path, path: Path) -> None:
    """An old copy is migrated when it is restored; the file of the copy is unchanged."""
    before = frozen.read_bytes()
    staged = stage_copy(frozen, path, no_events, AT)
    assert (len(run_ids(frozen)), len(staged.unchanged), staged.quarantined) == (14, 8, [])
    finish(path)
    assert len(await names(path)) == 14
    assert frozen.read_bytes() == before


def damaged_copies(content: bytes) -> list[bytes]:
    return [b"", b"x" * 5000, content[: len(content) // 2], content[:4096] + b"\xff" * 4096 + content[8192:]]


@pytest.mark.parametrize("number", range(4))
async def test_a_bad_copy_changes_nothing(copy: Path, path: Path, number: int) -> None:
    """A bad copy raises InvalidCopy, and nothing is staged."""
    copy.write_bytes(damaged_copies(copy.read_bytes())[number])
    for act in (lambda: run_ids(copy), lambda: stage_copy(copy, path, no_events, AT)):
        with pytest.raises(InvalidCopy):
            act()
    assert finish(path) is None
    assert await names(path) == ["ended", "waits", "later"]


async def test_a_cancelled_backup_leaves_no_file(path: Path, tmp_path: Path, copy: Path) -> None:
    """A client that disconnects in the middle of a backup leaves neither a file nor a part of one."""
    from mosaicd.store.backup import Cancelled

    with pytest.raises(Cancelled):
        write_copy(path, tmp_path / "other", is_cancelled=lambda: True)
    assert not list(tmp_path.glob("*other*")) and not list(tmp_path.glob(".*part"))
