"""mosaicd-guarantees(7): each promise says where it ends and names tests that are there and attack it."""

import ast
import re
from functools import cache

import pytest

from tests.contract import manual
from tests.harness.places import ROOT

PAGE = "mosaicd-guarantees.7"
NUMBERS = range(1, 14)
_TEST = re.compile(r"^(tests/\S+)::(\w+)$", re.MULTILINE)


def promises(text: str) -> dict[int, tuple[str, str]]:
    """Number -> (title, source) of every promise: a subsection of GUARANTEES that begins with a number."""
    body = re.split(r"^\.Sh ", text, flags=re.MULTILINE)
    found = next(part for part in body if part.startswith("GUARANTEES"))
    parts = re.split(r"^\.Ss (\d+)\. (.*)\n", found, flags=re.MULTILINE)[1:]
    return {
        int(number): (title, inner)
        for number, title, inner in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file, function) of every test that a promise names."""
    return _TEST.findall(text)


@cache
def functions_of(file: str) -> frozenset[str]:
    """The test functions of a file that pytest would collect; none where there is no such file."""
    path = ROOT / file
    if not (path.is_file() and path.name.startswith("test_") and file.startswith("tests/")):
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def faults(text: str) -> list[str]:
    """Say what is wrong with a promise: no limits told, no test named, or one that does not exist."""
    found = [] if "\n.Em Limits :\n" in text else ["it does not say where it ends"]
    named = named_tests(text)
    if not named:
        found.append("it names no test")
    if len(set(named)) < len(named):
        found.append("it names a test twice")
    missing = [(file, name) for file, name in named if name not in functions_of(file)]
    return found + [f"{file}::{name} does not exist" for file, name in missing]


def test_every_guarantee_is_there() -> None:
    """The page has the thirteen promises, in order, and no other."""
    assert list(promises(manual.source(PAGE))) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_guarantee_is_attacked(number: int) -> None:
    """A promise tells its limits and names at least three tests, and every test that it names exists."""
    _, text = promises(manual.source(PAGE))[number]
    assert not faults(text)
    assert len(named_tests(text)) >= 3


def test_every_reference_is_read() -> None:
    """Nothing on the page that looks like a test escapes this file."""
    text = manual.source(PAGE)
    mentioned = re.findall(r"tests/\S+", text)
    assert len(mentioned) == sum(len(named_tests(inner)) for _, inner in promises(text).values())


EXISTS = "tests/contract/test_guarantees.py::test_every_guarantee_is_there\n"
LIMITS = "x\n.Em Limits :\ny\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LIMITS, "no test"),
        (EXISTS, "where it ends"),
        (LIMITS + EXISTS + EXISTS, "twice"),
        (LIMITS + EXISTS.replace("every", "no"), "does not exist"),
        (LIMITS + EXISTS.replace("guarantees.py", "promises.py"), "does not exist"),
        (LIMITS + "tests/contract/sources.py::modules\n", "does not exist"),
    ],
)
def test_an_empty_promise_is_seen(text: str, fault: str) -> None:
    """The test above can fail: no test, one that is gone, one in a file that pytest does not collect."""
    assert any(fault in found for found in faults(text))
    assert not faults(LIMITS + EXISTS)
