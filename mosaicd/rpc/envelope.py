"""The JSON-RPC envelope: bytes to a checked message or batch, before anything is dispatched.

Each fault raises the error that the caller is answered.  JSON is taken strictly: no NaN, no lone
surrogates, no bytes that are not UTF-8, so whatever passes can be sent back to anybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec

from mosaicd.protocol.errors import InvalidRequest, ParseError, TooLarge

ID_CHARACTERS = 128
#: Lists and objects in one line (brackets in texts count too): a line of nothing else takes 100 times as long
#: to decode as one of text, and everybody waits for it.
CONTAINERS = 50_000
_INT64 = 1 << 63

Id = str | int | float | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """One line: a single message, or the items of a batch, each still to be checked with `fault_of`."""

    items: list[Any]
    is_batch: bool

    @property
    def is_ordered(self) -> bool:
        """Whether something in it may not overtake what came before (facts of a shim)."""
        return any(is_ordered(item) for item in self.items)


def read(line: bytes, batch_limit: int) -> Envelope:
    """Return the decoded line; ParseError, InvalidRequest or TooLarge (a limit of its own)."""
    if len(line) > CONTAINERS and line.count(b"[") + line.count(b"{") > CONTAINERS:
        raise TooLarge(f"a line can have at most {CONTAINERS} arrays and objects", limit=CONTAINERS)
    try:
        message = msgspec.json.decode(line)
    except RecursionError:
        raise ParseError("the line is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ParseError(f"the line is not UTF-8: {error.reason}") from None
    except msgspec.DecodeError as error:
        raise ParseError(f"the line is not valid JSON: {error}") from None
    if not isinstance(message, list):
        return Envelope([message], is_batch=False)
    if not message:
        raise InvalidRequest("a batch must have at least one request")
    if len(message) > batch_limit:
        raise TooLarge(
            f"a batch can have at most {batch_limit} requests; this one has {len(message)}", limit=batch_limit
        )
    return Envelope(message, is_batch=True)


def fault_of(message: object) -> str | None:
    """Return the rule of JSON-RPC 2.0 that `message` breaks, or None."""
    if not isinstance(message, dict):
        return "a request is an object"
    if message.get("jsonrpc") != "2.0":
        return 'jsonrpc: must be "2.0"'
    if not isinstance(message.get("method"), str):
        return "method: must be a string" if "method" in message else "method: is missing"
    if not isinstance(message.get("params", {}), dict | list):
        return "params: must be an object (or be left out)"
    if "id" in message and not _is_id(message["id"]):
        return f"id: must be a string of at most {ID_CHARACTERS} characters, a 64-bit number or null"
    return None


def known_id(message: object) -> Id:
    """Return the id of a message, however broken the rest is; None where none can be sent back."""
    number = message.get("id") if isinstance(message, dict) else None
    return number if _is_id(number) else None


def is_ordered(message: object) -> bool:
    """Whether the message is of the worker.* family, whose order on a connection is kept."""
    method = message.get("method") if isinstance(message, Mapping) else None
    return isinstance(method, str) and method.startswith("worker.")


def _is_id(value: object) -> TypeGuard[Id]:
    if isinstance(value, str):
        return len(value) <= ID_CHARACTERS
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return -_INT64 <= value < _INT64
