"""The options for the environment of a run: -e, --env-file, --env-drop and --env-clean."""

import os
from typing import Any

from mosaicctl.environment import Captured, capture, clean_environment, is_text, printable
from mosaicctl.exits import UsageError
from mosaicctl.values import nonempty

_ESCAPED = '"\\$`'


def variable_arguments(group: Any) -> None:
    """Add the options that choose the environment of a run."""
    group.add_argument(
        "-e", "--env", metavar="K=V", action="append", default=[],
        help="an environment variable; K alone passes your own value (repeatable)",
    )  # fmt: skip
    group.add_argument(
        "--env-file", metavar="FILE", action="append", default=[], type=nonempty,
        help="environment variables, a line NAME=VALUE for each; -e has precedence (repeatable)",
    )  # fmt: skip
    group.add_argument(
        "--env-drop", metavar="PATTERN", action="append", default=[], type=nonempty,
        help="do not pass your variables whose names match, for example 'LS_*' (repeatable)",
    )  # fmt: skip
    group.add_argument(
        "--env-clean", action="store_true",
        help="pass only PATH, HOME, your virtual environment, locale, caches; no secrets",
    )  # fmt: skip


def given_environment(args: Any) -> dict[str, str]:
    """Return the variables of --env-file and -e; raise UsageError for a mistake in one of them."""
    variables: dict[str, str] = {}
    for path in args.env_file:
        variables |= read_variables(path)
    return variables | explicit_environment(args.env)


def caller_environment(args: Any, given: dict[str, str]) -> Captured:
    """Return what the run receives of the caller's environment; the names in `given` have other values."""
    found = (clean_environment if args.env_clean else capture)(os.environ, args.env_drop)
    return found._replace(values={name: value for name, value in found.values.items() if name not in given})


def explicit_environment(items: list[str]) -> dict[str, str]:
    """Return the variables of -e; a bare name takes the value of the caller.

    Raises UsageError if it has none.
    """
    variables: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name:
            raise UsageError(f"-e {printable(item)}: write K=V, or K to pass your own value")
        if not equals and name not in os.environ:
            shown = printable(name)
            raise UsageError(f"-e {shown}: your environment has no variable {shown}; write {shown}=VALUE")
        variables[name] = value if equals else os.environ[name]
        if not is_text(name) or not is_text(variables[name]):
            raise UsageError(f"-e {printable(name)}: the name or the value is not UTF-8")
    return variables


def read_variables(path: str) -> dict[str, str]:
    """Return the variables of an --env-file; raise UsageError with the line of a mistake."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"--env-file {printable(path)}: {error.strerror}") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            variables |= _variable(line.decode().strip())
        except ValueError as error:
            rule = "the line is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise UsageError(f"--env-file {printable(path)}:{number}: {rule}") from None
    return variables


def _variable(line: str) -> dict[str, str]:
    """Return the variable of one line, {} for a blank line or a comment; raise ValueError with the rule."""
    if not line or line[0] == "#":
        return {}
    words = line.split(maxsplit=1)
    if words[0] == "export" and len(words) == 2:
        line = words[1]
    name, equals, value = line.partition("=")
    if not equals or not name or name != name.strip() or len(name.split()) != 1:
        raise ValueError("write NAME=VALUE, without a space before the =")
    if "\0" in line:
        raise ValueError(f"{name}: the value must not contain a NUL character")
    return {name: _value(name, value.strip())}


def _value(name: str, text: str) -> str:
    """Return a value without its quotes and its comment.

    Nothing is expanded: a $ stands for itself.  In double quotes, a backslash before " \\ $ and ` is removed.
    """
    if not text or text[0] not in "'\"":
        return "" if text.startswith("#") else text.split(" #")[0].split("\t#")[0].rstrip()
    quote, value, rest = text[0], "", text[1:]
    while rest and rest[0] != quote:
        if quote == '"' and rest[0] == "\\" and rest[1:2] and rest[1] in _ESCAPED:
            rest = rest[1:]
        value, rest = value + rest[0], rest[1:]
    if not rest:
        raise ValueError(f"{name}: the closing {quote} is missing")
    after = rest[1:].lstrip()
    if after and not after.startswith("#"):
        raise ValueError(f"{name}: only a comment may follow the closing {quote}")
    return value
