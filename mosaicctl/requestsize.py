"""The sizes of a submit, checked before it is sent: a variable, the start of the program, the request."""

import resource
from collections.abc import Iterable

from mosaicctl.exits import UsageError
from mosaicd.protocol import Json
from mosaicd.protocol.exec_sizes import (
    EXEC_RULE,
    exec_bytes,
    exec_limit_bytes,
    too_large,
    too_long_string,
)
from mosaicd.protocol.framing import REQUEST_LIMIT_BYTES, encode, request

#: Room for what the launch adds to arguments and environment, and the client to a request.
_ADDED_BYTES = 8 << 10


def check_sizes(params: Json) -> None:
    """Raise UsageError if run.submit with `params` cannot be sent, or its program cannot be started."""
    config = params.get("config") or {}
    environment = {
        **params["caller_environment"],
        **_texts(config.get("environment")),
        **params.get("environment", {}),
    }
    argv = _strings(params.get("command") or config.get("arguments"))
    if (reason := too_long_string(argv, environment)) is not None:
        raise UsageError(reason)
    total = exec_bytes(argv, environment) + _ADDED_BYTES
    limit = exec_limit_bytes(resource.getrlimit(resource.RLIMIT_STACK)[0])
    if total > limit:
        raise UsageError(too_large(total, limit, EXEC_RULE, environment))
    try:
        total = len(encode(request("run.submit", params, 1))) + _ADDED_BYTES
    except ValueError:  # it cannot be sent at all, which the client reports when it sends
        return
    if total > REQUEST_LIMIT_BYTES:
        raise UsageError(too_large(total, REQUEST_LIMIT_BYTES, "the limit of a request", environment))


def _texts(value: object) -> dict[str, str]:
    """Return the strings of an object of a config, which the daemon has not checked yet."""
    found = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in found if isinstance(text, str)}


def _strings(value: object) -> Iterable[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else ()
