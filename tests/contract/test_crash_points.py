"""Crash points: every name stands at one place in the code and in the manual, and the other way round."""

import ast
import re
from collections import Counter

import pytest

from mosaicd import crash_points
from tests.contract import manual
from tests.contract.sources import modules


def reached() -> Counter[str]:
    """How often each name is given to `reach`."""
    found: Counter[str] = Counter()
    for module in modules("mosaicd"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash_points.reach":
                found[ast.literal_eval(node.args[0])] += 1
    return found


def test_every_point_is_one_place() -> None:
    """A name that is in the table is passed in one place of the code, and no other name is passed."""
    assert reached() == dict.fromkeys(crash_points.POINTS, 1)


def test_the_manual_names_every_point() -> None:
    """mosaicd(8) lists the points, each with the moment that it stands for."""
    section = re.search(r"^\.Sh CRASH POINTS\n(.*?)^\.Sh ", manual.source("mosaicd.8"), re.M | re.S)
    assert section
    told = dict(re.findall(r"^\.It Ic (\S+)\n(.*)\.$", section[1], re.M))
    assert told == {name: text[0].upper() + text[1:] for name, text in crash_points.POINTS.items()}


@pytest.mark.parametrize("spec", ["", "nowhere", "shim.locked:0", "shim.locked:x", "shim.locked:1001", ":3"])
def test_a_wrong_name_is_refused(spec: str) -> None:
    """A drill that could never happen is refused, not run without a crash."""
    with pytest.raises(ValueError, match=r"crash point|count"):
        crash_points.parse(spec)
