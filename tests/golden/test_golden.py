"""The sentences of the program are those of the golden files."""

import difflib

import pytest

from tests.golden.files import FILES, read


@pytest.mark.parametrize("name", FILES)
def test_the_program_prints_what_the_golden_file_has(name: str) -> None:
    """A changed sentence is reviewed: write the files with `make golden`, and read the diff."""
    changed = difflib.unified_diff(
        read(name).splitlines(),
        FILES[name]().splitlines(),
        f"tests/golden/{name}",
        "the program",
        n=2,
        lineterm="",
    )
    difference = "\n".join(changed)
    if difference:
        pytest.fail(f"{difference}\n\nIf the change is meant: make golden", pytrace=False)
