"""Crash points: each name is used at one place in the code and listed in the manual."""

import ast
import re
from collections import Counter

import pytest

from mosaicd import crash_points
from tests.contract import manual
from tests.contract.sources import modules


def uses_of_points() -> Counter[str]:
    """Return how often the code calls `reach` with each name."""
    found: Counter[str] = Counter()
    for module in modules("mosaicd"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash_points.reach":
                found[ast.literal_eval(node.args[0])] += 1
    return found


def test_every_crash_point_is_used_once() -> None:
    """The code calls `reach` once with each name of the table, and with no other name."""
    assert uses_of_points() == dict.fromkeys(crash_points.POINTS, 1)


def test_the_manual_lists_every_crash_point() -> None:
    """mosaicd(8) lists the crash points with the moment of each."""
    section = re.search(r"^\.Sh CRASH POINTS\n(.*?)^\.Sh ", manual.source("mosaicd.8"), re.M | re.S)
    assert section
    listed = dict(re.findall(r"^\.It Ic (\S+)\n(.*)\.$", section[1], re.M))
    assert listed == {name: text[0].upper() + text[1:] for name, text in crash_points.POINTS.items()}


@pytest.mark.parametrize("spec", ["", "nowhere", "shim.locked:0", "shim.locked:x", "shim.locked:1001", ":3"])
def test_an_unknown_crash_point_is_refused(spec: str) -> None:
    """An unknown name or a wrong count raises an error."""
    with pytest.raises(ValueError, match=r"crash point|count"):
        crash_points.parse(spec)
