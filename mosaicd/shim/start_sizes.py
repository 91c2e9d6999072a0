"""The reason why a worker could not be started because its arguments and environment are too large."""

import errno
import resource

from mosaicd.protocol.exec_sizes import EXEC_RULE, exec_bytes, exec_limit_bytes, too_large, too_long_string
from mosaicd.protocol.process_limits import lower
from mosaicd.protocol.records.orders import LaunchOrder


def too_large_to_start(error: OSError, order: LaunchOrder) -> str | None:
    """Return what is too large, and the largest variables, if `error` is E2BIG; None for any other error."""
    if error.errno != errno.E2BIG:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    asked = (order.process.limits or {}).get("stack")
    limit = exec_limit_bytes(soft if asked is None else lower(asked, hard))
    environment = order.environment
    reason = too_long_string(order.argv, environment)
    if reason is not None:
        return reason
    return too_large(exec_bytes(order.argv, environment), limit, EXEC_RULE, environment)
