"""The packets between daemon and launcher: orders of the daemon, replies and facts of the launcher.

Each packet is one JSON object.  A ForkShim comes with the descriptor of the order (see `orders`).  Daemon and
launcher always have the same version, so packets are not checked.
"""

from collections.abc import Mapping
from typing import Any, Literal

from mosaicd.protocol.records.record import Record


class ForkShim(Record):
    """Fork a shim that carries out the order in the descriptor; the reply is Launched or ForkFailed."""

    order: Literal["launch", "teardown"]
    run_id: str
    attempt: int
    id: int


class CheckTree(Record):
    """Check whether a process of the run is alive; the reply is TreeChecked.

    `shim_pid` and `shim_start` (clock ticks since boot) are those of the shim; None if the run has none.
    """

    order: Literal["is_empty"] = "is_empty"
    run_id: str
    shim_pid: int | None = None
    shim_start: int | None = None
    attempt: int | None = None
    id: int


class UnknownOrder(Record):
    """A packet with an unknown order; the reply is ForkFailed."""

    id: int | None = None


class Launched(Record):
    """The shim is forked; `start_ticks` is its start time in clock ticks since boot, None if unknown."""

    reply: Literal["launched"] = "launched"
    id: int
    pid: int
    start_ticks: int | None


class ForkFailed(Record):
    """No shim is forked.  `errno` is that of the fork, None if the reason is another one."""

    reply: Literal["failed"] = "failed"
    id: int | None
    error: str
    errno: int | None = None


class TreeChecked(Record):
    """The result of a check: whether the process tree of a run is empty, and if not, its first pids."""

    reply: Literal["empty"] = "empty"
    id: int
    run_id: str
    empty: bool
    pids: tuple[int, ...] = ()


class Reaped(Record):
    """A shim has ended; `status` is that of waitpid(2)."""

    fact: Literal["reaped"] = "reaped"
    pid: int
    run_id: str
    attempt: int
    status: int


class ContainmentFound(Record):
    """The kind of containment on this machine, and the limits that it enforces."""

    fact: Literal["containment"] = "containment"
    kind: str
    enforces: tuple[str, ...]


Order = ForkShim | CheckTree | UnknownOrder
Reply = Launched | ForkFailed | TreeChecked
Message = Reply | Reaped | ContainmentFound

_ORDERS: Mapping[Any, type[ForkShim | CheckTree]] = {
    "launch": ForkShim, "teardown": ForkShim, "is_empty": CheckTree,
}  # fmt: skip
_MESSAGES: Mapping[Any, type[Message]] = {
    "launched": Launched, "failed": ForkFailed, "empty": TreeChecked,
    "reaped": Reaped, "containment": ContainmentFound,
}  # fmt: skip


def read_order(data: Mapping[str, Any]) -> Order:
    """Return the order in a packet of the daemon."""
    return _ORDERS.get(data.get("order"), UnknownOrder).from_json(data)


def read_message(data: Mapping[str, Any]) -> Message | None:
    """Return the reply or fact in a packet of the launcher; None for any other packet."""
    cls = _MESSAGES.get(data.get("reply") or data.get("fact"))
    return None if cls is None else cls.from_json(data)
