"""The look at a program before its submit: what the kernel would refuse hours later, with a hint.

The look runs as the user, on the files as they are now, by the rules of the launch: a name without `/` is
searched in the PATH of the run, relative to its working directory; the first file that can be executed
counts.  `--no-check` skips the look, for a program that exists only later.
Note: `look` runs in a child process (see `timed_look`), so it returns plain data; `refusal` makes the text.
"""

import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from errno import EACCES, ENOENT, ENOTDIR
from typing import NamedTuple

from mosaicctl.environment import printable
from mosaicctl.exits import NOT_EXECUTABLE, NOT_STARTED

#: The PATH of a run that is submitted without one.
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
#: The kernel reads this much of a file to find out how to execute it, and follows this many interpreters.
_HEAD_BYTES = 256
_MOST_INTERPRETERS = 5
#: The most characters of a path or of a hint in a message.
_LONGEST_TEXT = 400


class Subject(NamedTuple):
    """What is looked at; `cwd` is None if the working directory is made only at the launch."""

    #: Empty if only the daemon knows the program.
    argv: list[str]
    cwd: str | None
    path: str
    #: The words can be typed again after `--`, so that hints may name them.
    is_command: bool = True


#: Kind of a fault, and the names and values in its sentence.
Fault = tuple[str, dict[str, str]]


class Row(NamedTuple):
    """A fault: the exit code of `run`, the sentence, and the hint."""

    code: int
    text: str
    hint: str = ""


FAULTS: Mapping[str, Row] = {
    "no_directory": Row(
        NOT_STARTED, "the working directory {cwd} does not exist", "make it, or name another one with --cwd"
    ),
    "bad_directory": Row(
        NOT_EXECUTABLE, "the working directory {cwd} cannot be used: {reason}", "name another one with --cwd"
    ),
    "not_in_path": Row(NOT_STARTED, "{program}: there is no such program in PATH"),
    "no_file": Row(NOT_STARTED, "{path}: there is no such file"),
    "dead_link": Row(NOT_STARTED, "{path}: is a symbolic link to {target}, which does not exist"),
    "unusable": Row(NOT_EXECUTABLE, "{path}: {reason}"),
    "directory": Row(NOT_EXECUTABLE, "{path}: is a directory", "name a program in it"),
    "no_regular_file": Row(NOT_EXECUTABLE, "{path}: is not a regular file"),
    "not_executable": Row(NOT_EXECUTABLE, "{path}: is not executable", "chmod +x {quoted}"),
    "no_shebang": Row(
        NOT_EXECUTABLE,
        "{path}: is a text without an interpreter (a first line such as #!/bin/sh)",
        "write that line, or name the interpreter: -- sh {quoted}",
    ),
    "carriage_return": Row(
        NOT_STARTED,
        "{path}: the first line ends with a carriage return, so its interpreter is not found",
        "sed -i 's/\\r$//' {quoted}",
    ),
    "no_interpreter": Row(
        NOT_STARTED,
        "{path}: the interpreter {interpreter} of its first line does not exist",
        "correct the first line, or name the interpreter before {quoted}",
    ),
    "bad_interpreter": Row(
        NOT_EXECUTABLE, "{path}: the interpreter {interpreter} of its first line cannot be executed"
    ),
}

#: Faults of an entry of PATH that only mean that the program is not there.
_PASSED_OVER = ("no_file", "unusable", "directory", "no_regular_file")

#: Words that only a shell knows.
_SHELL_WORDS = frozenset(
    ". source cd export set unset alias eval exec ulimit umask trap wait read type declare local shopt pushd "
    "popd builtin command function time if for while until case select { ( [[ !".split()
)
_BASH_WORDS = frozenset("source declare local shopt pushd popd builtin function select [[".split())
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_SHELL_SIGNS = re.compile(r"&&|\|\||[\s;|&<>*$`]")


def look(subject: Subject) -> Fault | None:
    """Return the fault for which the launch would fail, as the files are now; None if there is none."""
    try:
        return _directory_fault(subject.cwd) or (_program_fault(subject) if subject.argv else None)
    except ValueError:  # a NUL or a lone surrogate: no file has such a name, and the daemon refuses it
        return None


def refusal(subject: Subject, fault: Fault) -> tuple[int, str]:
    """Return the exit code of `run` for a fault, and its text with a hint."""
    kind, values = fault
    row = FAULTS[kind]
    shown = {name: _short(value) for name, value in values.items()}
    shown["quoted"] = _short(shlex.quote(values.get("path", "")))
    hint = _short(_hint(subject, values, kind)) or row.hint.format(**shown)
    lines = [row.text.format(**shown), *([f"  {hint}"] if hint else [])]
    return row.code, "\n".join([*lines, "  --no-check skips this look"])


def _short(text: str) -> str:
    """Return `text` printable and cut: a command may hold a whole script."""
    return printable(text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}...")


def _directory_fault(cwd: str | None) -> Fault | None:
    if cwd is None:
        return None
    try:
        mode = os.stat(cwd).st_mode
    except OSError as error:
        if error.errno == ENOENT:
            return "no_directory", {"cwd": cwd}
        return "bad_directory", {"cwd": cwd, "reason": _reason(error)}
    if not stat.S_ISDIR(mode):
        return "bad_directory", {"cwd": cwd, "reason": "it is not a directory"}
    if not os.access(cwd, os.X_OK):
        return "bad_directory", {"cwd": cwd, "reason": "it may not be entered (permission x)"}
    return None


def _program_fault(subject: Subject) -> Fault | None:
    program = subject.argv[0]
    if not program:
        return "not_in_path", {"program": "''"}
    fault = _search(program, subject)
    if fault is None or subject.cwd is None or fault[0] not in ("not_in_path", "no_file"):
        return fault
    # What else the word may mean, for the hint.
    here = os.path.join(subject.cwd, program)
    if "/" not in program and os.path.isfile(here):
        fault[1]["here"] = "executable" if os.access(here, os.X_OK) else "file"
    if "/" in program and not program.startswith("/") and os.path.isfile(program):
        fault[1]["elsewhere"] = os.path.abspath(program)
    return fault


def _search(program: str, subject: Subject) -> Fault | None:
    """Return the fault of the file that `program` names; a name without `/` is searched in PATH."""
    if "/" in program:
        return _file_fault(program, subject)
    found: Fault | None = None
    for directory in subject.path.split(":"):  # an empty entry is the working directory
        fault = _file_fault(os.path.join(directory, program), subject)
        if fault is None:
            return None
        if found is None and fault[0] not in _PASSED_OVER:
            found = fault
    return found or ("not_in_path", {"program": program})


def _file_fault(path: str, subject: Subject, depth: int = 0) -> Fault | None:
    """Return why the kernel would not execute the file at `path`; relative paths begin at the `cwd`."""
    values = {"path": path}
    if not path.startswith("/"):
        if subject.cwd is None:
            return None
        path = os.path.join(subject.cwd, path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == ENOENT and os.path.islink(path):
            return "dead_link", {**values, "target": os.readlink(path)}
        if error.errno in (ENOENT, ENOTDIR):
            return "no_file", values
        return "unusable", {**values, "reason": _reason(error)}
    if stat.S_ISDIR(mode):
        return "directory", values
    if not stat.S_ISREG(mode):
        return "no_regular_file", values
    if not os.access(path, os.X_OK):
        return "not_executable", values
    return _content_fault(path, values, subject, depth)


def _content_fault(path: str, values: dict[str, str], subject: Subject, depth: int) -> Fault | None:
    """Return why the kernel would not execute the content of an executable file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # a program that may be executed and not be read
    try:
        head = os.read(fd, _HEAD_BYTES)
    finally:
        os.close(fd)
    if not head.startswith(b"#!"):
        return None if b"\0" in head else ("no_shebang", values)
    line = head[2:].partition(b"\n")[0]
    if line.endswith(b"\r"):
        return "carriage_return", values
    words = os.fsdecode(line).strip(" \t").split(maxsplit=1)
    if not words:
        return "no_shebang", values
    interpreter = words[0]
    fault = _file_fault(interpreter, subject, depth + 1) if depth < _MOST_INTERPRETERS else None
    if fault is None and os.path.basename(interpreter) == "env" and len(words) > 1:
        interpreter = _program_of_env(words[1])
        fault = _search(interpreter, subject) if interpreter else None
    if fault is None:
        return None
    is_missing = FAULTS[fault[0]].code == NOT_STARTED
    return "no_interpreter" if is_missing else "bad_interpreter", {**values, "interpreter": interpreter}


def _program_of_env(argument: str) -> str:
    """Return the program that `#!/usr/bin/env ARGUMENT` starts; "" if that takes more than a look.

    Without -S the kernel passes all words as one, so that `env python3 -u` looks for a file with a space.
    """
    if argument.startswith("-S"):
        words = [word for word in argument[2:].split() if not _ASSIGNMENT.match(word)]
        return words[0] if words and not words[0].startswith("-") else ""
    return "" if argument.startswith("-") or _ASSIGNMENT.match(argument) else argument


def _reason(error: OSError) -> str:
    if error.errno == EACCES:
        return "permission denied; a directory of the path lacks the permission x"
    return error.strerror or str(error)


def _hint(subject: Subject, values: Mapping[str, str], kind: str) -> str:
    """Return the first hint of HINTS that applies to a command; "" if there is none."""
    if not subject.is_command:
        return ""
    return next((text for row in HINTS if kind in row[0] and (text := row[1](subject.argv, values))), "")


def _assignment_hint(argv: list[str], values: Mapping[str, str]) -> str:
    given = []
    for word in argv:
        if not _ASSIGNMENT.match(word):
            break
        given.append(f"-e {shlex.quote(word)}")
    rest = shlex.join(argv[len(given) :])
    if not given or (not rest and " " in argv[0]):  # "A=1 program" in quotes is a line for a shell
        return ""
    return f"write variables before --: {' '.join(given)} -- {rest or 'COMMAND'}"


def _shell_word_hint(argv: list[str], values: Mapping[str, str]) -> str:
    if argv[0] not in _SHELL_WORDS:
        return ""
    shell = "bash" if argv[0] in _BASH_WORDS else "sh"
    return f"only a shell knows {argv[0]}: -- {shell} -c {_as_script(argv)}"


def _shell_line_hint(argv: list[str], values: Mapping[str, str]) -> str:
    if not _SHELL_SIGNS.search(argv[0]):
        return ""
    return f"a command line in quotes needs a shell: -- sh -c {_as_script(argv)}"


def _as_script(argv: list[str]) -> str:
    """Return the words as one argument; a first word with spaces or signs is a script already."""
    return shlex.quote(argv[0] if len(argv) == 1 else f"{argv[0]} {shlex.join(argv[1:])}")


def _here_hint(argv: list[str], values: Mapping[str, str]) -> str:
    if values.get("here") == "executable":
        return f"a file of the working directory needs ./: -- {shlex.join([f'./{argv[0]}', *argv[1:]])}"
    if "here" not in values:
        return ""
    return _interpreter_hint(argv, values) or f"chmod +x {shlex.quote(argv[0])}, and write -- ./{argv[0]}"


def _elsewhere_hint(argv: list[str], values: Mapping[str, str]) -> str:
    path = values.get("elsewhere")
    return f"the path begins at --cwd; write -- {shlex.join([path, *argv[1:]])}" if path else ""


def _home_hint(argv: list[str], values: Mapping[str, str]) -> str:
    return "the shell expands ~ only without quotes" if argv[0].startswith("~") else ""


def _interpreter_hint(argv: list[str], values: Mapping[str, str]) -> str:
    return _by_interpreter(argv) if argv[0].endswith((".py", ".sh")) else ""


def _by_interpreter(argv: list[str]) -> str:
    interpreter = "python" if argv[0].endswith(".py") else "sh"
    return f"name the interpreter: -- {shlex.join([interpreter, *argv])}"


_MISSING = ("not_in_path", "no_file")
#: The kinds of faults, and the function that gives a hint for them or "".  The first hint counts.
HINTS: tuple[tuple[tuple[str, ...], Callable[[list[str], Mapping[str, str]], str]], ...] = (
    (_MISSING, _assignment_hint),
    (_MISSING, _shell_word_hint),
    (_MISSING, _home_hint),
    (_MISSING, _elsewhere_hint),
    (_MISSING, _here_hint),
    ((*_MISSING, "unusable", "directory"), _shell_line_hint),
    (("no_shebang",), _interpreter_hint),
)
