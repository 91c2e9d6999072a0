"""What the shim says to the daemon: register, facts in their order, coalesced advances.

A fact stays until the daemon has acknowledged it; after a loss the shim registers again (its status
repeats everything) and sends what was not acknowledged.  One request of facts is under way at a time,
and an advance is only ever the newest one, so a daemon that is slow or away costs no memory.
"""

import os
import time
from collections.abc import Callable

from mosaicd import crash_points
from mosaicd.protocol import PROTOCOL_VERSION, Json, errors, framing, telemetry
from mosaicd.protocol.records.control import Registered
from mosaicd.protocol.records.orders import LaunchOrder
from mosaicd.protocol.records.reports import Advance, Facts, Register, Status
from mosaicd.shim.link import Link

_QUIET_S = 0.1  # at most one advance in this time
_BEAT_S = 5.0
_REPLY_TIMEOUT_S = 30.0
_RETRY_S = 0.2
_FACTS_BYTES = framing.SMALL_LIMIT_BYTES - 512

_REFUSED = frozenset({errors.Unauthenticated.code, errors.Conflict.code, errors.NotFound.code})


class Dialogue:
    """The state of the conversation; `on_*` are the shim's answers to it."""

    def __init__(
        self,
        link: Link,
        run_id: str,
        registration: Callable[[], Register],
        advance: Callable[[str], Advance],
        on_registered: Callable[[Registered], None],
        on_refused: Callable[[], None],
        on_control: Callable[[str, Json], None],
    ) -> None:
        self._link = link
        self._run_id = run_id
        self._registration = registration
        self._advance = advance
        self._on_registered = on_registered
        self._on_refused = on_refused
        self._on_control = on_control
        self._token: str | None = None
        self._facts: list[Json] = []
        self._under_way = 0  # how many of the first facts are in the request that waits for its reply
        self._request_id = 0
        self._asked: dict[int, str] = {}
        self._reply_by: float | None = None
        self._retry_at: float | None = None
        self._advance_at = 0.0
        self._beat_at = 0.0
        self._is_changed = False
        self._is_overtaken = False  # a wish came before the reply to our register, which knows an older one

    @property
    def is_accepted(self) -> bool:
        """Whether the daemon knows this connection."""
        return self._token is not None

    @property
    def has_unacknowledged_facts(self) -> bool:
        return bool(self._facts)

    def say(self, *facts: Json) -> None:
        """Add facts, to be sent together where they can."""
        self._facts += facts
        self._send_facts()

    def note_change(self) -> None:
        """Cursors or values moved: an advance is due soon."""
        self._is_changed = True

    def next_at(self) -> float | None:
        """When `tick` has something to do."""
        moments = [at for at in (self._link.next_at(), self._reply_by, self._retry_at) if at is not None]
        if self._token:
            moments.append(self._advance_at if self._is_changed else self._beat_at)
        return min(moments, default=None)

    def tick(self, now: float) -> None:
        """Connect, repeat, beat: whatever is due."""
        if self._link.connect(now):
            self._register(now)
        if self._reply_by is not None and now >= self._reply_by:
            self.lose(now)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            if not self._token:
                self._register(now)
            else:
                self._send_facts()
        if self._token:
            due = self._advance_at if self._is_changed else self._beat_at
            if now >= due:
                self._send_advance(self._token, now)

    def lose(self, now: float) -> None:
        """The connection is gone, or of no use."""
        self._link.drop(now)
        self._token = None
        self._asked.clear()
        self._under_way = 0
        self._reply_by = self._retry_at = None

    def receive(self, now: float) -> None:
        """Take what has arrived."""
        messages = self._link.receive()
        if messages is None:
            self.lose(now)
            return
        for message in messages:
            if "method" in message:
                self._take_control(message)
            else:
                self._take_reply(message, now)

    def finish(self, now: float) -> None:
        """Send the last advance, as far as it goes without waiting."""
        if self._token and self._is_changed:
            self._send_advance(self._token, now)
        self._link.flush()

    def _take_control(self, message: Json) -> None:
        params = message.get("params")
        method = message.get("method")
        if isinstance(method, str) and method.startswith("control."):
            self._is_overtaken = True
            self._on_control(method.removeprefix("control."), params if isinstance(params, dict) else {})

    def _take_reply(self, message: Json, now: float) -> None:
        method = self._asked.pop(message.get("id", 0), None)
        if method is None:
            return
        self._reply_by = None
        error = message.get("error")
        code = error.get("code", 0) if isinstance(error, dict) else None
        if method == "worker.register":
            self._registered(message.get("result"), code, now)
        else:
            self._facts_answered(code, now)

    def _registered(self, result: object, code: int | None, now: float) -> None:
        if code in _REFUSED:
            self._retry_at = now + _RETRY_S
            self._on_refused()
            return
        if not isinstance(result, dict) or not isinstance(result.get("session_token"), str):
            self._retry_at = now + _RETRY_S  # an unavailable daemon: it says so and we ask again
            return
        reply = Registered.from_json({**result, "want": None} if self._is_overtaken else result)
        self._token = reply.session_token
        self._link.settle()
        self._beat_at = now + _BEAT_S
        self._on_registered(reply)
        self._send_facts()

    def _facts_answered(self, code: int | None, now: float) -> None:
        if code == errors.Unauthenticated.code:  # a newer register, or a daemon that forgot: start over
            self.lose(now)
            return
        if code is not None and code not in _REFUSED:
            self._under_way = 0
            self._retry_at = now + _RETRY_S
            return
        del self._facts[: self._under_way]  # accepted, or refused for good
        self._under_way = 0
        self._send_facts()

    def _register(self, now: float) -> None:
        self._is_overtaken = False
        self._ask("worker.register", self._registration(), now)
        crash_points.reach("shim.registering")

    def _send_facts(self) -> None:
        if not self._token or self._under_way or not self._facts:
            return
        facts = _fitting(self._facts)
        self._under_way = len(facts)
        told = Facts(run_id=self._run_id, session_token=self._token, facts=facts)
        self._ask("worker.fact", told, time.monotonic())

    def _ask(self, method: str, params: Register | Facts, now: float) -> None:
        self._request_id += 1
        self._asked[self._request_id] = method
        self._reply_by = now + _REPLY_TIMEOUT_S
        self._link.send(framing.request(method, params.to_json(), self._request_id))

    def _send_advance(self, token: str, now: float) -> None:
        self._advance_at = now + _QUIET_S
        self._beat_at = now + _BEAT_S
        if self._link.has_backlog:
            return  # the daemon does not read: the next advance will say all of it
        self._is_changed = False
        params = self._advance(token).to_json()
        self._link.send(framing.request("worker.advance", params, None))


def registration(order: LaunchOrder, start_ticks: int, status: Status) -> Register:
    """Return the handshake of this shim, with the status of its attempt."""
    return Register(
        proto_version=PROTOCOL_VERSION, schema_id=telemetry.SCHEMA_ID,
        schema_version=telemetry.SCHEMA_VERSION, run_id=order.run_id, attempt=order.attempt,
        secret=order.secret, worker_id=order.shown_worker_id, worker_kind=order.kind,
        supports_pause=order.cooperative, supports_checkpoint=order.cooperative, shim_pid=os.getpid(),
        shim_start_ticks=start_ticks, status=status.to_json(),
    )  # fmt: skip


def _fitting(facts: list[Json]) -> list[Json]:
    """Return the first facts, as many as one small message holds and at least one."""
    size = 0
    for count, fact in enumerate(facts):
        size += len(framing.encode(fact))
        if count and size > _FACTS_BYTES:
            return facts[:count]
    return facts[:]
