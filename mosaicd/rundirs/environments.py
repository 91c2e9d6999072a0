"""The environments of callers: one file for each content, which many runs have as a hard link.

The directory `environments` has the file under the SHA-256 of its content, so that the next run with the
same content finds it.  The number of links counts the runs, so no crash and no lost registry makes the count
wrong.
If a file cannot be linked, the run has a copy.  Note: a run needs only the link in its own directory.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mosaicd.safe_files import create_synced, read_regular


class SharedEnvironments:
    """The directory `environments` of a state directory; all methods may be called in any thread."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory
        self._limit_bytes = limit_bytes

    def create(self, path: Path, variables: Mapping[str, str]) -> None:
        """Create the file `path` with these variables; its content is on the disk when this returns.

        Raises OSError if it cannot be created.  Note: its name is on the disk after `sync_to_disk` of its
        directory.
        """
        content = json.dumps(variables, ensure_ascii=False, sort_keys=True).encode()
        shared = self._shared(content)
        if self._try_link(shared, path, content):
            return
        create_synced(path, content)
        with suppress(OSError):  # a full disk, or a file system without links
            self.directory.mkdir(mode=0o700, exist_ok=True)
            shared.unlink(missing_ok=True)  # damaged, or it has all the links that a file can have
            os.link(path, shared, follow_symlinks=False)

    def shared_file(self, path: Path) -> Path | None:
        """Return the shared file of a run's file `path` if no other run has it, so that it can go as well."""
        try:
            if os.lstat(path).st_nlink != 2:
                return None
            return self._shared(read_regular(path, limit_bytes=self._limit_bytes))
        except OSError:
            return None

    def drop(self, shared: Path | None) -> None:
        """Remove a file of `shared_file` if no run has it."""
        with suppress(OSError):
            # A run that links it between the two calls keeps its own link.
            if shared is not None and os.lstat(shared).st_nlink == 1:
                shared.unlink()

    def sweep(self) -> None:
        """Remove every file that no run has: a daemon was killed before it could."""
        with suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                self.drop(Path(entry.path))

    def _shared(self, content: bytes) -> Path:
        return self.directory / hashlib.sha256(content).hexdigest()

    def _try_link(self, shared: Path, path: Path, content: bytes) -> bool:
        """Link the shared file to `path` if it exists and has this content; return whether that succeeded."""
        try:
            if read_regular(shared, owners=(os.geteuid(),), limit_bytes=self._limit_bytes) != content:
                return False
            os.link(shared, path, follow_symlinks=False)
        except OSError:
            return False
        return True
