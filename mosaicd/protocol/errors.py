"""The errors of requests: one class, one JSON-RPC code and one name each; code and name never change.

The first line of a class's docstring is its default message.  An error is raised where the fault is found;
only the daemon's router turns it into a JSON-RPC error.  The client finds its exit code in EXIT_CODES.
"""

from typing import Any

from mosaicd.protocol import Json


class MosaicError(Exception):
    """The request failed."""

    code = -32000
    name = "error"

    def __init__(self, message: str | None = None, **data: Any) -> None:
        self.message = message or self.default_message()
        self.data = data
        super().__init__(self.message)

    @classmethod
    def default_message(cls) -> str:
        """Return the first line of the docstring as a message: no capital letter, no full stop."""
        sentence = (cls.__doc__ or "").strip().splitlines()[0]
        return sentence[0].lower() + sentence[1:].rstrip(".")


class ParseError(MosaicError):
    """The line is not valid JSON."""

    code = -32700
    name = "parse_error"


class InvalidRequest(MosaicError):
    """The message is not a JSON-RPC 2.0 request."""

    code = -32600
    name = "invalid_request"


class MethodNotFound(MosaicError):
    """There is no such method."""

    code = -32601
    name = "method_not_found"


class InvalidParams(MosaicError):
    """The parameters do not fit the method.

    `data["errors"]` lists every fault that was found, as {"path", "rule"}.
    """

    code = -32602
    name = "invalid_params"


class InternalError(MosaicError):
    """The daemon has an internal error; its log has the reference."""

    code = -32603
    name = "internal_error"


class NotFound(MosaicError):
    """There is no such run."""

    code = -32001
    name = "not_found"


class NotPermitted(MosaicError):
    """The run belongs to another user."""

    code = -32002
    name = "not_permitted"


class Conflict(MosaicError):
    """The state of the run does not allow the request."""

    code = -32003
    name = "conflict"


class CapacityImpossible(MosaicError):
    """This machine can never provide the resources that the run asks for."""

    code = -32004
    name = "capacity_impossible"


class Unavailable(MosaicError):
    """The daemon cannot do this now; try again later."""

    code = -32005
    name = "unavailable"


class Draining(MosaicError):
    """The daemon is draining and accepts no new runs."""

    code = -32006
    name = "draining"


class TooLarge(MosaicError):
    """The message is larger than the limit."""

    code = -32007
    name = "too_large"


class Unauthenticated(MosaicError):
    """The session token or the launch secret is not valid."""

    code = -32008
    name = "unauthenticated"


class TimedOut(MosaicError):
    """The time limit of the request was reached."""

    code = -32009
    name = "timed_out"


ERRORS: dict[int, type[MosaicError]] = {
    cls.code: cls
    for cls in (
        MosaicError, ParseError, InvalidRequest, MethodNotFound, InvalidParams, InternalError,
        NotFound, NotPermitted, Conflict, CapacityImpossible, Unavailable, Draining, TooLarge,
        Unauthenticated, TimedOut,
    )
}  # fmt: skip

#: Exit codes of mosaicctl by error name; all other errors have the exit code 125.
EXIT_CODES: dict[str, int] = {
    "invalid_params": 2,
    "invalid_request": 2,
    "method_not_found": 2,
    "too_large": 2,
    "not_found": 3,
    "not_permitted": 4,
    "unauthenticated": 4,
    "conflict": 5,
    "capacity_impossible": 6,
    "unavailable": 69,
    "draining": 69,
    "timed_out": 124,
}


def from_wire(error: Json) -> MosaicError:
    """Return the exception for a JSON-RPC error object; an unknown code gives a MosaicError."""
    data = error.get("data")
    fields = dict(data) if isinstance(data, dict) else {}
    cls = ERRORS.get(error.get("code", 0), MosaicError)
    fields.pop("name", None)
    return cls(str(error.get("message", "")) or None, **fields)
