"""Which function carries out which method: one file a verb, pairs share one.

A handler of a method in READING may be given up half-way, when its caller hangs up or its time is up.
All others write: once begun they are left to finish, whatever became of the caller.
"""

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

from mosaicd.protocol import Json
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services

#: The third argument is an object of the method's class in protocol/messages.
Handler = Callable[[Services, Caller, Any], Awaitable[Json]]

#: Method -> module and function below mosaicd.rpc.
FILES: Mapping[str, str] = {
    "daemon.hello": "hello.handle",
    "daemon.health": "health.handle",
    "daemon.inspect": "inspect.handle",
    "daemon.backup": "backup.handle",
    "daemon.import": "importing.handle",
    "daemon.reexec": "reexec.handle",
    "rpc.discover": "discover.handle",
    "run.submit": "submit.handle",
    "run.get": "get.handle",
    "run.list": "list.handle",
    "run.watch": "watch.handle",
    "run.unwatch": "watch.handle_unwatch",
    "run.logs": "logs.handle",
    "run.telemetry": "telemetry.handle",
    "run.pause": "pause.handle",
    "run.resume": "resume.handle",
    "run.stop": "stop.handle",
    "run.hold": "hold.handle",
    "run.release": "hold.handle_release",
    "run.set": "set.handle",
    "run.pin": "pin.handle",
    "run.unpin": "pin.handle_unpin",
    "run.prune": "prune.handle",
    "run.retry": "retry.handle",
    "run.explain": "explain.handle",
    "run.wait": "wait.handle",
    "worker.list": "workers.handle",
    "worker.register": "register.handle",
    "worker.fact": "fact.handle",
    "worker.advance": "advance.handle",
}

READING = frozenset(
    """daemon.hello daemon.health rpc.discover run.get run.list run.watch run.unwatch run.logs
    run.telemetry run.explain run.wait worker.list worker.advance""".split()
)


def load() -> dict[str, Handler]:
    """Return every method's handler."""
    found: dict[str, Handler] = {}
    for method, place in FILES.items():
        module, _, function = place.partition(".")
        found[method] = getattr(import_module(f"mosaicd.rpc.verbs.{module}"), function)
    return found
