"""From a decoded line to the reply: decode the params, check the role, call the handler, map the errors.

jsonrpcserver dispatches.  This module works around three properties of it.  Its validator is slow and loses
ids, so `envelope` checks messages before.  It handles the items of a batch concurrently, so it gets them one
by one and they take effect in their order.  It sends the text of any exception to the client, so it gets
only JsonRpcError.  No other module turns an exception into a JSON-RPC error.
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
from mosaicd.rpc.envelope import Envelope, Id, fault_of, id_of
from mosaicd.rpc.handlers import Handler

#: The longest reply; a verb whose result may be longer returns it in pages.
REPLY_LIMIT_BYTES = REQUEST_LIMIT_BYTES
#: Answered before the daemon is ready; all other methods wait.
EARLY = frozenset({"daemon.hello", "daemon.health", "worker.register", "worker.fact", "worker.advance"})

T = TypeVar("T")

_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter("caller", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("positional", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("params", inspect.Parameter.VAR_KEYWORD),
    ]
)


class _Methods(dict[str, Callable[..., Awaitable[Any]]]):
    """The dispatch table; an unknown name gives a method that raises MethodNotFound with similar names."""

    def __missing__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def unknown(caller: Caller, /, *positional: Any, **params: Any) -> Any:
            similar = _similar_names(name[:64], tuple(self))
            raise _jsonrpc_error(MethodNotFound(f"there is no method {name[:64]!r}", did_you_mean=similar))

        return unknown


@lru_cache(256)
def _similar_names(name: str, known: tuple[str, ...]) -> list[str]:
    return difflib.get_close_matches(name, known, 3, 0.5)


class Router:
    """Answer envelopes; raise ValueError unless each row of METHODS has a handler and each handler a row."""

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
            self._methods[name] = self._jsonrpc_method(row, table[name])

    # --- lines ---------------------------------------------------------------------------------------

    async def answer(self, envelope: Envelope, caller: Caller) -> bytes | None:
        """Return the reply as one line; None for notifications."""
        if not envelope.is_batch:
            return await self._answer_message(envelope.items[0], caller, REPLY_LIMIT_BYTES)
        replies: list[bytes] = []
        free_bytes = REPLY_LIMIT_BYTES - 2
        for item in envelope.items:
            reply = await self._answer_message(item, caller, free_bytes)
            if reply is not None:
                replies.append(reply.rstrip(b"\n"))
                free_bytes -= len(reply)
        return b"[" + b",".join(replies) + b"]\n" if replies else None

    def error_reply(self, error: MosaicError, id: Id = None) -> bytes:
        """Return the reply line with `error`."""
        return encode({"jsonrpc": "2.0", "error": _error_object(error), "id": id})

    async def _answer_message(self, message: Any, caller: Caller, limit_bytes: int) -> bytes | None:
        fault = fault_of(message)
        if fault is not None:
            return self.error_reply(
                InvalidRequest(f"this is not a JSON-RPC 2.0 request: {fault}"), id_of(message)
            )
        reply = await dispatch_to_serializable(
            message, self._methods, context=caller, deserializer=_unchanged, validator=_unchanged
        )
        if reply is None:
            return None
        try:
            line = encode(reply)
        except (ValueError, TypeError, RecursionError) as error:
            return self.error_reply(_internal_error(message["method"], error), message["id"])
        if len(line) > limit_bytes:
            too_large = TooLarge("the reply would be too large; ask for less", limit_bytes=limit_bytes)
            return self.error_reply(too_large, message["id"])
        return line

    # --- one request ---------------------------------------------------------------------------------

    def _jsonrpc_method(self, row: Method, handler: Handler) -> Callable[..., Awaitable[Any]]:
        """Return the coroutine function that jsonrpcserver calls for the method of `row`."""
        if not inspect.iscoroutinefunction(handler):
            raise ValueError(f"the handler of {row.name} is not a coroutine function")
        deadline_s = self._deadline_s(row)

        async def call(caller: Caller, /, *positional: Any, **params: Any) -> Any:
            try:
                if positional:
                    raise invalid("params", "must be an object, not a list: parameters have names")
                decoded: Any = validate.decode(row.params, params)
                return Success(await self._handle(deadline_s, row, handler, caller, decoded))
            except MosaicError as error:
                raise _jsonrpc_error(error) from None
            except Exception as error:  # noqa: BLE001 - a defect: logged once here, the daemon continues
                raise _jsonrpc_error(_internal_error(row.name, error)) from None

        call.__signature__ = _SIGNATURE  # type: ignore[attr-defined]  # so it is not inspected for each call
        return call

    def _deadline_s(self, row: Method) -> float | None:
        if row.deadline_s is None:
            return None
        timeouts = self._services.settings.timeouts
        return timeouts.submit_s if row.name == "run.submit" else timeouts.request_s

    async def _handle(
        self, deadline_s: float | None, row: Method, handler: Handler, caller: Caller, params: Any
    ) -> Json:
        """Authorise the caller and call the handler; raise TimedOut, or Draining if the daemon stops."""
        try:
            async with asyncio.timeout(deadline_s) as timer:
                if not self._services.ready.is_set() and row.name not in EARLY:
                    await self._unless_stopping(self._services.ready.wait())
                params = await self._authorise(row, caller, params)
                if row.name not in handlers.READING:
                    return await self._finish(row.name, handler(self._services, caller, params))
                if deadline_s is None:
                    return await self._unless_stopping(handler(self._services, caller, params))
                return await handler(self._services, caller, params)
        except TimeoutError:
            if not timer.expired():
                raise
            if not self._services.ready.is_set() and row.name not in EARLY:
                raise Unavailable("the daemon is still starting; try again") from None
            raise TimedOut(f"{row.name} took longer than {deadline_s:g} s", limit_s=deadline_s) from None

    async def _finish(self, method: str, work: Awaitable[Json]) -> Json:
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
        """Await `work`; raise Draining if `stop` is called first."""
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
        """End every reading request without a deadline, and every request that waits for reconcile."""
        self._stopping.set()

    async def finish(self, grace_s: float) -> None:
        """Wait for the handlers that write, at most `grace_s`."""
        if self._writing:
            await asyncio.wait(list(self._writing), timeout=grace_s)

    # --- roles ---------------------------------------------------------------------------------------

    async def _authorise(self, row: Method, caller: Caller, params: Any) -> Any:
        """Return `params`, for an owner with the full id of the run.

        Raises NotPermitted if the role is wrong.
        """
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
        """Raise Unauthenticated unless the caller is the run's owner and has its secret or token."""
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


def _unchanged(message: Any) -> Any:
    """Replace the deserializer and the validator of jsonrpcserver; `envelope` has done both."""
    return message


def _error_object(error: MosaicError) -> Json:
    return {"code": error.code, "message": error.message, "data": {"name": error.name, **error.data}}


def _jsonrpc_error(error: MosaicError) -> JsonRpcError:
    fields = _error_object(error)
    return JsonRpcError(fields["code"], fields["message"], fields["data"])


def _log_late_error(method: str, task: "asyncio.Task[Json]") -> None:
    """Log an internal error of a request whose client disconnected or whose deadline passed."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, MosaicError):
        _internal_error(method, error)


def _internal_error(method: str, error: BaseException) -> InternalError:
    """Log an internal error with its traceback, and return the error that the caller gets."""
    reference = secrets.token_hex(4)
    log.event(Catalogue.REQUEST_FAILED, error=error, method=method, reference=reference)
    sentence = f"the daemon has an internal error; its log has it as reference {reference}"
    return InternalError(sentence, reference=reference)
