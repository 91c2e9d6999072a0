"""The launcher: a small process with the shim's code preloaded, which forks one shim for each order.

The daemon starts it with `command(fd)`.  `fd` is one end of an AF_UNIX SOCK_SEQPACKET pair.  The launcher
inherits only this descriptor, stdout and stderr:

    subprocess.Popen(launcher.command(fd), pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True)

The launcher exits when the other end of the socket is closed.  The daemon imports this module, so it imports
no other module of mosaicd.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from mosaicd.launcher.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def command(fd: int, containment: str = "process-group", soft_limit: int | None = None) -> list[str]:
    """Return the argv that starts a launcher on the order socket `fd`.

    `containment`: auto, cgroup or process-group, as in the settings.  `soft_limit`: the limit of open
    descriptors for the launcher, its shims and their workers; None for the limit of the daemon.

    The interpreter runs isolated (-I), without PYTHONPATH and the current directory.  If the daemon runs from
    a source tree, the command therefore contains the path of that tree.
    """
    options = ["--fd", str(fd), "--containment", containment]
    options += [] if soft_limit is None else ["--descriptors", str(soft_limit)]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(root) in ("site-packages", "dist-packages"):
        return [sys.executable, "-I", "-m", "mosaicd.launcher", *options]
    return [sys.executable, "-I", "-c", _BOOTSTRAP, root, *options]


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """Yield a descriptor of a memory file with the body of an order; no other process can open it."""
    descriptor = os.memfd_create("mosaic-order", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
