"""Files of the product: open what another program may have made, wait for the disk, remove a tree.

A run may put anything into its directories: a link, a pipe that blocks its reader, another user's file, a
tree without end.  Standard library only, and no event loop: the shim and the launcher use this module, too.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import count

StrPath = str | os.PathLike[str]  # a Path fits; pathlib itself is not loaded into every shim

#: One removal goes down this many levels of a tree.  A deeper tree needs another removal.
MOST_LEVELS = 10_000
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotTrusted(PermissionError):
    """A file that its reader must not use; `strerror` says why."""


# --- open ---------------------------------------------------------------------------------------------


def open_directory(path: StrPath, parent: int | None = None) -> int:
    """Open a directory, and no link to one; `path` may be relative to the open directory `parent`."""
    return os.open(path, _READ | os.O_DIRECTORY, dir_fd=parent)


def open_regular(
    path: StrPath,
    parent: int | None = None,
    *,
    owners: Collection[int] | None = None,
    limit_bytes: int | None = None,
) -> int:
    """Open a file for reading; never follow a link, never wait.

    NotTrusted unless it is a regular file, of one of the users `owners`, of at most `limit_bytes`.
    """
    file = os.open(path, _READ, dir_fd=parent)
    facts = os.fstat(file)
    if not stat.S_ISREG(facts.st_mode):
        why = "it is not a regular file"
    elif owners is not None and facts.st_uid not in owners:
        why = f"it belongs to uid {facts.st_uid}, not to uid {' or '.join(map(str, owners))}"
    elif limit_bytes is not None and facts.st_size > limit_bytes:
        why = f"it is larger than {limit_bytes} bytes"
    else:
        return file
    os.close(file)
    raise NotTrusted(errno.EPERM, why, str(path))


def read_regular(
    path: StrPath, parent: int | None = None, *, owners: Collection[int] | None = None, limit_bytes: int
) -> bytes:
    """Return the content of a file that `open_regular` trusts."""
    with os.fdopen(open_regular(path, parent, owners=owners, limit_bytes=limit_bytes), "rb") as file:
        # no more than its size: read() sets memory aside for all that it is asked for
        return file.read(min(limit_bytes, os.fstat(file.fileno()).st_size))


# --- wait for the disk --------------------------------------------------------------------------------


def sync_to_disk(path: StrPath) -> None:
    """Return once the content of a file, or the names in a directory, would survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_synced(path: StrPath, content: bytes) -> None:
    """Create a file of mode 0600 and return once its content is on the disk.

    Raises FileExistsError if the path exists.
    Note: its name survives a power loss only after `sync_to_disk` of its directory.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


# --- remove -------------------------------------------------------------------------------------------


class Removed:
    """The result of removals: counts, and the first error."""

    __slots__ = ("bytes", "error", "failed", "files")

    def __init__(self) -> None:
        self.files = 0  # removed entries that are not directories
        self.bytes = 0  # the sum of their sizes
        self.failed = 0  # entries that could not be removed
        self.error: OSError | None = None

    def add_failure(self, error: OSError) -> None:
        """Count an entry that could not be removed."""
        self.failed += 1
        self.error = self.error or error


def remove_tree(path: StrPath, removed: Removed | None = None) -> Removed:
    """Remove a file, or a directory with all below it; add the counts to `removed` and return it.

    If an entry cannot be removed, the other entries are removed all the same.  Links are removed and not
    followed.  A path that does not exist is no failure.
    A tree may be deeper than recursion, paths and descriptors allow.  Therefore each directory is moved up
    to the top, and its entries are removed there.  Note: after a failure, directories may lie there.
    """
    removed = Removed() if removed is None else removed
    _try_each([os.fspath(path)], lambda name: _remove_top(name, removed), removed)
    return removed


def _remove_top(path: str, removed: Removed) -> None:
    if _try_remove_file(path, None, removed):
        return
    failed = removed.failed
    top = _open_with_access(path)
    try:
        _empty(top, removed)
    finally:
        os.close(top)
    if removed.failed == failed:
        os.rmdir(path)


def _empty(top: int, removed: Removed) -> None:
    """Remove the entries of the open directory `top`, level by level."""
    prefix = os.urandom(8).hex()  # an interrupted removal has left other names
    unused_names = (f"{prefix}.{number}" for number in count())
    kept: set[str] = set()
    for _ in range(MOST_LEVELS):
        names = [name for name in os.listdir(top) if name not in kept]
        if not names:
            return
        kept |= _try_each(names, lambda name: _remove_entry(top, name, unused_names, removed), removed)


def _remove_entry(top: int, name: str, unused_names: Iterator[str], removed: Removed) -> None:
    """Remove an entry of `top`.

    Of a directory, each directory in it that is not empty is moved up to `top`, where `_empty` removes it in
    its next round.
    """
    if _try_remove_file(name, top, removed) or _try_remove_directory(name, top):
        return
    directory = _open_with_access(name, top)

    def remove(inner: str) -> None:
        if not _try_remove_file(inner, directory, removed) and not _try_remove_directory(inner, directory):
            _move_up(directory, inner, top, next(unused_names))

    try:
        failed = _try_each(os.listdir(directory), remove, removed)
    finally:
        os.close(directory)
    if not failed:
        os.rmdir(name, dir_fd=top)


def _try_each(names: Iterable[str], remove: Callable[[str], None], removed: Removed) -> set[str]:
    """Call `remove` with each name; return the names for which it failed."""
    kept = set()
    for name in names:
        failed = removed.failed
        try:
            remove(name)
        except FileNotFoundError:
            pass  # another process has removed it
        except OSError as error:
            removed.add_failure(error)
        if removed.failed != failed:
            kept.add(name)
    return kept


def _try_remove_file(name: str, parent: int | None, removed: Removed) -> bool:
    """Remove an entry that is not a directory; return False if it is one."""
    facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(facts.st_mode):
        return False
    os.unlink(name, dir_fd=parent)
    removed.files += 1
    removed.bytes += facts.st_size
    return True


def _try_remove_directory(name: str, parent: int) -> bool:
    """Remove a directory if it is empty, also another user's, which cannot be opened or moved."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True


def _open_with_access(name: str, parent: int | None = None) -> int:
    """Open a directory; give its owner the rights to list and change it."""
    try:
        directory = open_directory(name, parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        directory = open_directory(name, parent)
    with contextlib.suppress(PermissionError):  # another user's, such as the mount point of a container
        os.fchmod(directory, 0o700)
    return directory


def _move_up(directory: int, name: str, top: int, new_name: str) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:  # a directory can be moved only by a user who may write to it
        os.chmod(name, 0o700, dir_fd=directory)
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=top)
