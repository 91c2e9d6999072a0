"""Telemetry lines: exact fields, strict JSON for any value, complete lines from many threads."""

import io
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mosaic_worker import Heartbeat, TelemetryEmitter
from mosaic_worker.jsonlines import dumps
from mosaic_worker.telemetry import LIFECYCLE_EVENTS

from tests.workers.lines import Line, checked


def printed(stream: io.StringIO) -> list[Line]:
    return [checked(line.encode()) for line in stream.getvalue().splitlines(keepends=True)]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def emitter(stream: io.StringIO) -> TelemetryEmitter:
    return TelemetryEmitter("run-1", stream=stream)


@pytest.mark.parametrize("name", LIFECYCLE_EVENTS)
def test_lifecycle_line_has_the_documented_fields(
    name: str, emitter: TelemetryEmitter, stream: io.StringIO
) -> None:
    """Each lifecycle method prints {event, run_id, timestamp, payload}."""
    getattr(emitter, name)({"episodes": 3})
    (line,) = printed(stream)
    assert (line["event"], line["run_id"], line["payload"]) == (name, "run-1", {"episodes": 3})


def test_step_line_has_the_documented_fields(stream: io.StringIO) -> None:
    """A step has the known fields; action and observation are JSON texts; extra fields are kept."""
    TelemetryEmitter("r", "w-1", stream=stream).step(
        episode_index=0, step_index=4, action=np.int64(3), observation={"grid": np.eye(2)}, reward=-1.0,
        terminated=False, truncated=False, policy_label="p", backend="b", global_step=5,
    )  # fmt: skip
    (line,) = printed(stream)
    assert (line["type"], line["action_json"], line["global_step"], line["worker_id"]) == (
        "step",
        "3",
        5,
        "w-1",
    )
    assert json.loads(line["observation_json"]) == {"grid": [[1.0, 0.0], [0.0, 1.0]]}


def test_episode_line_has_the_documented_fields(emitter: TelemetryEmitter, stream: io.StringIO) -> None:
    """An episode has the known fields; metadata is a JSON text."""
    emitter.episode(
        episode_index=7,
        total_reward=4.0,
        steps=15,
        terminated=True,
        truncated=False,
        metadata={"epsilon": 0.1},
    )
    (line,) = printed(stream)
    assert (line["total_reward"], line["steps"], line["agent_id"]) == (4.0, 15, "agent_0")
    assert json.loads(line["metadata_json"]) == {"epsilon": 0.1}


def test_run_failed_has_the_exception(emitter: TelemetryEmitter, stream: io.StringIO) -> None:
    """run_failed has the text, type and traceback of the exception."""
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError as error:
        emitter.run_failed({"where": "update"}, exc_info=error)
    payload = printed(stream)[0]["payload"]
    assert (payload["error"], payload["error_type"], payload["where"]) == (
        "by zero",
        "ZeroDivisionError",
        "update",
    )
    assert "test_telemetry.py" in payload["traceback"]


class Unknown:
    """A type that JSON does not know."""

    def __repr__(self) -> str:
        return "Unknown()"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), '"NaN"'),
        ([float("inf"), -float("inf")], '["Infinity","-Infinity"]'),
        (np.float32(0.5), "0.5"),
        (np.float64("nan"), '"NaN"'),
        (np.arange(3), "[0,1,2]"),
        (np.bool_(True), "true"),
        ({1: Path("a/b"), None: {2}, (1, 2): b"x\xff"}, '{"1":"a/b","null":[2],"(1, 2)":"x\\ufffd"}'),
        (Unknown(), '"Unknown()"'),
        ("\ud800\u2028é", '"\\ud800\\u2028\\u00e9"'),
    ],
)
def test_any_value_is_strict_json(value: Any, text: str) -> None:
    """NaN, arrays, paths, sets, bytes, lone surrogates and objects are written; none raises."""
    assert dumps(value) == text


def test_cyclic_value_is_cut() -> None:
    """A cycle in a payload is replaced by "..." and raises no error."""
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    assert '"..."' in dumps(cycle)


def test_lines_of_many_threads_do_not_mix() -> None:
    """Long lines from several threads do not mix, and earlier printed text stays before them."""
    read, write = os.pipe()
    writer = os.fdopen(write, "w")
    emitter = TelemetryEmitter("r", stream=writer)
    writer.write("[PROGRESS] begins\n")  # still in Python's buffer

    def beat(n: int) -> None:
        for _ in range(5):
            emitter.heartbeat({"n": n, "pad": "x" * 200_000})

    threads = [threading.Thread(target=beat, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()

    def close_after_all() -> None:
        for thread in threads:
            thread.join()
        writer.close()

    closer = threading.Thread(target=close_after_all)
    closer.start()
    with os.fdopen(read, "rb") as reader:
        first, *lines = reader.readlines()
    closer.join()
    assert first == b"[PROGRESS] begins\n"
    assert sorted(checked(line)["payload"]["n"] for line in lines) == sorted([0, 1, 2, 3] * 5)


def test_non_blocking_stdout_loses_nothing() -> None:
    """If a library makes stdout non-blocking, lines are still complete."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    lines: list[bytes] = []

    def drain() -> None:
        with os.fdopen(read, "rb") as reader:
            lines.extend(reader.readlines())

    drainer = threading.Thread(target=drain)
    with os.fdopen(write, "w") as writer:
        drainer.start()
        TelemetryEmitter("r", stream=writer).heartbeat({"pad": "x" * 1_000_000})
    drainer.join()
    assert len(checked(lines[0])["payload"]["pad"]) == 1_000_000


@pytest.mark.usefixtures("descriptors_from_1024")
def test_non_blocking_stdout_above_1023_loses_nothing() -> None:
    """A non-blocking stdout with a descriptor above 1023 works too."""
    test_non_blocking_stdout_loses_nothing()


def test_log_constant_also_writes_a_log_record(stream: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    """A call with a log constant also writes a log record, as older workers expect."""
    import logging

    constant = SimpleNamespace(code="LOG431", level="WARNING", message="runtime started")
    emitter = TelemetryEmitter("r", logger=logging.getLogger("worker"), stream=stream)
    emitter.run_started({"seed": 1}, constant=constant)
    assert caplog.messages == ['LOG431 | runtime started | extra={"seed":1}']
    assert len(printed(stream)) == 1


class RecordedHeartbeats:
    """An emitter that records heartbeats."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []
        self.first, self.news = threading.Event(), threading.Event()

    def heartbeat(self, payload: dict[str, Any]) -> None:
        self.payloads.append(payload)
        self.first.set()
        if len(self.payloads) >= 3:
            self.news.set()


def test_heartbeats_are_sent_at_their_interval() -> None:
    """The thread sends heartbeats with status and the worker's fields at its interval, until closed."""
    beats = RecordedHeartbeats()
    with Heartbeat(beats, 0.005, lambda: {"episodes": 2}):  # type: ignore[arg-type]
        assert beats.news.wait(30)
    count = len(beats.payloads)
    assert beats.payloads[0]["status"] == "running"
    assert beats.payloads[0]["episodes"] == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "mosaic-heartbeat"]
    assert len(beats.payloads) == count


def test_hanging_loop_sends_no_heartbeat() -> None:
    """With only_when_marked a heartbeat needs a mark since the last one, except while paused."""
    beats, is_paused = RecordedHeartbeats(), threading.Event()
    with Heartbeat(beats, 0.005, only_when_marked=True, is_paused=is_paused.is_set):  # type: ignore[arg-type]
        assert beats.first.wait(30)
        assert not beats.news.wait(0.1)
        assert len(beats.payloads) == 1
        is_paused.set()
        assert beats.news.wait(30)
    assert beats.payloads[-1]["status"] == "paused"
