"""From a decoded line to the reply: params, deadline, role, handler, errors.

jsonrpcserver dispatches; what it leaves open is closed here.  Its own validator is slow and forgets ids,
so messages are checked before; it runs the items of a batch at once, so they are handed over one by one
(a batch is one request in flight, and its items take effect in the order they were written); it puts the
text of any exception on the wire, so none reaches it but JsonRpcError.  This is the only place that turns an
exception into a JSON-RPC error.
"""

import asyncio
import difflib
import inspect
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from jsonrpcserver import JsonRpcError, Success
from jsonrpcserver.async_main import dispatch_to_serializable

from mosaicd import log
from mosaicd.log import Catalogue
from mosaicd.protocol import Json
from mosaicd.protocol.errors import (
    Draining,
    InternalError,
    InvalidRequest,
    MethodNotFound,
    MosaicError,
    NotFound,
    NotPermitted,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from mosaicd.protocol.faults import invalid
from mosaicd.protocol.framing import REQUEST_LIMIT_BYTES, encode
from mosaicd.protocol.methods import METHODS, Method, Role
from mosaicd.rpc import handlers, validate
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.envelope import Envelope, Id, fault_of, known_id
from mosaicd.rpc.handlers import Handler

#: The longest reply; whatever may be longer is paged by its verb.
REPLY_LIMIT_BYTES = REQUEST_LIMIT_BYTES
#: Answered before the daemon is ready; all other methods wait.
EARLY = frozenset({"daemon.hello", "daemon.health", "worker.register", "worker.fact", "worker.advance"})

T = TypeVar("T")

_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter("caller", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("listed", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("params", inspect.Parameter.VAR_KEYWORD),
    ]
)


class _Methods(dict[str, Callable[..., Awaitable[Any]]]):
    """The dispatch table; an unknown name gives a method that says so, with what was probably meant."""

    def __missing__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def unknown(caller: Caller, /, *listed: Any, **params: Any) -> Any:
            near = _close_to(name[:64], tuple(self))
            raise _wire(MethodNotFound(f"there is no method {name[:64]!r}", did_you_mean=near))

        return unknown


@lru_cache(256)
def _close_to(name: str, known: tuple[str, ...]) -> list[str]:
    return difflib.get_close_matches(name, known, 3, 0.5)


class Router:
    """Answers envelopes.  Every row of METHODS has a handler and every handler a row, else ValueError."""

    def __init__(
        self,
        services: Services,
        table: Mapping[str, Handler] | None = None,
        rows: Mapping[str, Method] = METHODS,
    ) -> None:
        self._services = services
        self._writing: set[asyncio.Task[Json]] = set()
        self._stopping = asyncio.Event()
        table = handlers.load_handlers() if table is None else table
        if table.keys() != rows.keys():
            raise ValueError(f"methods without a handler or row: {sorted(table.keys() ^ rows.keys())}")
        self._methods = _Methods()
        for name, row in rows.items():
            self._methods[name] = self._method(row, table[name])

    # --- lines ---------------------------------------------------------------------------------------

    async def answer(self, envelope: Envelope, caller: Caller) -> bytes | None:
        """Return the reply as one line; None where nothing is to be said (notifications)."""
        if not envelope.is_batch:
            return await self._answer_one(envelope.items[0], caller, REPLY_LIMIT_BYTES)
        replies: list[bytes] = []
        left = REPLY_LIMIT_BYTES - 2
        for item in envelope.items:
            reply = await self._answer_one(item, caller, left)
            if reply is not None:
                replies.append(reply.rstrip(b"\n"))
                left -= len(reply)
        return b"[" + b",".join(replies) + b"]\n" if replies else None

    def refusal(self, error: MosaicError, id: Id = None) -> bytes:
        """Return the reply that tells of `error`."""
        return encode({"jsonrpc": "2.0", "error": _error_object(error), "id": id})

    async def _answer_one(self, message: Any, caller: Caller, limit_bytes: int) -> bytes | None:
        fault = fault_of(message)
        if fault is not None:
            return self.refusal(
                InvalidRequest(f"this is not a JSON-RPC 2.0 request: {fault}"), known_id(message)
            )
        reply = await dispatch_to_serializable(
            message, self._methods, context=caller, deserializer=_as_is, validator=_as_is
        )
        if reply is None:
            return None
        try:
            line = encode(reply)
        except (ValueError, TypeError, RecursionError) as error:
            return self.refusal(_mistake(message["method"], error), message["id"])
        if len(line) > limit_bytes:
            too_large = TooLarge("the reply would be too large; ask for less", limit_bytes=limit_bytes)
            return self.refusal(too_large, message["id"])
        return line

    # --- one request ---------------------------------------------------------------------------------

    def _method(self, row: Method, handler: Handler) -> Callable[..., Awaitable[Any]]:
        """Return what jsonrpcserver calls for `row`."""
        if not inspect.iscoroutinefunction(handler):
            raise ValueError(f"the handler of {row.name} is not a coroutine function")
        deadline_s = self._deadline_s(row)

        async def call(caller: Caller, /, *listed: Any, **params: Any) -> Any:
            try:
                if listed:
                    raise invalid("params", "must be an object, not a list: parameters have names")
                asked: Any = validate.decode(row.params, params)
                return Success(await self._within(deadline_s, row, handler, caller, asked))
            except MosaicError as error:
                raise _wire(error) from None
            except Exception as error:  # noqa: BLE001 - ours: logged once here, the daemon lives
                raise _wire(_mistake(row.name, error)) from None

        call.__signature__ = _SIGNATURE  # type: ignore[attr-defined]  # spares inspecting it each time
        return call

    def _deadline_s(self, row: Method) -> float | None:
        if row.deadline_s is None:
            return None
        timeouts = self._services.settings.timeouts
        return timeouts.submit_s if row.name == "run.submit" else timeouts.request_s

    async def _within(
        self, deadline_s: float | None, row: Method, handler: Handler, caller: Caller, params: Any
    ) -> Json:
        """Authorise and carry out in time; TimedOut otherwise, Draining when the daemon stops first."""
        try:
            async with asyncio.timeout(deadline_s) as timer:
                if not self._services.ready.is_set() and row.name not in EARLY:
                    await self._unless_stopping(self._services.ready.wait())
                params = await self._authorise(row, caller, params)
                if row.name not in handlers.READING:
                    return await self._to_the_end(row.name, handler(self._services, caller, params))
                if deadline_s is None:
                    return await self._unless_stopping(handler(self._services, caller, params))
                return await handler(self._services, caller, params)
        except TimeoutError:
            if not timer.expired():
                raise
            if not self._services.ready.is_set() and row.name not in EARLY:
                raise Unavailable("the daemon is still starting; try again") from None
            raise TimedOut(f"{row.name} took longer than {deadline_s:g} s", limit_s=deadline_s) from None

    async def _to_the_end(self, method: str, work: Awaitable[Json]) -> Json:
        """Return the result of `work`; if this coroutine is cancelled, `work` still runs to its end.

        The client's disconnect and the deadline of the request cancel it.  A handler that writes must
        complete its changes in both cases.
        """
        task: asyncio.Task[Json] = asyncio.ensure_future(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_log_late_error, method))
            raise

    async def _unless_stopping(self, work: Awaitable[T]) -> T:
        waiting: asyncio.Future[T] = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            raise Draining("the daemon is stopping; try again")
        finally:
            waiting.cancel()
            stopping.cancel()

    def stop(self) -> None:
        """Give up every request without a deadline."""
        self._stopping.set()

    async def finish(self, grace_s: float) -> None:
        """Wait for what writes, for at most `grace_s`."""
        if self._writing:
            await asyncio.wait(list(self._writing), timeout=grace_s)

    # --- who may -------------------------------------------------------------------------------------

    async def _authorise(self, row: Method, caller: Caller, params: Any) -> Any:
        """Return `params` with its run's canonical id; NotPermitted for whatever the table does not allow."""
        match row.role:
            case Role.ANY:
                return params
            case Role.OWNER:
                run = await self._services.runs.find(caller, params.run_id)
                return replace(params, run_id=run.run_id)
            case Role.SHIM:
                self._check_shim(caller, params)
                return params
            case Role.ADMIN if caller.is_admin:
                return params
        raise NotPermitted(f"your role does not allow {row.name}")

    def _check_shim(self, caller: Caller, params: Any) -> None:
        """Raise Unauthenticated unless the caller proves to be the shim of a live run of its own user."""
        run = self._services.registry.live.get(params.run_id)
        if run is None:
            raise NotFound(f"there is no live run {params.run_id}")
        if caller.uid != run.owner_uid:
            raise Unauthenticated("a shim must be a process of its run's owner")
        if hasattr(params, "session_token"):
            self._services.auth.check_token(run.run_id, params.session_token)
        else:
            self._services.auth.check_secret(run, params.attempt, params.secret)


# --- errors ------------------------------------------------------------------------------------------


def _as_is(message: Any) -> Any:
    """Stand in for jsonrpcserver's deserializer and validator: both is done by then (see envelope)."""
    return message


def _error_object(error: MosaicError) -> Json:
    return {"code": error.code, "message": error.message, "data": {"name": error.name, **error.data}}


def _wire(error: MosaicError) -> JsonRpcError:
    told = _error_object(error)
    return JsonRpcError(told["code"], told["message"], told["data"])


def _log_late_error(method: str, task: "asyncio.Task[Json]") -> None:
    """Log an internal error of a request whose client disconnected or whose deadline passed."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, MosaicError):
        _mistake(method, error)


def _mistake(method: str, error: BaseException) -> InternalError:
    """Log a mistake of ours with its traceback, and return what the caller may know of it."""
    reference = secrets.token_hex(4)
    log.event(Catalogue.REQUEST_FAILED, error=error, method=method, reference=reference)
    sentence = f"the daemon has an internal error; its log has it as reference {reference}"
    return InternalError(sentence, reference=reference)
