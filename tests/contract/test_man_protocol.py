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
    """The source of one section."""
    found = re.search(rf"^\.Sh {heading}\n(.*?)(?=^\.Sh )", manual.source(PAGE), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE} has no section {heading}"
    return found[1]


def described(text: str) -> dict[str, str]:
    """Dotted name -> what follows its `.It Ic` line, up to the next such line or subsection."""
    parts = re.split(r"^(?=\.It Ic |\.Ss )", text, flags=re.MULTILINE)
    return {part.split()[2]: part for part in parts if part.startswith(".It Ic ")}


def marked(text: str, macro: str) -> set[str]:
    """Every word that stands after a macro, up to the next macro or the end of the line."""
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


def test_every_method_has_an_item_and_none_else() -> None:
    """METHODS and the items of the section METHODS are the same names."""
    assert set(described(section("METHODS"))) == set(METHODS)


@by_method
def test_params_are_described(method: Method) -> None:
    """An item names every parameter of its method, and nothing that it does not take."""
    item = described(section("METHODS"))[method.name]
    assert marked(item, "Fa") == {field.name for field in fields(dataclass_of(method.params))}


@by_method
def test_roles_are_described(method: Method) -> None:
    """The line under a method says its role, and whether it streams."""
    line = described(section("METHODS"))[method.name].splitlines()[1]
    streams = " , streams" if method.streams else ""
    assert line == f".Pq {method.role}{streams}"


def test_every_notification_has_an_item_and_none_else() -> None:
    """NOTIFICATIONS and the items of the section NOTIFICATIONS are the same names."""
    assert set(described(section("NOTIFICATIONS"))) == set(NOTIFICATIONS)


def test_every_event_kind_is_named() -> None:
    """The kinds of ledger events are listed, all of them."""
    item = described(section("NOTIFICATIONS"))["run.event"]
    assert set(Kind) <= marked(item, "Li")


def test_the_run_object_is_described() -> None:
    """Every member that the daemon sends has its place in THE RUN OBJECT, and no other has."""
    run = Run(
        run_id="x", owner_uid=1, owner="ada", kind=RunKind.COMMAND, name="n", command=("true",), digest="d",
        created_at=1.0,
    )  # fmt: skip
    listed = [line for line in section("THE RUN OBJECT").splitlines() if line.startswith(".It ")]
    assert set().union(*(marked(line, "Li") for line in listed)) == set(run_object(run, Progress(), "/r"))


def test_the_vocabularies_are_described() -> None:
    """States, wants and outcomes are listed with the run object; causes in mosaicd(8)."""
    words = marked(section("THE RUN OBJECT"), "Li")
    assert {*State, *Want, *Outcome} <= words
    assert set(CauseKind) <= marked(manual.source("mosaicd.8"), "Li")


def test_every_error_has_a_row_and_none_else() -> None:
    """Name, code, exit code and meaning of each error are those of the code, in its order."""
    rows = re.findall(r"^\.It Li (\w+) Ta \\(-\d+) Ta (\d+) Ta (.*)$", section("ERROR REPLIES"), re.MULTILINE)
    assert rows == [
        (cls.name, str(code), str(errors.EXIT_CODES.get(cls.name, 125)), (cls.__doc__ or "").splitlines()[0])
        for code, cls in errors.ERRORS.items()
    ]


def test_limits_are_told() -> None:
    """The numbers in Limits are those that hold by default."""
    told = re.search(r"^\.Ss Limits\n(.*?)^\.S", manual.source(PAGE), re.MULTILINE | re.DOTALL)
    assert told
    numbers = set(map(int, re.findall(r"\d+", told[1])))
    default = Limits()
    assert {
        default.request_bytes, default.batch, default.in_flight, default.connections_per_user,
        default.write_buffer_bytes, framing.REQUEST_LIMIT_BYTES, framing.SMALL_LIMIT_BYTES,
        framing.CHUNK_LIMIT_BYTES,
    } <= numbers  # fmt: skip


@pytest.mark.parametrize("page", ["mosaicd.8", PAGE])
def test_generated_places_are_current(page: str) -> None:
    """What tools/mandiagram.py writes into a page is what stands there."""
    source = manual.source(page)
    assert tool().filled(page, source) == source


def test_a_stale_place_is_seen() -> None:
    """The comparison can fail: a part with other text is generated again, a missing one is an error."""
    module = tool()
    source = manual.source("mosaicd.8")
    assert module.filled("mosaicd.8", source.replace("withdrawn", "withdrew")) == source
    with pytest.raises(ValueError, match="no part named errors"):
        module.filled(PAGE, "")
