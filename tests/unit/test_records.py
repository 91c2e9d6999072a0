"""Records: writer and reader agree, and a value that a user may have written has its type or is dropped."""

import json
from typing import Any

import pytest

from mosaicd.protocol.framing import encode
from mosaicd.protocol.records import untrusted
from mosaicd.protocol.records.attempt import Checkpoint, EnforcedLimits, Exit, Launch, OutOfMemory, Started
from mosaicd.protocol.records.attempt import Stop as StopRecord
from mosaicd.protocol.records.orders import LaunchOrder, Limits, Process, TeardownOrder
from mosaicd.protocol.records.packets import (
    CheckTree,
    ContainmentFound,
    ForkFailed,
    ForkShim,
    Launched,
    Reaped,
    TreeChecked,
    UnknownOrder,
    read_message,
    read_order,
)
from mosaicd.protocol.records.record import Record
from mosaicd.protocol.records.reports import Status
from tests.unit.test_hostile_shim import HOSTILE

ORDER = LaunchOrder(
    run_id="r", attempt=1, nonce="n", secret="s", socket="/s", run_dir="/r", attempt_dir="/r/attempt-1",
    files_dir="/r/files", kind="worker", argv=("a", "b"), cwd="/", environment={"A": "b"}, slots=(0, 2),
    limits=Limits(max_steps=3),
)  # fmt: skip
TEARDOWN = TeardownOrder(run_id="r", attempt=1, attempt_dir="/a", given_up=Process(pid=3, start_ticks=4))
STATUS = Status(
    spawned=Started(pid=1, limits=EnforcedLimits(tasks=5)),
    frozen=True,
    frozen_at=2.0,
    stop=StopRecord(kind="by_user", forced=False),
    exit=Exit(exit_code=0, checkpoint=Checkpoint(path="/c", at=1.0), oom=OutOfMemory(victims=1)),
)


def through_json(record: Record) -> Any:
    return json.loads(json.dumps(record.to_json(), allow_nan=False))


@pytest.mark.parametrize("record", [ORDER, TEARDOWN, STATUS, Launch(slots=(1,)), Exit(metrics={"a": 1.5})])
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    """Records within records and tuples come back; keys that this version does not know are ignored."""
    data = through_json(record)
    assert type(record).from_json({**data, "a_later_key": 1}) == record


@pytest.mark.parametrize(
    "packet",
    [
        ForkShim(order="teardown", run_id="r", attempt=2, id=1),
        CheckTree(run_id="r", shim_pid=4, id=2),
        Launched(id=1, pid=3, start_ticks=4),
        ForkFailed(id=None, error="why"),
        TreeChecked(id=2, run_id="r", empty=False, pids=(7,)),
        Reaped(pid=3, run_id="r", attempt=2, status=9),
        ContainmentFound(word="cgroup-v2", enforces=("memory",)),
    ],
)
def test_a_packet_is_read_by_its_name(packet: Record) -> None:
    """What daemon and launcher send each other is known by `order`, `reply` or `fact`."""
    data = through_json(packet)
    assert (read_order(data) if "order" in data else read_message(data)) == packet


def test_a_packet_of_another_name_is_known_as_such() -> None:
    """An order that the launcher does not know is answered by its id; other messages mean nothing."""
    assert read_order({"order": "dance", "id": 5, "run_id": "r"}) == UnknownOrder(id=5)
    assert read_message({"fact": "dance"}) is None


def test_a_required_field_that_is_missing_is_no_default() -> None:
    """An order without its directory is refused; a field with a default may be absent."""
    data = through_json(ORDER)
    del data["limits"], data["slots"]
    read = LaunchOrder.from_json(data)
    assert (read.limits, read.slots) == (Limits(), ())
    del data["attempt_dir"]
    with pytest.raises(TypeError, match="attempt_dir"):
        LaunchOrder.from_json(data)


def test_what_is_absent_and_what_is_null() -> None:
    """Every key is written, null without a value, but for those that a record omits; `known` has no null."""
    data = STATUS.to_json()
    assert data["started_at"] is None and "thawed_at" not in data and data["frozen_at"] == 2.0
    assert data["spawned"]["limits"] == {"tasks": 5} and data["spawned"]["cgroup"] is None
    assert data["exit"]["oom"] == {"victims": 1}
    assert STATUS.known()["exit"] == {
        "exit_code": 0, "oom": {"victims": 1}, "checkpoint": {"path": "/c", "at": 1.0},
    }  # fmt: skip


def is_of(declared: Any, value: Any) -> bool:
    """Whether a value has its declared type, within the bounds of a reader that trusts nothing."""
    if value is None:
        return True
    if isinstance(value, Record):
        return isinstance(value, declared) and all(
            is_of(kind, getattr(value, name)) for name, kind in type(value).TYPES.items()
        )
    if declared is int:
        return type(value) is int and 0 <= value <= untrusted.MOST_COUNT
    if declared is float:
        return type(value) is float and 0 <= value <= untrusted.MOST_SECONDS
    if declared in (str, bool):
        return type(value) is declared and len(str(value)) <= untrusted.TEXT_LIMIT
    return isinstance(value, tuple | dict)


@pytest.mark.parametrize("cls", [Launch, Started, Exit, Status])
def test_nothing_of_a_wrong_type_comes_through(cls: type[Record]) -> None:
    """Each hostile value in each place: the record has values of its types alone, and can be encoded."""
    for value in HOSTILE:
        whole = untrusted.read(cls, value)
        assert is_of(cls, whole)
        for name in cls.TYPES:
            record = untrusted.read(cls, {name: value})
            assert is_of(cls, record)
            encode(record.to_json())


def test_what_cannot_be_used_has_no_values() -> None:
    """A file that is no object, or holds nothing that is known, says nothing."""
    nothing: list[Any] = [None, [], "x", {}, {"another": 1}, {"exit_code": "0"}]
    for data in nothing:
        assert not untrusted.read(Exit, data).has_values
    assert untrusted.read(Exit, {"exit_code": 0}).has_values
