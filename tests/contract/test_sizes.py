"""Limits for the length of files and functions."""

import ast
from pathlib import Path

import pytest

from tests.contract.sources import python_files
from tests.harness.places import ROOT

FILE_LINES = 400
FUNCTION_LINES = 60


def long_functions(text: str) -> list[tuple[str, int]]:
    """Return (name, lines) of each function over the limit; decorators are not counted."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                found.append((node.name, lines))
    return found


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_within_their_limits(path: Path) -> None:
    """A file has at most 400 lines, a function at most 60."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    assert not long_functions(text)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_a_docstring(path: Path) -> None:
    """A module with code begins with a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


def test_a_long_function_is_reported() -> None:
    """long_functions reports a function of 61 lines and none of 60."""
    body = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    assert long_functions(body) == [("f", FUNCTION_LINES + 1)]
    assert not long_functions("def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1))
