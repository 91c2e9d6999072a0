"""Telemetry lines of workers: the four dialects, their synonyms, and lines that are not valid JSON."""

import json
from typing import Any

import pytest

from mosaicd.protocol import telemetry
from mosaicd.protocol.telemetry import NotARecord, Recognised


def recognised(line: str | bytes) -> Recognised:
    record = telemetry.classify(line if isinstance(line, bytes) else line.encode())
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"event": "run_started", "payload": {}, "run_id": "r", "timestamp": 1.5}', "run_started"),
        ('{"event": "heartbeat", "payload": {}}', "heartbeat"),
        ('{"event": "paused", "run_id": "r"}', "paused"),
        ('{"type": "step", "step_index": 0}', "step"),
        ('{"type": "episode", "total_reward": 1}', "episode"),
        ('{"type": "error", "message": "no"}', "error"),
        ('{"event_type": "step", "step_index": 0}', "step"),
        ('{"event_type": "run_completed"}', "run_completed"),
        ('{"type": "run_started", "episodes": 3}', "run_started"),
        ('{"type": "artifact", "kind": "policy", "path": "p"}', "artifact"),
        ('{"event": "curriculum_changed", "payload": {}, "run_id": "r"}', "event"),
        ('{"event_type": "something", "run_id": "r"}', "event"),
        ('  {"type":"step"} \r', "step"),
    ],
)
def test_every_dialect_is_recognised(line: str, kind: str) -> None:
    """`event`, `type` or `event_type` has the kind; an unknown event of a run has the kind `event`."""
    assert recognised(line).kind == kind


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "Feature"}', '{"event": 3}', '{"event": "click"}', '{"loss": 0.5}', "{}",
        '{"type": ["step"]}',
    ],
)  # fmt: skip
def test_an_object_of_another_kind_is_ordinary_output(line: str) -> None:
    """Other JSON that a program prints is neither telemetry nor a fault."""
    assert telemetry.classify(line.encode()) is None


@pytest.mark.parametrize(
    "line",
    ['{"type": "step"', "{'type': 'step'}", '{"type": "step"} {"type": "step"}', "{", "[1]",
     '{"a":' * 100_000, '{"type": "step", "n": %s}' % ("9" * 5000)],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_a_broken_line_is_not_a_record(line: str) -> None:
    """A line that begins like an object and is none raises NotARecord."""
    with pytest.raises(NotARecord):
        telemetry.classify(line.encode())


def test_a_valid_object_is_kept_byte_for_byte() -> None:
    """The record keeps the order, spacing, escapes and long numbers of the worker's text."""
    text = '{ "type":"step" , "b":1.10, "a":"\\u00e4\\/", "n":12345678901234567890 }'
    record = recognised(text)
    assert record.text == text.encode()
    assert record.replaced is False


def test_bare_nan_and_infinity_become_strings() -> None:
    """NaN, infinity and numbers beyond a double become strings at any depth, so the file is strict JSON."""
    record = recognised('{"type":"episode","total_reward":NaN,"x":[Infinity,{"y":-Infinity}],"z":1e999}')
    assert json.loads(record.text, parse_constant=pytest.fail) == {
        "type": "episode", "total_reward": "NaN", "x": ["Infinity", {"y": "-Infinity"}], "z": "Infinity",
    }  # fmt: skip


def test_nan_within_a_string_is_not_changed() -> None:
    """Only the bare constants are replaced."""
    assert recognised('{"type":"step","note":"NaN and Infinity"}').data["note"] == "NaN and Infinity"


def test_invalid_utf8_is_replaced_and_marked() -> None:
    """A recognised line with invalid UTF-8 is kept with replacement characters."""
    record = recognised(b'{"type":"step","note":"\xff"}')
    assert record.replaced is True
    assert json.loads(record.text) == {"type": "step", "note": "\ufffd"}


@pytest.mark.parametrize(
    ("data", "step"),
    [
        ({"global_step": 7}, 7),
        ({"payload": {"num_timesteps": 8}}, 8),
        ({"metadata": {"total_steps": 9}}, 9),
        ({"metadata_json": '{"global_step": 10}'}, 10),
        ({"metadata_json": "step by step"}, None),
        ({"global_step": True}, None),
        ({"global_step": -1}, None),
        ({"global_step": float("nan")}, None),
        ({"global_step": 10**30}, None),
        ({"step_index": 4}, None),
    ],
)
def test_the_global_step_of_a_record(data: dict[str, Any], step: int | None) -> None:
    """The global step is at the top, in the payload or in the metadata; an invalid value is ignored."""
    assert telemetry.global_step(data) == step


def test_the_metrics_of_a_record() -> None:
    """Metrics are finite numbers with names; the payload of a heartbeat has them at its top level."""
    data = {"metrics": {"loss": 0.5, "ok": True, "bad": float("inf")}, "payload": {"fps": 60, "s": "x"}}
    assert telemetry.scalars("step", data) == {"loss": 0.5}
    assert telemetry.scalars("heartbeat", data) == {"loss": 0.5, "fps": 60}
