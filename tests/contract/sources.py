"""The parsed Python source of the project, for structural tests.

The code under test is not imported, so a module with a broken import is checked too.  Names are resolved:
`from os import kill as k; k()` is a use of `os.kill`.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.harness.places import ROOT

#: Import name of a package -> its parent directory.
PACKAGES = {
    "mosaicd": ROOT,
    "mosaicctl": ROOT,
    "mosaic_worker": ROOT / "workers/sdk",
    "mosaic_tabular": ROOT / "workers/tabular",
}


@dataclass(frozen=True)
class Import:
    """An imported module; `for_types` if the import is under `if TYPE_CHECKING`."""

    target: str
    line: int
    for_types: bool


@dataclass(frozen=True)
class Module:
    """A parsed source file and its dotted name."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def where(self, line: int) -> str:
        shown = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{shown}:{line}"


def parse(name: str, text: str, path: Path | None = None) -> Module:
    """Return `text` parsed as the module `name`."""
    where = path or ROOT / (name.replace(".", "/") + ".py")
    return Module(name, where, text, ast.parse(text))


def module_name(path: Path, base: Path) -> str:
    parts = list(path.relative_to(base).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


@cache
def modules(package: str) -> tuple[Module, ...]:
    """Return the modules of a package, sorted by path; an empty tuple if the package does not exist."""
    base = PACKAGES[package]
    return tuple(
        parse(module_name(path, base), path.read_text(encoding="utf-8"), path)
        for path in sorted((base / package).rglob("*.py"))
    )


def all_modules() -> tuple[Module, ...]:
    return tuple(module for package in PACKAGES for module in modules(package))


def python_files() -> list[Path]:
    """Return all Python files of the project, with tests and tools, without installed or built files."""
    left_out = {".venv", ".git", "build", "dist", "__pycache__", ".make"}
    return [
        path for path in sorted(ROOT.rglob("*.py")) if not left_out.intersection(path.relative_to(ROOT).parts)
    ]


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _walk(node: ast.AST, for_types: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    yield node, for_types
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        for statement in node.body:
            yield from _walk(statement, True)
        for statement in node.orelse:
            yield from _walk(statement, for_types)
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, for_types)


def _source_of(module: Module, node: ast.ImportFrom) -> str:
    """Return the absolute name of the module in a `from` import, with dots resolved."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - 1 if module.is_package else node.level
    base = parts[: len(parts) - up]
    return ".".join([*base, node.module] if node.module else base)


def imports(module: Module, known: frozenset[str] = frozenset()) -> list[Import]:
    """Return all imports of the file; `from a import b` imports `a.b` if that is a module in `known`."""
    found = []
    for node, for_types in _walk(module.tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, for_types) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = _source_of(module, node)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.append(Import(inner if inner in known else source, node.lineno, for_types))
    return found


def _bindings(module: Module) -> dict[str, str]:
    """Return the dotted name of each imported local name."""
    bound = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    bound[alias.asname] = alias.name
                else:
                    top = alias.name.split(".")[0]
                    bound[top] = top
        elif isinstance(node, ast.ImportFrom):
            source = _source_of(module, node)
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{source}.{alias.name}"
    return bound


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else None
    return None


def uses(module: Module) -> list[tuple[str, int]]:
    """Return every dotted name in the code with its line, imports resolved.

    A method of an expression is `.method`: `self._process.kill` also gives `.kill`.
    """
    bound = _bindings(module)
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            dotted = _dotted(node)
            if dotted:
                first, _, rest = dotted.partition(".")
                if first in bound:
                    found.append((f"{bound[first]}.{rest}", node.lineno))
                    continue
            found.append((f".{node.attr}", node.lineno))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.append((bound.get(node.id, node.id), node.lineno))
    return found
