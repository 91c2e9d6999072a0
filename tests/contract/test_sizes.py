"""Files and functions stay small enough to be read in one go."""

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
def test_a_file_is_readable(path: Path) -> None:
    """No file passes 400 lines and no function 60; above that something wants to be split."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    assert not long_functions(text)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_owns(path: Path) -> None:
    """Every module that holds code begins with a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


def test_a_long_function_is_seen() -> None:
    """The test of sizes can fail: 61 lines are reported and 60 are not."""
    body = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    assert long_functions(body) == [("f", FUNCTION_LINES + 1)]
    assert not long_functions("def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1))
