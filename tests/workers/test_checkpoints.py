"""Checkpoints: whole or not there, verified by size and SHA-256, torn ones passed over."""

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


def test_what_was_saved_is_read(store: CheckpointStore) -> None:
    """The newest checkpoint comes back with its bytes, step, meta and a digest."""
    store.save(1, {"a": b"one"})
    saved = store.save(20, {"a": b"two", "b": lambda path: _write(path, b"three")}, {"episodes": 4})
    found, skipped = store.latest_verified()
    assert found == saved
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


def test_the_manifest_is_public(store: CheckpointStore) -> None:
    """manifest.json says format, step, and size and SHA-256 of every file: anybody can verify it."""
    path = store.save(3, {"a": b"abc"}).path
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["step"] == 3
    assert manifest["files"]["a"] == {
        "size_bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def tear_short(path: Path) -> None:
    (path / "a").write_bytes(b"tw")


def tear_flip(path: Path) -> None:
    (path / "a").write_bytes(b"twp")


def tear_missing(path: Path) -> None:
    (path / "a").unlink()


def tear_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b'{"format": 1, "st')


def tear_empty(path: Path) -> None:
    (path / "manifest.json").unlink()


@pytest.mark.parametrize("tear", [tear_short, tear_flip, tear_missing, tear_manifest, tear_empty])
def test_a_torn_one_is_passed_over(tear: object, store: CheckpointStore) -> None:
    """Whatever is wrong with the newest, the one before it is loaded and the reason is told."""
    store.save(1, {"a": b"one"})
    newest = store.save(2, {"a": b"two"}).path
    tear(newest)  # type: ignore[operator]
    found, skipped = store.latest_verified()
    assert found is not None
    assert found.step == 1
    assert [entry.path for entry in skipped] == [newest]
    assert skipped[0].reason
    with pytest.raises(CheckpointInvalid):
        verify(newest)


def test_only_the_newest_are_kept(store: CheckpointStore) -> None:
    """`keep` checkpoints stay; what an interrupted save left is removed by the next."""
    store.directory.mkdir()
    (store.directory / ".checkpoint-000000000009.77.tmp").mkdir()
    for step in (1, 2, 10):
        store.save(step, {"a": b"x"})
    assert sorted(os.listdir(store.directory)) == ["checkpoint-000000000002", "checkpoint-000000000010"]


def test_the_same_step_again_replaces(store: CheckpointStore) -> None:
    """A save at a step that exists replaces it; the replaced one counts until its successor is in place."""
    first = store.save(5, {"a": b"old"}).path
    store.save(5, {"a": b"new"})
    found, _ = store.latest_verified()
    assert found is not None
    assert found.read("a") == b"new"
    first.rename(store.directory / ".checkpoint-000000000005.77.old")  # as if the power failed in between
    found, _ = store.latest_verified()
    assert found is not None
    assert found.read("a") == b"new"


def test_a_full_disk_harms_no_older_one(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails raises, leaves nothing behind and leaves the others as they were."""
    store.save(1, {"a": b"one"})

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_synced", full)
    with pytest.raises(OSError, match="No space"):
        store.save(2, {"a": b"two"})
    assert os.listdir(store.directory) == ["checkpoint-000000000001"]


def test_a_name_cannot_leave_the_directory(store: CheckpointStore) -> None:
    """File names with a slash, and the manifest's own, are refused before anything is written."""
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


def test_another_runs_checkpoints_are_the_last_resort(tmp_path: Path) -> None:
    """`resume_from` is read where this run has nothing whole itself, torn ones skipped; it is not written."""
    origin = CheckpointStore(tmp_path / "origin")
    good = origin.save(5, {"a": b"five"})
    torn = origin.save(9, {"a": b"nine"}).path
    tear_short(torn)
    store = CheckpointStore(tmp_path / "own", resume_from=tmp_path / "origin")
    found, skipped = store.latest_verified()
    assert found == good
    assert [entry.path for entry in skipped] == [torn]
    before = sorted(path.name for path in (tmp_path / "origin").iterdir())
    own = store.save(6, {"a": b"six"})
    assert store.latest_verified() == (own, [])
    assert sorted(path.name for path in (tmp_path / "origin").iterdir()) == before


def test_an_origin_that_is_gone_is_none(tmp_path: Path) -> None:
    """A directory that was pruned meanwhile is no checkpoint, and no error."""
    assert CheckpointStore(tmp_path / "own", resume_from=tmp_path / "gone").latest_verified() == (None, [])
