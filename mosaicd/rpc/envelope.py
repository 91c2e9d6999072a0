"""The JSON-RPC envelope: decode a line into a message or a batch, and check its form.

Each fault raises the error that the caller receives.  JSON is decoded strictly: no NaN, no lone surrogates,
no bytes that are not UTF-8.  So every accepted value can be sent to any client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec

from mosaicd.protocol.errors import InvalidRequest, ParseError, TooLarge

ID_CHARACTERS = 128
#: The most arrays and objects in one line; brackets in strings are counted too.  A line of brackets takes 100
#: times as long to decode as a line of text, and all connections wait for it.
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
        """Return whether the line must be handled after earlier lines of the shim."""
        return any(is_ordered(item) for item in self.items)


def read(line: bytes, batch_limit: int) -> Envelope:
    """Return the decoded line; raise ParseError, InvalidRequest or TooLarge."""
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


def id_of(message: object) -> Id:
    """Return the id of a message that may break other rules; None if it has no valid id."""
    message_id = message.get("id") if isinstance(message, dict) else None
    return message_id if _is_id(message_id) else None


def is_ordered(message: object) -> bool:
    """Return whether the message is of the worker.* family, whose order on a connection is kept."""
    method = message.get("method") if isinstance(message, Mapping) else None
    return isinstance(method, str) and method.startswith("worker.")


def _is_id(value: object) -> TypeGuard[Id]:
    if isinstance(value, str):
        return len(value) <= ID_CHARACTERS
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return -_INT64 <= value < _INT64
