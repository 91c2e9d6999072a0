"""mosaic-protocol(7) and the tables it describes: methods, params, roles, errors, the run object, limits."""

import importlib.util
import re
from dataclasses import fields
from types import ModuleType

import pytest

from mosaicd.config.settings import Limits
from mosaicd.core.fsm import Kind
from mosaicd.core.run import Progress, Run
from mosaicd.core.view import run_object
from mosaicd.protocol import errors, framing
from mosaicd.protocol.methods import METHODS, NOTIFICATIONS, Method
from mosaicd.protocol.states import CauseKind, Outcome, RunKind, State, Want
from mosaicd.rpc.validate import dataclass_of
from tests.contract import manual
from tests.harness.places import ROOT

PAGE = "mosaic-protocol.7"

by_method = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: str(method.name))


def section(heading: str) -> str:
    """Return the source of a section."""
    found = re.search(rf"^\.Sh {heading}\n(.*?)(?=^\.Sh )", manual.source(PAGE), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE} has no section {heading}"
    return found[1]


def items_of(text: str) -> dict[str, str]:
    """Return the text after each `.It Ic` line by its dotted name."""
    parts = re.split(r"^(?=\.It Ic |\.Ss )", text, flags=re.MULTILINE)
    return {part.split()[2]: part for part in parts if part.startswith(".It Ic ")}


def words_after(text: str, macro: str) -> set[str]:
    """Return the words between a macro and the next macro or the end of the line."""
    found = set()
    for line in text.splitlines():
        if line.startswith('.\\"') or not line.startswith("."):
            continue
        inside = False
        for word in line[1:].split():
            if re.fullmatch(r"[A-Z][a-z]", word):
                inside = word == macro
            elif inside and re.fullmatch(r"[A-Za-z][\w.]*", word):
                found.add(word)
    return found


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mandiagram", ROOT / "tools/mandiagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_items_are_exactly_the_methods() -> None:
    """The section METHODS has an item for each method, and no other."""
    assert set(items_of(section("METHODS"))) == set(METHODS)


@by_method
def test_each_item_has_exactly_the_params_of_its_method(method: Method) -> None:
    """The item of a method has all its parameters, and no other."""
    item = items_of(section("METHODS"))[method.name]
    assert words_after(item, "Fa") == {field.name for field in fields(dataclass_of(method.params))}


@by_method
def test_each_item_has_the_role_of_its_method(method: Method) -> None:
    """The line after a method has its role, and whether it streams."""
    line = items_of(section("METHODS"))[method.name].splitlines()[1]
    streams = " , streams" if method.streams else ""
    assert line == f".Pq {method.role}{streams}"


def test_the_items_are_exactly_the_notifications() -> None:
    """The section NOTIFICATIONS has an item for each notification, and no other."""
    assert set(items_of(section("NOTIFICATIONS"))) == set(NOTIFICATIONS)


def test_every_event_kind_is_listed() -> None:
    """The item run.event lists all kinds of events."""
    item = items_of(section("NOTIFICATIONS"))["run.event"]
    assert set(Kind) <= words_after(item, "Li")


def test_the_run_object_has_exactly_its_members() -> None:
    """The section THE RUN OBJECT has all members of the run object, and no other."""
    run = Run(
        run_id="x", owner_uid=1, owner="ada", kind=RunKind.COMMAND, name="n", command=("true",), digest="d",
        created_at=1.0,
    )  # fmt: skip
    listed = [line for line in section("THE RUN OBJECT").splitlines() if line.startswith(".It ")]
    assert set().union(*(words_after(line, "Li") for line in listed)) == set(
        run_object(run, Progress(), "/r")
    )


def test_states_wants_outcomes_and_causes_are_listed() -> None:
    """States, wants and outcomes are in THE RUN OBJECT, causes in mosaicd(8)."""
    words = words_after(section("THE RUN OBJECT"), "Li")
    assert {*State, *Want, *Outcome} <= words
    assert set(CauseKind) <= words_after(manual.source("mosaicd.8"), "Li")


def test_the_rows_are_exactly_the_errors() -> None:
    """The rows have name, code, exit code and meaning of each error, in the order of the code."""
    rows = re.findall(r"^\.It Li (\w+) Ta \\(-\d+) Ta (\d+) Ta (.*)$", section("ERROR REPLIES"), re.MULTILINE)
    assert rows == [
        (cls.name, str(code), str(errors.EXIT_CODES.get(cls.name, 125)), (cls.__doc__ or "").splitlines()[0])
        for code, cls in errors.ERRORS.items()
    ]


def test_the_limits_are_the_defaults() -> None:
    """The subsection Limits has the default limits."""
    limits = re.search(r"^\.Ss Limits\n(.*?)^\.S", manual.source(PAGE), re.MULTILINE | re.DOTALL)
    assert limits
    numbers = set(map(int, re.findall(r"\d+", limits[1])))
    default = Limits()
    assert {
        default.request_bytes, default.batch, default.in_flight, default.connections_per_user,
        default.write_buffer_bytes, framing.REQUEST_LIMIT_BYTES, framing.SMALL_LIMIT_BYTES,
        framing.CHUNK_LIMIT_BYTES,
    } <= numbers  # fmt: skip


@pytest.mark.parametrize("page", ["mosaicd.8", PAGE])
def test_generated_parts_are_up_to_date(page: str) -> None:
    """The generated parts of a page equal the output of tools/mandiagram.py."""
    source = manual.source(page)
    assert tool().filled(page, source) == source


def test_a_stale_part_is_generated_again() -> None:
    """A part with other text is replaced; a missing part is an error."""
    module = tool()
    source = manual.source("mosaicd.8")
    assert module.filled("mosaicd.8", source.replace("withdrawn", "withdrew")) == source
    with pytest.raises(ValueError, match="no part named errors"):
        module.filled(PAGE, "")
