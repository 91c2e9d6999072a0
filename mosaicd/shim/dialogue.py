"""The shim's requests to the daemon: worker.register, worker.fact in order, worker.advance.

A fact is kept until the daemon acknowledges it.  After a lost connection the shim registers again, with its
complete status, and sends the facts that have no acknowledgement.  At most one request of facts waits for its
reply, and only the newest advance is sent, so a slow or absent daemon costs the shim no memory.
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

_ADVANCE_INTERVAL_S = 0.1  # at most one advance in this time
_HEARTBEAT_S = 5.0
_REPLY_TIMEOUT_S = 30.0
_RETRY_S = 0.2
_FACTS_BYTES = framing.SMALL_LIMIT_BYTES - 512

_REFUSAL_CODES = frozenset({errors.Unauthenticated.code, errors.Conflict.code, errors.NotFound.code})


class Dialogue:
    """The state of the protocol with the daemon; the attempt handles replies and commands in `on_*`."""

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
        self._sent_facts = 0  # number of facts in the request that waits for its reply
        self._request_id = 0
        self._pending_methods: dict[int, str] = {}
        self._reply_by: float | None = None
        self._retry_at: float | None = None
        self._advance_at = 0.0
        self._heartbeat_at = 0.0
        self._is_changed = False
        self._has_newer_command = False  # a command came before the reply to register, whose `want` is older

    @property
    def is_accepted(self) -> bool:
        """Return whether the daemon has accepted the register on this connection."""
        return self._token is not None

    @property
    def has_unacknowledged_facts(self) -> bool:
        """Return whether a fact waits for its acknowledgement."""
        return bool(self._facts)

    def add_facts(self, *facts: Json) -> None:
        """Add facts; they are sent in one request if they fit."""
        self._facts += facts
        self._send_facts()

    def note_change(self) -> None:
        """Note that cursors or values have changed: an advance is due soon."""
        self._is_changed = True

    def next_at(self) -> float | None:
        """Return when `tick` is due, or None."""
        moments = [at for at in (self._link.next_at(), self._reply_by, self._retry_at) if at is not None]
        if self._token:
            moments.append(self._advance_at if self._is_changed else self._heartbeat_at)
        return min(moments, default=None)

    def tick(self, now: float) -> None:
        """Connect, send requests again, or send an advance, if that is due."""
        if self._link.connect(now):
            self._register(now)
        if self._reply_by is not None and now >= self._reply_by:
            self.drop_connection(now)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            if not self._token:
                self._register(now)
            else:
                self._send_facts()
        if self._token:
            due = self._advance_at if self._is_changed else self._heartbeat_at
            if now >= due:
                self._send_advance(self._token, now)

    def drop_connection(self, now: float) -> None:
        """Close the connection, and forget which requests wait for a reply."""
        self._link.drop(now)
        self._is_changed |= self._token is not None  # the daemon may have died with the last values
        self._token = None
        self._pending_methods.clear()
        self._sent_facts = 0
        self._reply_by = self._retry_at = None

    def receive(self, now: float) -> None:
        """Handle the messages that have arrived."""
        messages = self._link.receive()
        if messages is None:
            self.drop_connection(now)
            return
        for message in messages:
            if "method" in message:
                self._handle_control(message)
            else:
                self._handle_reply(message, now)

    def finish(self, now: float) -> None:
        """Send the last advance, without waiting for the daemon to read it."""
        if self._token and self._is_changed:
            self._send_advance(self._token, now)
        self._link.flush()

    def _handle_control(self, message: Json) -> None:
        params = message.get("params")
        method = message.get("method")
        if isinstance(method, str) and method.startswith("control."):
            self._has_newer_command = True
            self._on_control(method.removeprefix("control."), params if isinstance(params, dict) else {})

    def _handle_reply(self, message: Json, now: float) -> None:
        method = self._pending_methods.pop(message.get("id", 0), None)
        if method is None:
            return
        self._reply_by = None
        error = message.get("error")
        error_code = error.get("code", 0) if isinstance(error, dict) else None
        if method == "worker.register":
            self._register_answered(message.get("result"), error_code, now)
        else:
            self._facts_answered(error_code, now)

    def _register_answered(self, result: object, error_code: int | None, now: float) -> None:
        """Handle the reply to register: the daemon accepts the shim, refuses it, or has another error."""
        if error_code in _REFUSAL_CODES:
            self._retry_at = (
                now + _RETRY_S
            )  # for a shim that stays: it has living processes, or no exit.json yet
            self._on_refused()
            return
        if not isinstance(result, dict) or not isinstance(result.get("session_token"), str):
            self._retry_at = now + _RETRY_S  # another error, for example `unavailable`: try again
            return
        reply = Registered.from_json({**result, "want": None} if self._has_newer_command else result)
        self._token = reply.session_token
        self._link.note_accepted()
        self._heartbeat_at = now + _HEARTBEAT_S
        self._on_registered(reply)
        self._send_facts()

    def _facts_answered(self, error_code: int | None, now: float) -> None:
        if error_code == errors.Unauthenticated.code:  # the session token is no longer valid: register again
            self.drop_connection(now)
            return
        if error_code is not None and error_code not in _REFUSAL_CODES:
            self._sent_facts = 0
            self._retry_at = now + _RETRY_S
            return
        del self._facts[: self._sent_facts]  # accepted, or refused finally
        self._sent_facts = 0
        self._send_facts()

    def _register(self, now: float) -> None:
        self._has_newer_command = False
        self._send_request("worker.register", self._registration(), now)
        crash_points.reach("shim.registering")

    def _send_facts(self) -> None:
        if not self._token or self._sent_facts or not self._facts:
            return
        facts = _fitting(self._facts)
        self._sent_facts = len(facts)
        request = Facts(run_id=self._run_id, session_token=self._token, facts=facts)
        self._send_request("worker.fact", request, time.monotonic())

    def _send_request(self, method: str, params: Register | Facts, now: float) -> None:
        self._request_id += 1
        self._pending_methods[self._request_id] = method
        self._reply_by = now + _REPLY_TIMEOUT_S
        self._link.send(framing.request(method, params.to_json(), self._request_id))

    def _send_advance(self, token: str, now: float) -> None:
        self._advance_at = now + _ADVANCE_INTERVAL_S
        self._heartbeat_at = now + _HEARTBEAT_S
        if self._link.has_backlog:
            return  # the daemon does not read: the next advance contains these values too
        self._is_changed = False
        params = self._advance(token).to_json()
        self._link.send(framing.request("worker.advance", params, None))


def registration(order: LaunchOrder, start_ticks: int, status: Status) -> Register:
    """Return the parameters of worker.register, with the status of the attempt."""
    return Register(
        proto_version=PROTOCOL_VERSION, schema_id=telemetry.SCHEMA_ID,
        schema_version=telemetry.SCHEMA_VERSION, run_id=order.run_id, attempt=order.attempt,
        secret=order.secret, worker_id=order.shown_worker_id, worker_kind=order.kind,
        supports_pause=order.cooperative, supports_checkpoint=order.supports_checkpoint, shim_pid=os.getpid(),
        shim_start_ticks=start_ticks, status=status.to_json(),
    )  # fmt: skip


def _fitting(facts: list[Json]) -> list[Json]:
    """Return as many of the first facts as fit into one small message, at least one."""
    size = 0
    for count, fact in enumerate(facts):
        size += len(framing.encode(fact))
        if count and size > _FACTS_BYTES:
            return facts[:count]
    return facts[:]
