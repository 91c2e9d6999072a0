"""Standard input of the caller, which a run does not get: the warning before it is dropped.

Without --stdin, a run has an empty standard input.  `submit` often stands in a script or in a loop over a
file, so it warns only about interpreters that read their program from standard input.
"""

import fcntl
import os
import select
import stat
import struct
import sys
import termios
from pathlib import PurePath
from typing import Any

#: Interpreters, and their options that take the next argument as a value.
_SHELL_VALUES = frozenset({"-o", "+o", "-O", "+O", "--rcfile", "--init-file"})
_PYTHON_VALUES = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"})
_PYTHONS = frozenset({"python", "pypy"})
#: Letters after which a shell or Python takes its program from its arguments.
_SHELL_PROGRAM, _PYTHON_PROGRAM = "c", "cm"


def tell_dropped_input(args: Any, fd: int = 0, *, is_run: bool) -> bool:
    """Warn if the input of mosaicctl is dropped; return whether it was.  `is_run`: the verb is `run`."""
    if args.stdin is not None:
        return False
    reads_program = reads_program_from_stdin(args.command or [])
    if not (is_run or reads_program) or not has_input(fd, or_may_get=reads_program):
        return False
    sys.stderr.write(
        "mosaicctl: standard input is not passed to the run, which reads an empty one; "
        "pass it with --stdin -, or silence this with </dev/null\n"
    )
    return True


def has_input(fd: int, *, or_may_get: bool = False) -> bool:
    """Return whether `fd` is a file or a pipe with unread bytes; nothing is read.

    `or_may_get`: a pipe whose writer has written nothing yet counts, too.
    """
    try:
        mode = os.fstat(fd).st_mode
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            return False
        if stat.S_ISREG(mode):
            return os.lseek(fd, 0, os.SEEK_CUR) < os.fstat(fd).st_size
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            return False
        unread: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]
        return unread > 0 or (or_may_get and not _has_ended(fd))
    except OSError:  # closed, or of a kind that cannot be asked
        return False


def _has_ended(fd: int) -> bool:
    """Return whether the writers of a pipe or socket without unread bytes have closed it."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def reads_program_from_stdin(command: list[str]) -> bool:
    """Return whether a command is a shell or Python without a script: `bash -s`, `sh`, `python3 -`."""
    name = PurePath(command[0]).name.rstrip("0123456789.") if command else ""
    if name in _SHELLS:
        return _lacks_program(command[1:], _SHELL_VALUES, _SHELL_PROGRAM, reads="s")
    if name in _PYTHONS:
        return _lacks_program(command[1:], _PYTHON_VALUES, _PYTHON_PROGRAM)
    return False


def _lacks_program(arguments: list[str], with_value: frozenset[str], program: str, reads: str = "") -> bool:
    """Return whether no argument is a program.

    A letter of `program` is an option with a program; one of `reads` (of a shell) asks for standard input.
    """
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-", "--"):  # for Python, - is standard input; for a shell, the options end here
            return not rest or (word == "-" and not reads)
        if not word.startswith(("-", "+")):
            return False
        if word in with_value:
            del rest[:1]
        elif not word.startswith("--"):
            if set(word) & set(program):
                return False
            if set(word) & set(reads):
                return True
    return True
