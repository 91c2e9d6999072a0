"""The launcher: a small process that keeps the shim's code warm and forks one shim an order.

The daemon starts it with `command(fd)`, where `fd` is its end of an AF_UNIX SOCK_SEQPACKET pair, passed
on and inheritable, and nothing else:

    subprocess.Popen(launcher.command(fd), pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True)

It ends when that socket does.  This module is imported by the daemon, so it imports none of ours.
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

    `containment`: auto, cgroup or process-group, as in the settings.  `soft_limit`: of open descriptors, for
    the launcher, its shims and their workers; None: the one of the daemon.

    The interpreter runs isolated (-I), which leaves PYTHONPATH and the current directory out; a daemon
    that runs from a source tree therefore says where that tree is.
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
