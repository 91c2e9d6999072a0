"""Imports go one way: each room imports only the rooms in its row of ARCHITECTURE.md."""

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping

import pytest

from tests.contract.sources import PACKAGES, Module, all_modules, imports, modules, parse, uses
from tests.harness.places import ROOT


def rooms_of(text: str) -> dict[str, tuple[str, ...]]:
    """Return the rooms in the table of ARCHITECTURE.md, in its order, with the rooms that each imports."""
    table = re.search(r"^\| room \|.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert table, "ARCHITECTURE.md has no table of rooms"
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", table[0], re.MULTILINE)
    return {room: tuple(re.findall(r"`(\w+)`", imported)) for room, imported in rows}


#: Room of mosaicd -> the rooms that it may import.
ROOMS = {"": (), **rooms_of((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))}

#: Room -> the libraries that it may import besides the standard library.
LIBRARIES: dict[str, frozenset[str]] = {
    "mosaicd.shim": frozenset({"psutil"}),
    "mosaicd.launcher": frozenset({"psutil"}),
    "mosaicd.host": frozenset({"sdnotify"}),
    "mosaicd.rpc": frozenset({"jsonrpcserver", "msgspec", "aiofiles"}),
    "mosaic_tabular": frozenset({"numpy", "gymnasium"}),
}

#: Modules and names that the pure core must not use.
IMPURE = frozenset(
    """asyncio concurrent fcntl io logging multiprocessing os random secrets select selectors shutil
    signal socket sqlite3 subprocess sys tempfile threading time""".split()
)

IMPURE_NAMES = frozenset("open print input pathlib.Path pathlib.PosixPath datetime.datetime.now".split())

#: Modules that `mosaicctl --version` must not load; each would cost milliseconds.
HEAVY = frozenset(
    """asyncio concurrent.futures ctypes curses dataclasses decimal email http importlib.metadata inspect
    logging multiprocessing sqlite3 ssl subprocess tempfile tomllib unittest urllib.request
    msgspec psutil jsonrpcserver""".split()
)


#: Source before an import for types only.
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


def room_of(name: str) -> tuple[str, str]:
    """Return package and room of a dotted module: mosaicd and core for `mosaicd.core.fsm`."""
    package, _, rest = name.partition(".")
    return package, rest.split(".")[0]


KNOWN = frozenset(module.name for module in all_modules())


def direction_faults(module: Module, known: frozenset[str] = KNOWN) -> list[str]:
    """Return the imports of `module` that the table does not allow."""
    package, room = room_of(module.name)
    faults = []
    for imported in imports(module, known):
        target_package, target_room = room_of(imported.target)
        if target_package not in PACKAGES or (target_package, target_room) == (package, room):
            continue
        where = module.where(imported.line)
        if package == "mosaicd" and target_package == "mosaicd":
            if target_room == "" or target_room in ROOMS.get(room, ()):  # the bare package holds the version
                continue
            faults.append(f"{where}: {room} imports {target_room}")
        elif package == "mosaicctl" and target_package == "mosaicd":
            if target_room not in ("", "protocol"):
                faults.append(f"{where}: the client imports {imported.target}")
        elif package == "mosaicctl" or (package == "mosaic_tabular" and target_package == "mosaic_worker"):
            continue
        elif target_package != package:
            faults.append(f"{where}: {package} imports {target_package}")
    return faults


def library_faults(module: Module) -> list[str]:
    """Return the imports of libraries that the room of `module` must not use."""
    package, room = room_of(module.name)
    allowed = LIBRARIES.get(f"{package}.{room}", frozenset()) | LIBRARIES.get(package, frozenset())
    faults = []
    for imported in imports(module):
        top = imported.target.split(".")[0]
        if top in PACKAGES or top in sys.stdlib_module_names or top in allowed:
            continue
        faults.append(f"{module.where(imported.line)}: {module.name} imports the library {top}")
    return faults


def impurities(module: Module) -> list[str]:
    """Return the impure names in `module`; a PurePosixPath is pure, a Path is not."""
    imported = [(i.target, i.line) for i in imports(module) if i.target.split(".")[0] in IMPURE]
    named = [(name, line) for name, line in uses(module) if name in IMPURE_NAMES]
    return [f"{module.where(line)}: the core has {name}" for name, line in imported + named]


def test_every_room_is_known() -> None:
    """Every room of mosaicd is in the table, and every row of the table is a room."""
    found = {room_of(module.name)[1] for module in modules("mosaicd")}
    assert found == set(ROOMS)


def test_no_room_imports_a_room_below_it() -> None:
    """Each room imports only rooms above it in the table, so there is no circle."""
    order = list(ROOMS)
    below = [
        (room, imported)
        for room, row in ROOMS.items()
        for imported in row
        if order.index(imported) >= order.index(room)
    ]
    assert not below


def test_each_import_in_the_table_of_rooms_is_used() -> None:
    """The table has no import that the code does not have."""
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in modules("mosaicd"):
        targets = (room_of(imported.target) for imported in imports(module, KNOWN))
        used[room_of(module.name)[1]] |= {room for package, room in targets if package == "mosaicd"}
    assert {room: set(row) - used[room] for room, row in ROOMS.items() if set(row) - used[room]} == {}


def test_imports_go_one_way() -> None:
    """Each module imports only rooms in the row of its own room."""
    assert not [fault for module in all_modules() for fault in direction_faults(module)]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that all import each other, directly or indirectly."""
    reached = {name: _reached(name, graph) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(group) for group in groups if group)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """Return the modules that `start` imports, directly or indirectly."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def import_graph(sources: Iterable[Module], known: frozenset[str]) -> dict[str, set[str]]:
    """Return the modules that each module imports, type-only imports included."""
    return {
        module.name: {i.target for i in imports(module, known)} & known - {module.name} for module in sources
    }


def test_no_modules_import_each_other() -> None:
    """No modules import each other, directly or indirectly, also not for types."""
    assert not circles(import_graph(all_modules(), KNOWN))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"a": "import mosaicd.rpc.b", "b": "", "c": "from mosaicd.rpc import a, b"}, []),
        ({"a": "import mosaicd.rpc.b", "b": FOR_TYPES + "import mosaicd.rpc.a"}, ["a", "b"]),
        (
            {"a": "from . import b", "b": "from . import c", "c": "def f():\n    from . import a"},
            ["a", "b", "c"],
        ),
    ],
)
def test_circles_of_imports_are_found(texts: dict[str, str], expected: list[str]) -> None:
    """Circles of any length are found, also through imports for types."""
    sources = [parse(f"mosaicd.rpc.{name}", text) for name, text in texts.items()]
    found = circles(import_graph(sources, frozenset(module.name for module in sources)))
    assert found == ([[f"mosaicd.rpc.{name}" for name in expected]] if expected else [])


def test_libraries_stay_in_their_rooms() -> None:
    """Each room imports only the libraries in its row of LIBRARIES, besides the standard library."""
    assert not [fault for module in all_modules() for fault in library_faults(module)]


def test_the_core_is_pure() -> None:
    """The core does no I/O, reads no clock and uses no event loop."""
    core = [module for module in modules("mosaicd") if room_of(module.name)[1] == "core"]
    assert core
    assert not [fault for module in core for fault in impurities(module)]


def test_shim_and_launcher_do_not_import_asyncio() -> None:
    """Without asyncio, launcher and shims use little memory."""
    rooms = ("shim", "launcher", "protocol", "procfs", "safe_files", "catalogue", "journald")
    guilty = [
        module.where(i.line)
        for module in modules("mosaicd")
        if room_of(module.name)[1] in rooms
        for i in imports(module)
        if i.target.split(".")[0] in ("asyncio", "concurrent", "logging", "multiprocessing")
    ]
    assert not guilty


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mosaicd.core.fsm", "import mosaicd.store.registry"),
        ("mosaicd.core.fsm", "def f():\n    from ..store import registry"),
        ("mosaicd.protocol.states", "from mosaicd.core import run"),
        ("mosaicd.dispatch.dispatcher", "from mosaicd.recovery import reconcile"),
        ("mosaicd.dispatch.dispatcher", "from mosaicd.rpc import server"),
        ("mosaicd.shim.child", "from mosaicd import clock"),
        ("mosaicd.launcher", "from mosaicd import config"),
        ("mosaicctl.client", "from mosaicd.core import spec"),
        ("mosaicctl.client", "from mosaicd import config"),
        ("mosaic_worker.runtime", "from mosaicd.protocol import states"),
        ("mosaicd.store.registry", FOR_TYPES + "import mosaicd.rpc"),
    ],
)
def test_a_forbidden_import_is_reported(name: str, text: str) -> None:
    """direction_faults reports each of these imports."""
    known = KNOWN | {"mosaicd.recovery.reconcile", "mosaicd.rpc.server", "mosaicd.clock", "mosaicd.config"}
    assert direction_faults(parse(name, text), known)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mosaicd.dispatch.dispatcher", FOR_TYPES + "from mosaicd.shims import shim_watch"),
        ("mosaicd.dispatch.dispatcher", "from mosaicd.store import registry"),
        ("mosaicctl.client", "from mosaicd.protocol import framing"),
        ("mosaicd.rpc.verbs.pause", "from . import router\nfrom mosaicd.dispatch import dispatcher"),
    ],
)
def test_an_allowed_import_is_not_reported(name: str, text: str) -> None:
    """direction_faults accepts imports in the row of a room."""
    assert not direction_faults(
        parse(name, text), KNOWN | {"mosaicd.host.auth", "mosaicd.dispatch.dispatcher"}
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mosaicctl.render", "import rich"),
        ("mosaicd.core.spec", "import msgspec"),
        ("mosaic_worker.x", "import numpy"),
    ],
)
def test_a_forbidden_library_is_reported(name: str, text: str) -> None:
    """library_faults reports a library that the room must not import."""
    assert library_faults(parse(name, text))


@pytest.mark.parametrize("text", ["def f():\n    import time", "import pathlib as p\np.Path()", "open()"])
def test_an_impure_name_is_reported(text: str) -> None:
    """impurities reports impure names, also an import inside a function."""
    assert impurities(parse("mosaicd.core.x", text))


def loaded_by(statement: str) -> set[str]:
    """Return the modules that `statement` loads in a new interpreter."""
    code = f"import sys; before = set(sys.modules)\n{statement}\nprint('\\n'.join(set(sys.modules) - before))"
    root = PACKAGES["mosaicctl"]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


VERSION = """
import mosaicctl.__main__
try:
    sys.argv = ["mosaicctl", "--version"]
    mosaicctl.__main__.main()
except SystemExit:
    pass
"""


def test_the_client_loads_no_heavy_module_at_its_start() -> None:
    """`mosaicctl --version` loads none of the modules that would delay every call."""
    loaded = loaded_by(VERSION)
    assert "mosaicctl.__main__" in loaded
    assert not loaded & HEAVY


def test_the_launcher_loads_no_heavy_module() -> None:
    """The launcher, which forks shims, loads no event loop, no logging and no library of the daemon.

    A dataclass would load `inspect` and a dozen other modules (1.3 MB).
    """
    loaded = loaded_by("import mosaicd.launcher.__main__")
    heavy = {"asyncio", "logging", "sqlite3", "msgspec", "jsonrpcserver", "aiofiles", "ssl", "pathlib"}
    assert not loaded & (heavy | {"dataclasses", "inspect"})
