"""Control of a worker: pause, resume, checkpoint and stop over a real socket, and signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mosaic_worker import Control, TelemetryEmitter

from tests.workers.process import DEADLINE_S, Worker, environment, run_to_end

CONFIG: dict[str, Any] = {
    "run_id": "r", "env_id": "FrozenLake", "episodes": 100000, "episode_delay_s": 0.001,
    "heartbeat_interval_s": 0.02,
}  # fmt: skip


def test_paused_worker_plays_no_episode_until_it_resumes(tmp_path: Path) -> None:
    """Between `paused` and `resumed` no episode is played; checkpoints and heartbeats continue."""
    with Worker(tmp_path, CONFIG, has_control=True) as worker:
        worker.wait_for_episode(5)
        worker.send("pause")
        paused = worker.wait_for_event("paused")
        position = worker.lines[paused]["payload"]
        worker.send("checkpoint")
        saved = worker.wait_for_event("checkpoint_saved", paused)
        beat = worker.wait_for(lambda line: line.get("payload", {}).get("status") == "paused", saved)
        worker.send("pause")  # a repeated pause is answered again
        again = worker.wait_for_event("paused", saved + 1)
        worker.send("resume")
        resumed = worker.wait_for_event("resumed", max(beat, again))
        worker.wait_for(lambda line: line.get("type") == "episode", resumed)
        worker.send("stop", grace_s=5)
        assert worker.finish() == 0, worker.tail()
    assert not [line for line in worker.lines[paused:resumed] if line.get("type") == "episode"]
    assert worker.lines[resumed]["payload"]["episodes"] == position["episodes"]
    assert worker.lines[saved]["payload"]["episodes"] == position["episodes"]
    assert worker.last()["reason"] == "control"


def test_stop_and_sigterm_end_a_paused_worker(tmp_path: Path) -> None:
    """A stop or SIGTERM ends a paused worker with checkpoint_saved, run_cancelled and exit code 0."""
    for name in ("order", "signal"):
        with Worker(tmp_path / name, CONFIG, has_control=True) as worker:
            worker.wait_for_episode(1)
            worker.send("pause")
            worker.wait_for_event("paused")
            if name == "order":
                worker.send("stop")
            else:
                worker.process.send_signal(signal.SIGTERM)
            assert worker.finish() == 0, worker.tail()
        assert worker.events()[-2:] == ["checkpoint_saved", "run_cancelled"]


def test_closed_channel_ends_only_a_paused_worker(tmp_path: Path) -> None:
    """If the channel closes, a paused worker saves and exits; a running worker continues."""
    with Worker(tmp_path / "paused", CONFIG, has_control=True) as worker:
        worker.wait_for_episode(1)
        worker.send("pause")
        worker.wait_for_event("paused")
        assert worker.control is not None
        worker.control.close()
        assert worker.finish() == 0
    assert worker.last()["reason"] == "control_closed"
    with Worker(tmp_path / "running", {**CONFIG, "episodes": 30}, has_control=True) as worker:
        assert worker.control is not None
        worker.control.close()
        assert worker.finish() == 0
    assert worker.events()[-1] == "run_completed"


def test_order_interrupts_a_step_delay(tmp_path: Path) -> None:
    """A worker that sleeps between steps is paused and stopped immediately."""
    with Worker(tmp_path, {**CONFIG, "step_delay_s": 60, "step_telemetry": True}, has_control=True) as worker:
        worker.wait_for(lambda line: line.get("type") == "step")
        sent_mono = time.monotonic()
        worker.send("pause")
        worker.wait_for_event("paused")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.finish() == 0
        assert time.monotonic() - sent_mono < DEADLINE_S


def test_ctrl_c_saves_and_exits_130(tmp_path: Path) -> None:
    """Ctrl-C in a terminal saves a checkpoint, prints run_cancelled and exits with 130."""
    with Worker(tmp_path, CONFIG) as worker:
        worker.wait_for_episode(1)
        worker.process.send_signal(signal.SIGINT)
        assert worker.finish() == 130
    assert worker.events()[-1] == "run_cancelled"


def test_worker_exits_when_its_stdout_is_closed(tmp_path: Path) -> None:
    """A worker whose stdout was closed by the reader exits with an error."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    process = subprocess.Popen(
        [sys.executable, "-m", "mosaic_tabular", "--config", "config.json"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_S) != 0


def test_control_fd_that_is_no_socket_is_reported(tmp_path: Path) -> None:
    """A wrong MOSAIC_CONTROL_FD is reported on stderr and otherwise ignored."""
    worker = run_to_end(tmp_path, {**CONFIG, "episodes": 2}, MOSAIC_CONTROL_FD="57")
    assert b"MOSAIC_CONTROL_FD=57 is not a socket" in worker.stderr


class RecordingEmitter(TelemetryEmitter):
    """An emitter that records the names of events."""

    def __init__(self) -> None:
        super().__init__("r")
        self.names: list[str] = []

    def event(self, name: str, payload: Any = None, constant: Any = None) -> None:
        self.names.append(name)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Control, RecordingEmitter]]:
    daemon_end, worker_end = socket.socketpair()
    emitter = RecordingEmitter()
    with daemon_end, Control(emitter, worker_end.detach(), poll_interval_s=0) as control:
        yield daemon_end, control, emitter


def test_orders_may_arrive_in_pieces_and_together(
    pair: tuple[socket.socket, Control, RecordingEmitter],
) -> None:
    """Lines may arrive in pieces or many together; a withdrawn pause is answered by `resumed`."""
    daemon_end, control, emitter = pair
    daemon_end.sendall(b'{"control":"chec')
    saves: list[int] = []
    assert not control.checkpoint_point(lambda: saves.append(1))
    daemon_end.sendall(
        b'kpoint"}\n{"control":"pause"}\nnonsense\n{"control":"dance"}\n[]\n\n{"control":"resume"}\n'
    )
    assert control.poll_orders()
    assert not control.checkpoint_point(lambda: saves.append(1))
    assert (saves, emitter.names, control.is_paused) == ([1], ["resumed"], False)
    assert not control.poll_orders()


def test_checkpoint_order_without_save_is_dropped(
    pair: tuple[socket.socket, Control, RecordingEmitter],
) -> None:
    """A worker that passes no `save` is not called repeatedly for one checkpoint order."""
    daemon_end, control, _ = pair
    daemon_end.sendall(b'{"control":"checkpoint"}\n')
    assert control.poll_orders()
    assert not control.checkpoint_point()
    assert not control.sleep(0)


def test_order_wakes_a_sleeping_worker(pair: tuple[socket.socket, Control, RecordingEmitter]) -> None:
    """An order wakes a sleeping worker; without an order the worker sleeps the given time."""
    daemon_end, control, _ = pair
    assert not control.sleep(0.01)
    threading.Timer(0.02, daemon_end.sendall, [b'{"control":"stop","grace_s":3}\n']).start()
    began_mono = time.monotonic()
    assert control.sleep(60)
    assert time.monotonic() - began_mono < DEADLINE_S
    assert control.checkpoint_point()
    assert (control.stop_requested, control.stop_grace_s) == (True, 3.0)


@pytest.mark.usefixtures("descriptors_from_1024")
def test_control_works_with_descriptors_above_1023() -> None:
    """A control socket with a descriptor above 1023 pauses and wakes the worker."""
    daemon_end, worker_end = socket.socketpair()
    emitter = RecordingEmitter()
    with daemon_end, Control(emitter, worker_end.detach(), poll_interval_s=0) as control:
        assert not control.sleep(0.01)
        threading.Timer(0.02, daemon_end.sendall, [b'{"control":"pause"}\n']).start()
        assert control.sleep(60)
        threading.Timer(0.02, daemon_end.sendall, [b'{"control":"resume"}\n']).start()
        assert not control.checkpoint_point()
    assert emitter.names == ["paused", "resumed"]


def test_overlong_control_line_is_dropped(pair: tuple[socket.socket, Control, RecordingEmitter]) -> None:
    """A very long line is dropped without taking memory, and the orders after it are obeyed."""
    daemon_end, control, _ = pair
    for _ in range(40):
        daemon_end.sendall(b"x" * 4096)
        assert not control.checkpoint_point()
    daemon_end.sendall(b'\n{"control":"stop"}\n')
    assert control.checkpoint_point()


def test_checkpoint_point_without_an_order_is_fast() -> None:
    """A checkpoint point without an order takes microseconds, so an inner loop may call it."""
    with Control(RecordingEmitter()) as control:
        control.checkpoint_point()
        began_s = time.thread_time()
        for _ in range(100_000):
            control.checkpoint_point()
        assert time.thread_time() - began_s < 1.0


def test_forked_child_of_a_worker_dies_of_sigterm() -> None:
    """The signal handler works in the worker only: a forked child still dies of SIGTERM."""
    code = (
        "import os, select, signal\n"
        "from mosaic_worker import Control, TelemetryEmitter\n"
        "control = Control(TelemetryEmitter('r')); control.install_signals()\n"
        "ready, started = os.pipe()\n"
        "pid = os.fork()\n"
        "while pid == 0:\n    os.write(started, b'x'); select.select([], [], [], 0.01)\n"
        "os.read(ready, 1)\n"
        "os.kill(pid, signal.SIGTERM)\n"
        "print(os.waitpid(pid, 0)[1], control.stop_requested)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout.split() == [str(int(signal.SIGTERM)), "False"]


def test_control_channel_is_not_inherited() -> None:
    """Programs that a worker starts inherit neither the control socket nor MOSAIC_CONTROL_FD."""
    daemon_end, worker_end = socket.socketpair()
    os.set_inheritable(worker_end.fileno(), True)
    os.environ["MOSAIC_CONTROL_FD"] = str(worker_end.fileno())
    with daemon_end, Control(RecordingEmitter(), worker_end.fileno()):
        assert "MOSAIC_CONTROL_FD" not in os.environ
        assert not os.get_inheritable(worker_end.fileno())
        worker_end.detach()


def test_order_during_a_sleep_is_carried_out_next() -> None:
    """An order that ended a sleep is carried out by the next checkpoint point, however soon it comes."""
    daemon_end, worker_end = socket.socketpair()
    emitter = RecordingEmitter()
    with daemon_end, Control(emitter, worker_end.detach(), poll_interval_s=3600) as control:
        daemon_end.sendall(b'{"control":"resume"}\n')
        assert control.sleep(60)
        assert control.poll_orders()
        assert not control.checkpoint_point()
    assert emitter.names == ["resumed"]
