"""A look at files in a child process with a time limit: a file system that hangs must not hang the client.

A process that waits for a dead NFS server may ignore even SIGKILL.  So the child holds nothing of the client
but its end of a pipe: a caller that waits for the end of standard output does not wait for the child.
"""

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

LOOK_TIMEOUT_S = 2.0
_REAP_MS = 100


class NoAnswer(Exception):
    """The look had no result in time, or failed."""


def timed_look(look: Callable[[], Any]) -> Any:
    """Return the result of `look`, which is JSON, from a child process; raise NoAnswer after the limit."""
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:  # too many processes
        os.close(read)
        os.close(write)
        raise NoAnswer from None
    if pid == 0:
        _answer(look, write)
    os.close(write)
    try:
        answer = _read(read, pid)
    finally:
        os.close(read)
    try:
        return json.loads(answer)
    except ValueError:
        raise NoAnswer from None


def _answer(look: Callable[[], Any], write: int) -> None:
    """Write the result of `look` and exit."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != write:
                with contextlib.suppress(OSError):  # the descriptor of the listing itself
                    os.close(int(name))
        os.write(write, json.dumps(look()).encode())
    finally:
        os._exit(0)


def _read(read: int, pid: int) -> bytes:
    """Return what the child writes until it exits; kill it at the time limit."""
    answer = b""
    poll = select.poll()
    poll.register(read, select.POLLIN)
    try:
        while poll.poll(LOOK_TIMEOUT_S * 1000):
            data = os.read(read, 1 << 16)
            if not data:
                return answer
            answer += data
        return b""
    finally:
        _end(pid)


def _end(pid: int) -> None:
    """Kill the child and reap it, if it ends soon."""
    ended = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(ended, signal.SIGKILL)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if poll.poll(_REAP_MS):
            os.waitpid(pid, 0)
    finally:
        os.close(ended)
