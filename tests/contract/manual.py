"""The manual pages for tests: source, rendered text, sections, items and flags.

Pages are mdoc(7).  Sections are found by their headings, items by `.It` lines, flags in the rendered text.
"""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.harness.places import ROOT

MAN = ROOT / "man"
_OVERSTRIKE = re.compile(r".\x08")
_LONG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_SHORT = re.compile(r"(?<![\w-])-[A-Za-z](?![\w-])")


def need(program: str) -> str:
    """Return the path of a program; if it is missing, fail in CI and skip the test elsewhere."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed (Debian: apt install mandoc groff-base)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def pages() -> list[Path]:
    """Return the manual pages, sorted by name."""
    return sorted(MAN.glob("*.[1-9]"))


def source(page: str) -> str:
    return (MAN / page).read_text(encoding="utf-8")


@cache
def rendered(page: str) -> str:
    """Return the page as a terminal shows it, without bold and underline, in lines that break no flag."""
    argv = [need("mandoc"), "-T", "ascii", "-O", "width=500", str(MAN / page)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return _OVERSTRIKE.sub("", shown)


@cache
def sections(page: str) -> dict[str, str]:
    """Return the rendered text below each heading of both levels."""
    found: dict[str, list[str]] = {}
    here: list[str] = []
    for line in rendered(page).splitlines():
        if re.match(r"(   )?\S", line):
            here = found.setdefault(line.strip(), [])
        else:
            here.append(line)
    return {heading: "\n".join(lines) for heading, lines in found.items()}


def long_flags(text: str) -> set[str]:
    return set(_LONG.findall(text))


def flags(text: str) -> set[str]:
    """Return the long and short flags in a text."""
    return long_flags(text) | set(_SHORT.findall(text))


def items(page: str) -> dict[str, set[str]]:
    """Return for each heading the names in its `.It` lines, without mdoc macros."""
    found: dict[str, set[str]] = {}
    here: set[str] = set()
    for line in source(page).splitlines():
        words = line.split()
        if words[:1] in ([".Sh"], [".Ss"]):
            here = found.setdefault(" ".join(words[1:]).strip('"'), set())
        elif words[:1] == [".It"]:
            here |= {word.strip('"\\&') for word in words[1:] if not re.fullmatch(r"[A-Z][a-z]", word)}
    return found
