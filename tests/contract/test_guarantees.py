"""mosaicd-guarantees(7): each guarantee has its limits and existing tests."""

import ast
import re
from functools import cache

import pytest

from tests.contract import manual
from tests.harness.places import ROOT

PAGE = "mosaicd-guarantees.7"
NUMBERS = range(1, 15)
_TEST = re.compile(r"^(tests/\S+)::(\w+)$", re.MULTILINE)


def guarantees(text: str) -> dict[int, tuple[str, str]]:
    """Return title and source of each guarantee by its number; a guarantee is a numbered subsection."""
    body = re.split(r"^\.Sh ", text, flags=re.MULTILINE)
    found = next(part for part in body if part.startswith("GUARANTEES"))
    parts = re.split(r"^\.Ss (\d+)\. (.*)\n", found, flags=re.MULTILINE)[1:]
    return {
        int(number): (title, inner)
        for number, title, inner in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def listed_tests(text: str) -> list[tuple[str, str]]:
    """Return file and function of every test that a text lists."""
    return _TEST.findall(text)


@cache
def functions_of(file: str) -> frozenset[str]:
    """Return the test functions of a file that pytest collects; none if the file does not exist."""
    path = ROOT / file
    if not (path.is_file() and path.name.startswith("test_") and file.startswith("tests/")):
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def faults(text: str) -> list[str]:
    """Return the faults of a guarantee: no limits, no test, a test listed twice, or an unknown test."""
    found = [] if "\n.Em Limits :\n" in text else ["it has no limits"]
    named = listed_tests(text)
    if not named:
        found.append("it lists no test")
    if len(set(named)) < len(named):
        found.append("it lists a test twice")
    missing = [(file, name) for file, name in named if name not in functions_of(file)]
    return found + [f"{file}::{name} does not exist" for file, name in missing]


def test_the_page_has_thirteen_guarantees() -> None:
    """The guarantees have the numbers 1 to 13, in order."""
    assert list(guarantees(manual.source(PAGE))) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_guarantee_has_limits_and_three_tests(number: int) -> None:
    """Each guarantee has its limits and at least three tests, which all exist."""
    _, text = guarantees(manual.source(PAGE))[number]
    assert not faults(text)
    assert len(listed_tests(text)) >= 3


def test_every_test_on_the_page_is_checked() -> None:
    """Each mention of a test on the page belongs to a guarantee and is checked."""
    text = manual.source(PAGE)
    mentioned = re.findall(r"tests/\S+", text)
    assert len(mentioned) == sum(len(listed_tests(inner)) for _, inner in guarantees(text).values())


EXISTS = "tests/contract/test_guarantees.py::test_the_page_has_thirteen_guarantees\n"
LIMITS = "x\n.Em Limits :\ny\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LIMITS, "no test"),
        (EXISTS, "no limits"),
        (LIMITS + EXISTS + EXISTS, "twice"),
        (LIMITS + EXISTS.replace("thirteen", "no"), "does not exist"),
        (LIMITS + EXISTS.replace("guarantees.py", "unknown.py"), "does not exist"),
        (LIMITS + "tests/contract/sources.py::modules\n", "does not exist"),
    ],
)
def test_faults_of_a_guarantee_are_found(text: str, fault: str) -> None:
    """Missing limits, missing tests, repeated tests and unknown tests are faults."""
    assert any(fault in found for found in faults(text))
    assert not faults(LIMITS + EXISTS)
