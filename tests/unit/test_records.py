"""Records: reading restores what was written; a value of a wrong type in a user's file is dropped."""

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
TEARDOWN = TeardownOrder(run_id="r", attempt=1, attempt_dir="/a", given_up_shim=Process(pid=3, start_ticks=4))
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
    """Nested records and tuples are restored; unknown keys are ignored."""
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
        ContainmentFound(kind="cgroup-v2", enforces=("memory",)),
    ],
)
def test_a_packet_is_read_by_its_name(packet: Record) -> None:
    """The class of a packet between daemon and launcher follows from `order`, `reply` or `fact`."""
    data = through_json(packet)
    assert (read_order(data) if "order" in data else read_message(data)) == packet


def test_an_unknown_packet_is_recognised() -> None:
    """An unknown order keeps its id for the reply; an unknown message is None."""
    assert read_order({"order": "dance", "id": 5, "run_id": "r"}) == UnknownOrder(id=5)
    assert read_message({"fact": "dance"}) is None


def test_a_record_without_a_required_field_is_refused() -> None:
    """An order without attempt_dir raises TypeError; fields with a default may be absent."""
    data = through_json(ORDER)
    del data["limits"], data["slots"]
    read = LaunchOrder.from_json(data)
    assert (read.limits, read.slots) == (Limits(), ())
    del data["attempt_dir"]
    with pytest.raises(TypeError, match="attempt_dir"):
        LaunchOrder.from_json(data)


def test_a_key_without_a_value_is_null_or_omitted() -> None:
    """A key without a value is null, unless its record omits it; known() has no null."""
    data = STATUS.to_json()
    assert data["started_at"] is None and "thawed_at" not in data and data["frozen_at"] == 2.0
    assert data["spawned"]["limits"] == {"tasks": 5} and data["spawned"]["cgroup"] is None
    assert data["exit"]["oom"] == {"victims": 1}
    assert STATUS.known()["exit"] == {
        "exit_code": 0, "oom": {"victims": 1}, "checkpoint": {"path": "/c", "at": 1.0},
    }  # fmt: skip


def is_of(declared: Any, value: Any) -> bool:
    """Return whether a value has its declared type, within the limits for untrusted values."""
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
def test_values_of_a_wrong_type_are_dropped(cls: type[Record]) -> None:
    """With any hostile value in any place, the record has only values of its types and can be encoded."""
    for value in HOSTILE:
        record_of_value = untrusted.read(cls, value)
        assert is_of(cls, record_of_value)
        for name in cls.TYPES:
            record = untrusted.read(cls, {name: value})
            assert is_of(cls, record)
            encode(record.to_json())


def test_a_record_without_a_usable_value_has_none() -> None:
    """A file that is no object, or has no known key with a valid value, gives a record without values."""
    unusable: list[Any] = [None, [], "x", {}, {"another": 1}, {"exit_code": "0"}]
    for data in unusable:
        assert not untrusted.read(Exit, data).has_values
    assert untrusted.read(Exit, {"exit_code": 0}).has_values
