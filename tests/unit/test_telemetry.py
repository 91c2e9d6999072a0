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


def normal(kind: str, /, **data: Any) -> dict[str, Any]:
    view = telemetry.normalise({"seq": 4, "at": 2.0, "kind": kind, "data": data})
    assert (view.pop("seq"), view.pop("at"), view.pop("kind")) == (4, 2.0, kind)
    return view


def test_a_step_of_the_first_dialect() -> None:
    """JSON in strings is decoded, nanoseconds become seconds, and unknown fields are kept."""
    view = normal(
        "step", type="step", run_id="r", agent_id="a", episode_index=2, step_index=5, action_json="3",
        observation_json='{"x": [1]}', reward=0.5, terminated=False, truncated=True,
        ts_unix_ns=1_500_000_000, frame_ref="f", render_hint_json="{}",
    )  # fmt: skip
    assert view == {
        "run_id": "r", "agent_id": "a", "episode": 2, "step": 5, "action": 3, "observation": {"x": [1]},
        "reward": 0.5, "terminated": False, "truncated": True, "time": 1.5, "render": {},
        "extra": {"frame_ref": "f"},
    }  # fmt: skip


def test_a_step_of_a_language_model() -> None:
    """Texts stay texts, the number of the episode comes from its id, and a time without a zone is UTC."""
    view = normal(
        "step", type="step", episode_id="01AR-ep000012", step_index=0, observation="a door", action="go",
        reward=0.0, llm_input_tokens=10, timestamp="1970-01-01T00:00:02.5",
    )  # fmt: skip
    assert (view["episode"], view["observation"], view["action"], view["time"]) == (12, "a door", "go", 2.5)
    assert view["extra"] == {"episode_id": "01AR-ep000012", "llm_input_tokens": 10}


def test_a_step_of_the_older_dialect() -> None:
    """`episode`, `step`, `state` and `next_state` become the names of the first dialect."""
    view = normal("step", type="step", episode=1, step=2, action=0, state=5, next_state=6, q_before=0.1)
    assert (view["episode"], view["step"], view["observation"], view["next_observation"]) == (1, 2, 5, 6)
    assert view["extra"] == {"q_before": 0.1}


@pytest.mark.parametrize(
    "data",
    [
        {"type": "episode", "episode_index": 3, "total_reward": 4, "steps": 15, "metadata_json": '{"k": 1}'},
        {"event_type": "episode", "episode": 3, "reward": 4.0, "num_steps": 15, "metadata": {"k": 1}},
        {"type": "episode", "episode": 3.0, "return": 4.0, "length": 15, "metadata": '{"k": 1}'},
    ],
)
def test_episodes_of_every_dialect(data: dict[str, Any]) -> None:
    """All dialects give the same names for return, length and metadata."""
    assert normal("episode", **data) == {
        "episode": 3, "return": 4.0, "steps": 15, "metadata": {"k": 1}, "time": None, "extra": {},
    }  # fmt: skip


def test_lifecycle_fields_are_under_payload() -> None:
    """Fields of a lifecycle event are under `payload`, whether the worker nests them or not."""
    nested = normal("run_started", event="run_started", run_id="r", timestamp=5, payload={"seed": 1})
    flat = normal("run_started", type="run_started", run_id="r", timestamp=5, seed=1)
    assert nested == flat == {"run_id": "r", "time": 5.0, "event": "run_started", "payload": {"seed": 1}}


def test_artifacts_errors_and_gaps() -> None:
    """Other kinds of records have common names too."""
    assert normal("artifact", type="artifact", kind="video", path="v.mp4")["artifact"] == "video"
    assert normal("error", type="error", error="no door")["message"] == "no door"
    assert normal("gap", stream="stdout", lost_bytes=5) == {"time": None, "stream": "stdout", "lost_bytes": 5}
    assert normal("event", event="lesson", payload={"n": 1})["event"] == "lesson"


@pytest.mark.parametrize("data", [{}, {"timestamp": "yesterday"}, {"timestamp": [1]}, {"metadata_json": "{"}])
def test_invalid_values_never_raise(data: dict[str, Any]) -> None:
    """A record of any kind without a valid time has time None."""
    for kind in ("step", "episode", "artifact", "error", "run_started", "event", "gap"):
        assert normal(kind, **data)["time"] is None
