"""The manual pages as tests see them: source, rendered text, sections, and what each documents.

Pages are mdoc(7).  A section is found by its heading, an item by its `.It` line, a flag by how it is
rendered: what a reader sees is what is compared with the program.
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
    """Return the path of a program; its absence is a failure in CI and a skip elsewhere."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed (Debian: apt install mandoc groff-base)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def pages() -> list[Path]:
    """Every manual page of the tree, by name."""
    return sorted(MAN.glob("*.[1-9]"))


def source(page: str) -> str:
    return (MAN / page).read_text(encoding="utf-8")


@cache
def rendered(page: str) -> str:
    """The page as a terminal shows it, without bold and underline, in lines too long to break a flag."""
    argv = [need("mandoc"), "-T", "ascii", "-O", "width=500", str(MAN / page)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return _OVERSTRIKE.sub("", shown)


@cache
def sections(page: str) -> dict[str, str]:
    """Heading (of either level) -> the rendered text below it, up to the next heading of either level."""
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
    """Every flag that a text mentions, long and short."""
    return long_flags(text) | set(_SHORT.findall(text))


def items(page: str) -> dict[str, set[str]]:
    """Heading -> the names that `.It` lines below it define (mdoc macros left out)."""
    found: dict[str, set[str]] = {}
    here: set[str] = set()
    for line in source(page).splitlines():
        words = line.split()
        if words[:1] in ([".Sh"], [".Ss"]):
            here = found.setdefault(" ".join(words[1:]).strip('"'), set())
        elif words[:1] == [".It"]:
            here |= {word.strip('"\\&') for word in words[1:] if not re.fullmatch(r"[A-Z][a-z]", word)}
    return found
