"""Checkpoints are complete or absent, verified by size and SHA-256; damaged ones are skipped."""

import errno
import json
import os
from pathlib import Path

import pytest
from mosaic_worker import CheckpointInvalid, CheckpointStore, verify
from mosaic_worker import checkpoints as module


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def test_newest_checkpoint_is_read_as_it_was_saved(store: CheckpointStore) -> None:
    """The newest checkpoint is found with its bytes, step, meta and digest."""
    store.save(1, {"a": b"one"})
    saved = store.save(20, {"a": b"two", "b": lambda path: _write(path, b"three")}, {"episodes": 4})
    checkpoint, skipped = store.latest_verified()
    assert checkpoint == saved
    assert not skipped
    assert (saved.read("a"), saved.read("b"), saved.step, saved.meta) == (
        b"two",
        b"three",
        20,
        {"episodes": 4},
    )
    assert saved.payload().keys() == {"path", "global_step", "size_bytes", "sha256"}


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_manifest_has_size_and_digest_of_every_file(store: CheckpointStore) -> None:
    """manifest.json has the format, the step, and size and SHA-256 of every file."""
    path = store.save(3, {"a": b"abc"}).path
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["step"] == 3
    assert manifest["files"]["a"] == {
        "size_bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def shorten(path: Path) -> None:
    (path / "a").write_bytes(b"tw")


def change_a_byte(path: Path) -> None:
    (path / "a").write_bytes(b"twp")


def remove_file(path: Path) -> None:
    (path / "a").unlink()


def truncate_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b'{"format": 1, "st')


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [shorten, change_a_byte, remove_file, truncate_manifest, remove_manifest])
def test_damaged_checkpoint_is_skipped_with_a_reason(damage: object, store: CheckpointStore) -> None:
    """If the newest checkpoint is damaged, the one before it is loaded and the reason is returned."""
    store.save(1, {"a": b"one"})
    newest = store.save(2, {"a": b"two"}).path
    damage(newest)  # type: ignore[operator]
    checkpoint, skipped = store.latest_verified()
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert [entry.path for entry in skipped] == [newest]
    assert skipped[0].reason
    with pytest.raises(CheckpointInvalid):
        verify(newest)


def test_only_the_newest_checkpoints_are_kept(store: CheckpointStore) -> None:
    """`keep` checkpoints stay; the next save removes the files of an interrupted save."""
    store.directory.mkdir()
    (store.directory / ".checkpoint-000000000009.77.tmp").mkdir()
    for step in (1, 2, 10):
        store.save(step, {"a": b"x"})
    assert sorted(os.listdir(store.directory)) == ["checkpoint-000000000002", "checkpoint-000000000010"]


def test_save_at_the_same_step_replaces_the_checkpoint(store: CheckpointStore) -> None:
    """A save at an existing step replaces the checkpoint; the old one is valid until the new one is."""
    first = store.save(5, {"a": b"old"}).path
    store.save(5, {"a": b"new"})
    checkpoint, _ = store.latest_verified()
    assert checkpoint is not None
    assert checkpoint.read("a") == b"new"
    first.rename(store.directory / ".checkpoint-000000000005.77.old")  # as after a power failure
    checkpoint, _ = store.latest_verified()
    assert checkpoint is not None
    assert checkpoint.read("a") == b"new"


def test_save_on_a_full_disk_keeps_older_checkpoints(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save on a full disk raises, leaves no file, and does not change the other checkpoints."""
    store.save(1, {"a": b"one"})

    def raise_no_space(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_synced", raise_no_space)
    with pytest.raises(OSError, match="No space"):
        store.save(2, {"a": b"two"})
    assert os.listdir(store.directory) == ["checkpoint-000000000001"]


def test_file_names_outside_the_checkpoint_are_refused(store: CheckpointStore) -> None:
    """A file name with a slash, or the manifest's name, is refused before anything is written."""
    for name in ("../x", "a/b", "", "manifest.json"):
        with pytest.raises(ValueError, match="not a file name"):
            store.save(1, {name: b""})
    assert not store.directory.exists()
    path = store.save(1, {"a": b""}).path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../a"] = manifest["files"]["a"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointInvalid, match="bad entry"):
        verify(path)


def test_checkpoints_of_the_origin_are_used_without_own_ones(tmp_path: Path) -> None:
    """Without a complete own checkpoint, the newest complete one of `resume_from` is used, and only read."""
    origin = CheckpointStore(tmp_path / "origin")
    good = origin.save(5, {"a": b"five"})
    damaged = origin.save(9, {"a": b"nine"}).path
    shorten(damaged)
    store = CheckpointStore(tmp_path / "own", resume_from=tmp_path / "origin")
    checkpoint, skipped = store.latest_verified()
    assert checkpoint == good
    assert [entry.path for entry in skipped] == [damaged]
    before = sorted(path.name for path in (tmp_path / "origin").iterdir())
    own = store.save(6, {"a": b"six"})
    assert store.latest_verified() == (own, [])
    assert sorted(path.name for path in (tmp_path / "origin").iterdir()) == before


def test_removed_origin_has_no_checkpoint(tmp_path: Path) -> None:
    """If the directory of `resume_from` was pruned, no checkpoint is found and no error is raised."""
    assert CheckpointStore(tmp_path / "own", resume_from=tmp_path / "gone").latest_verified() == (None, [])
