"""The handler of each method: one file in `verbs` for each verb, or for a pair such as pin and unpin.

The handler of a method in READING is cancelled when its client disconnects or its deadline passes.
Every other handler may write, and runs to its end in both cases.
"""

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

from mosaicd.protocol import Json
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services

#: The third argument is an object of the method's class in protocol/messages.
Handler = Callable[[Services, Caller, Any], Awaitable[Json]]

#: Method -> MODULE.FUNCTION in mosaicd.rpc.verbs.
HANDLERS: Mapping[str, str] = {
    "daemon.hello": "hello.handle",
    "daemon.health": "health.handle",
    "daemon.inspect": "inspect.handle",
    "daemon.backup": "backup.handle",
    "daemon.import": "importing.handle",
    "daemon.reexec": "reexec.handle",
    "rpc.discover": "discover.handle",
    "input.open": "input.handle_open",
    "input.write": "input.handle_write",
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
    "run.leftovers": "leftovers.handle",
    "run.explain": "explain.handle",
    "run.environment": "environment.handle",
    "run.wait": "wait.handle",
    "worker.list": "workers.handle",
    "worker.register": "register.handle",
    "worker.fact": "fact.handle",
    "worker.advance": "advance.handle",
}

READING = frozenset(
    """daemon.hello daemon.health rpc.discover run.get run.list run.watch run.unwatch run.logs
    run.telemetry run.leftovers run.explain run.environment run.wait worker.list worker.advance""".split()
)


def load_handlers() -> dict[str, Handler]:
    """Import the modules of the verbs; return the handler of every method, by the method's name."""
    loaded: dict[str, Handler] = {}
    for method, path in HANDLERS.items():
        module, _, function = path.partition(".")
        loaded[method] = getattr(import_module(f"mosaicd.rpc.verbs.{module}"), function)
    return loaded
