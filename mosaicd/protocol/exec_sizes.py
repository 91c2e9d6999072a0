"""How large the arguments and the environment of a program may be, as the kernel counts them in execve.

A string, with its NUL, has at most 128 KiB.  All strings and the pointers to them have at most a quarter of
the soft stack limit, at least 128 KiB and at most 6 MiB.
"""

from collections.abc import Iterable, Mapping

#: MAX_ARG_STRLEN: one argument, or one NAME=VALUE, with its NUL.
STRING_LIMIT_BYTES = 128 << 10
_LEAST_BYTES = 128 << 10
_MOST_BYTES = 6 << 20
_POINTER_BYTES = 8
#: The longest name of a variable in a message.
_LONGEST_NAME = 60


def exec_limit_bytes(stack_bytes: int) -> int:
    """Return the limit of `exec_bytes` for a soft stack limit; a negative limit is none."""
    if stack_bytes < 0:
        return _MOST_BYTES
    return min(_MOST_BYTES, max(_LEAST_BYTES, stack_bytes // 4))


def exec_bytes(argv: Iterable[str], environment: Mapping[str, str]) -> int:
    """Return the bytes of a program's arguments and environment, with NULs and pointers."""
    arguments = sum(_bytes(word) + 1 + _POINTER_BYTES for word in argv)
    return arguments + sum(
        variable_bytes(name, value) + _POINTER_BYTES for name, value in environment.items()
    )


def variable_bytes(name: str, value: str) -> int:
    """Return the bytes of NAME=VALUE with its NUL."""
    return _bytes(name) + _bytes(value) + 2


def too_long_string(argv: Iterable[str], environment: Mapping[str, str]) -> str | None:
    """Return the sentence about an argument or a variable that is above its own limit, or None."""
    for number, word in enumerate(argv):
        if _bytes(word) + 1 > STRING_LIMIT_BYTES:
            what, size = f"argument {number}", _bytes(word) + 1
            return f"{what} has {size} bytes, the limit of one argument is {STRING_LIMIT_BYTES}"
    for name, value in environment.items():
        if (size := variable_bytes(name, value)) > STRING_LIMIT_BYTES:
            return (
                f"the variable {name[:_LONGEST_NAME]} has {size} bytes, the limit of one variable is "
                f"{STRING_LIMIT_BYTES}; leave it out with --env-drop, or pass the name of a file"
            )
    return None


def too_large(bytes_: int, limit_bytes: int, rule: str, environment: Mapping[str, str]) -> str:
    """Return the sentence about a size above its limit, with the three largest variables and the remedy."""
    largest = sorted(environment, key=lambda name: -variable_bytes(name, environment[name]))[:3]
    shown = ", ".join(
        f"{name[:_LONGEST_NAME]} ({variable_bytes(name, environment[name])})" for name in largest
    )
    advice = f"; leave variables out with --env-drop, the largest are {shown}" if shown else ""
    return f"the arguments and the environment have {bytes_} bytes, {rule} is {limit_bytes}{advice}"


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


#: The rule of `exec_limit_bytes` in `too_large`.
EXEC_RULE = "the limit (a quarter of the stack limit)"
