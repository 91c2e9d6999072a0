"""Checkpoints that are either complete or absent.

A checkpoint is a directory `checkpoint-<step>` with the worker's files and a `manifest.json` that has the
size and SHA-256 of each.  It is written under a temporary name, every file and the directory are fsynced,
then it is renamed and the parent is fsynced.  A reader skips a checkpoint that does not match its manifest
and never loads it.  A directory has one writer at a time: mosaicd's attempt lock ensures that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from mosaic_worker.durable import sync_directory, sync_file, write_synced
from mosaic_worker.jsonlines import dumps

MANIFEST = "manifest.json"
FORMAT = 1
KEEP = 3

_NAME = re.compile(r"checkpoint-(\d{1,18})\Z")
_UNFINISHED = re.compile(r"\.checkpoint-(\d{1,18})\.\d+\.(tmp|old)\Z")


class CheckpointInvalid(ValueError):
    """The checkpoint is incomplete, altered or of an unknown format."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    step: int
    created_at: float
    size_bytes: int
    sha256: str  # of manifest.json, which has the hashes of all files
    meta: dict[str, Any] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """Return the bytes of one of its files."""
        return (self.path / name).read_bytes()

    def payload(self) -> dict[str, Any]:
        """Return the payload of `checkpoint_saved` and `checkpoint_loaded`."""
        return {
            "path": str(self.path),
            "global_step": self.step,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was skipped, with the reason."""

    path: Path
    reason: str


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, directory: Path, keep: int = KEEP, resume_from: Path | None = None) -> None:
        """Keep the newest `keep` checkpoints in `directory`, which is created by the first save.

        `resume_from`: the checkpoints of an earlier run, read if this run has no complete one; never written.
        """
        if keep < 1:
            raise ValueError("keep: must be at least 1")
        self.directory = directory
        self.keep = keep
        self.resume_from = resume_from

    def save(
        self,
        step: int,
        files: Mapping[str, bytes | Callable[[Path], None]],
        meta: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Write a checkpoint and return it; on OSError older checkpoints are unchanged, and no file remains.

        Each file is given as bytes, or as a function that writes the file to the path that it receives.
        """
        for name in files:
            if not _is_plain_name(name) or name == MANIFEST:
                raise ValueError(f"not a file name for a checkpoint: {name!r}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        final = self.directory / f"checkpoint-{step:012d}"
        temporary = self.directory / f".{final.name}.{os.getpid()}.tmp"
        try:
            _write_files(temporary, step, files, dict(meta or {}))
            self._move_into_place(temporary, final)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._remove_old(final)
        return verify(final)

    def latest_verified(self) -> tuple[Checkpoint | None, list[Skipped]]:
        """Return the newest complete checkpoint, and the newer ones that were skipped."""
        skipped: list[Skipped] = []
        for directory in (self.directory, self.resume_from):
            for path in _checkpoint_paths(directory) if directory is not None else []:
                checkpoint, reason = _try_verify(path)
                if checkpoint is not None:
                    return checkpoint, skipped
                skipped.append(Skipped(path, reason))
        return None, skipped

    def _move_into_place(self, temporary: Path, final: Path) -> None:
        """Rename the complete checkpoint to its final name; an older one of the same step is replaced."""
        old = self.directory / f".{final.name}.{os.getpid()}.old"
        if final.exists():  # a resumed run reached the same step again
            os.rename(final, old)
        os.rename(temporary, final)
        sync_directory(self.directory)
        if old.exists():
            shutil.rmtree(old)

    def _remove_old(self, newest: Path) -> None:
        """Remove all but the newest `keep` checkpoints; steps above the one just written stay."""
        older = [path for path in _checkpoint_paths(self.directory) if path.name < newest.name]
        for path in older[self.keep - 1 :]:
            shutil.rmtree(path, ignore_errors=True)

    def _remove_unfinished(self) -> None:
        """Remove the files of an interrupted `save`."""
        for path in self.directory.iterdir():
            unfinished = _UNFINISHED.match(path.name)
            if unfinished and (
                unfinished.group(2) == "tmp" or (self.directory / path.name[1:].split(".")[0]).exists()
            ):
                shutil.rmtree(path, ignore_errors=True)


def _checkpoint_paths(directory: Path) -> list[Path]:
    """Return the checkpoint directories, newest first; an empty list if `directory` cannot be read."""
    try:
        entries = list(directory.iterdir())
    except OSError:
        return []
    found = []
    for path in entries:
        complete, unfinished = _NAME.match(path.name), _UNFINISHED.match(path.name)
        if complete:
            found.append((int(complete.group(1)), 1, path))
        elif unfinished and unfinished.group(2) == "old":  # a checkpoint whose replacement was interrupted
            found.append((int(unfinished.group(1)), 0, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def _try_verify(path: Path) -> tuple[Checkpoint | None, str]:
    """Return the checkpoint and no reason, or None and the reason why it is invalid."""
    try:
        return verify(path), ""
    except CheckpointInvalid as error:
        return None, str(error)


def verify(path: Path) -> Checkpoint:
    """Return the checkpoint at `path`; raise CheckpointInvalid if any file differs from its manifest."""
    try:
        raw = (path / MANIFEST).read_bytes()
        manifest = json.loads(raw)
    except OSError as error:
        raise CheckpointInvalid(f"{MANIFEST}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointInvalid(f"{MANIFEST}: not JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointInvalid(f"{MANIFEST}: unknown format")
    entries = manifest.get("files")
    if not isinstance(entries, dict) or not isinstance(manifest.get("step"), int):
        raise CheckpointInvalid(f"{MANIFEST}: fields are missing")
    size_bytes = len(raw)
    for name, entry in entries.items():
        size_bytes += _verify_file(path, name, entry)
    return Checkpoint(
        path=path,
        step=manifest["step"],
        created_at=float(manifest.get("created_at") or 0.0),
        size_bytes=size_bytes,
        sha256=hashlib.sha256(raw).hexdigest(),
        meta=dict(manifest.get("meta") or {}),
    )


def _verify_file(path: Path, name: str, entry: Any) -> int:
    """Compare a file with its manifest entry and return its size; raise CheckpointInvalid if they differ."""
    if not _is_plain_name(name) or not isinstance(entry, dict):
        raise CheckpointInvalid(f"{name}: a bad entry in {MANIFEST}")
    try:
        size_bytes, sha256 = _size_and_hash(path / name)
    except OSError as error:
        raise CheckpointInvalid(f"{name}: {error.strerror}") from error
    if size_bytes != entry.get("size_bytes"):
        raise CheckpointInvalid(f"{name}: {size_bytes} bytes instead of {entry.get('size_bytes')}")
    if sha256 != entry.get("sha256"):
        raise CheckpointInvalid(f"{name}: SHA-256 differs")
    return size_bytes


def _size_and_hash(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and its SHA-256."""
    digest = hashlib.sha256()
    size_bytes = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size_bytes += len(block)
    return size_bytes, digest.hexdigest()


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and "\0" not in name


def _write_files(
    directory: Path, step: int, files: Mapping[str, bytes | Callable[[Path], None]], meta: dict[str, Any]
) -> None:
    """Write the files and then the manifest into the new `directory`, and fsync all of them."""
    directory.mkdir()
    entries = {}
    for name, content in files.items():
        if callable(content):
            content(directory / name)
            sync_file(directory / name)
        else:
            write_synced(directory / name, content)
        size_bytes, sha256 = _size_and_hash(directory / name)
        entries[name] = {"size_bytes": size_bytes, "sha256": sha256}
    manifest = {"format": FORMAT, "step": step, "created_at": time.time(), "files": entries, "meta": meta}
    write_synced(directory / MANIFEST, dumps(manifest).encode("ascii") + b"\n")
    sync_directory(directory)
