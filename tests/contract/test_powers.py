"""Each power (a group of dangerous calls) is used only by the modules that own it."""

import ast
import re
from dataclasses import dataclass

import pytest

from tests.contract.sources import Module, all_modules, imports, parse, uses


@dataclass(frozen=True)
class Power:
    """Names of dangerous calls, and the only modules or packages that may use them."""

    name: str
    names: str  # regular expression over resolved dotted names, matched in full
    owners: tuple[str, ...]
    specimen: str  # code that must be reported in any other module


POWERS = (
    Power(
        "send a signal",
        r"os\.(kill|killpg|abort)|signal\.(pidfd_send_signal|raise_signal|pthread_kill)",
        (
            "mosaicd.shim.child",
            "mosaicd.crash_points",
            "mosaicctl.timed_look",  # its own child only, as below
            "mosaic_worker.control",
            "mosaic_worker.discovery",
        ),
        "from os import killpg as k\nk(1, 9)",
    ),
    Power(
        "end a process by its object",  # in the shim, the object is the attempt
        r".*\.(send_signal|terminate|kill)",
        (
            "mosaicd.shim",
            "mosaicd.shims.launcher_client",
            "mosaicd.upkeep.discovery",
            "mosaicd.host.reexec",
            "mosaic_worker.control",
            "mosaic_worker.discovery",
        ),
        "def f(process):\n    process.kill()",
    ),
    Power(
        "start a process",
        r"subprocess\..*|multiprocessing\..*|os\.(fork|forkpty|posix_spawnp?|exec[lv]p?e?|spawn.*|system|popen)"
        r"|pty\..*|asyncio\.create_subprocess_.*|asyncio\.subprocess\..*|.*\.(subprocess_exec|subprocess_shell)",
        (
            "mosaicd.shim.child",
            "mosaicd.launcher",
            "mosaicd.shims.launcher_client",
            "mosaicd.upkeep.discovery",
            "mosaicd.host.reexec",
            "mosaicctl.offline",
            "mosaicctl.timed_look",
            "mosaic_worker.discovery",
        ),
        "import os\nos.fork()",
    ),
    Power(
        "reap a process",
        r"os\.(wait|waitpid|waitid|wait3|wait4)",
        ("mosaicd.shim.child", "mosaicd.launcher", "mosaicd.shims.launcher_client", "mosaicctl.timed_look"),
        "import os as o\no.waitpid(-1, 0)",
    ),
    Power(
        "switch identity",
        r"os\.(set(re|res|e)?[ug]id|setgroups|initgroups)",
        ("mosaicd.launcher",),
        "import os\nos.setuid(0)",
    ),
    Power("open the registry", r"sqlite3(\..*)?", ("mosaicd.store",), "import sqlite3"),
    Power(
        "read the clock",
        r"time\.(time|monotonic|perf_counter|process_time|clock_gettime)(_ns)?"
        r"|time\.(gmtime|localtime)|datetime\.(datetime|date)\.(now|utcnow|today)",
        ("mosaicd.clock", "mosaicd.launcher", "mosaicd.shim", "mosaicctl", "mosaic_worker", "mosaic_tabular"),
        "from time import monotonic\nmonotonic()",
    ),
    Power(
        "read the environment",
        r"os\.(environb?|getenvb?)(\..*)?",
        ("mosaicd.config", "mosaicd.launcher", "mosaicctl", "mosaic_worker", "mosaic_tabular"),
        "import os\nos.environ.get('X')",
    ),
    Power("speak JSON-RPC", r"jsonrpcserver(\..*)?", ("mosaicd.rpc",), "import jsonrpcserver"),
    Power(
        "tell systemd", r"sdnotify(\..*)?", ("mosaicd.host.systemd",), "from sdnotify import SystemdNotifier"
    ),
)

#: SQL that changes rows.
WRITES = re.compile(
    r"^\s*(INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|REPLACE\s+INTO)\s", re.IGNORECASE
)


def is_owner(module: Module, power: Power) -> bool:
    return any(module.name == owner or module.name.startswith(owner + ".") for owner in power.owners)


def violations(module: Module, power: Power) -> list[str]:
    """Return the uses of a power in `module`, unless the module is an owner."""
    if is_owner(module, power):
        return []
    names = re.compile(power.names)
    mentioned = uses(module) + [(i.target, i.line) for i in imports(module) if not i.for_types]
    return sorted({f"{module.where(line)}: {name}" for name, line in mentioned if names.fullmatch(name)})


@pytest.mark.parametrize("power", POWERS, ids=lambda power: power.name)
def test_a_power_has_one_owner(power: Power) -> None:
    """Only owners use a power, also under another name."""
    assert not [violation for module in all_modules() for violation in violations(module, power)]


@pytest.mark.parametrize("power", POWERS, ids=lambda power: power.name)
def test_every_owner_exists(power: Power) -> None:
    """Every owner of a power is an existing module or package."""
    names = {module.name for module in all_modules()}
    assert not [
        owner
        for owner in power.owners
        if not any(name == owner or name.startswith(owner + ".") for name in names)
    ]


@pytest.mark.parametrize("power", POWERS, ids=lambda power: power.name)
def test_a_violation_is_reported(power: Power) -> None:
    """The specimen of each power is reported in a module that owns no power."""
    assert violations(parse("mosaicd.core.specimen", power.specimen), power)


def strings(module: Module) -> list[tuple[str, int]]:
    return [
        (node.value, node.lineno)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_only_the_store_writes_rows() -> None:
    """SQL that changes rows is in mosaicd/store only."""
    violations_found = [
        f"{module.where(line)}: {text.split()[0]}"
        for module in all_modules()
        if not module.name.startswith("mosaicd.store")
        for text, line in strings(module)
        if WRITES.match(text)
    ]
    assert not violations_found


#: The modules that may catch every exception.
BLIND = {"mosaicd.rpc.router", "mosaicctl.__main__"}


def test_nothing_swallows_every_exception() -> None:
    """Only the router, which replies with a reference, and the entry point of mosaicctl, which exits with
    125, have a blind `except`.

    An `except` that raises again or calls on_fatal is not blind.
    """
    violations_found = []
    for module in all_modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "everything"
            is_blind = re.search(r"\b(everything|Exception|BaseException)\b", caught)
            raises = any(
                isinstance(inner, ast.Raise)
                or (isinstance(inner, ast.Attribute) and inner.attr.lstrip("_") == "on_fatal")
                for inner in ast.walk(node)
            )
            if is_blind and not raises and module.name not in BLIND:
                violations_found.append(f"{module.where(node.lineno)}: except {caught}")
    assert not violations_found
