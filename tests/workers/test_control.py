"""Orders to a worker: pause, resume, checkpoint and stop over a real socket, and signals."""

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


def test_pause_is_a_pause(tmp_path: Path) -> None:
    """After `paused` no episode is played, a checkpoint can still be had, beats go on, until `resumed`."""
    with Worker(tmp_path, CONFIG, has_control=True) as worker:
        worker.wait_for_episode(5)
        worker.ask("pause")
        paused = worker.wait_for_event("paused")
        position = worker.lines[paused]["payload"]
        worker.ask("checkpoint")
        saved = worker.wait_for_event("checkpoint_saved", paused)
        beat = worker.wait_for(lambda line: line.get("payload", {}).get("status") == "paused", saved)
        worker.ask("pause")  # asked again: answered again
        again = worker.wait_for_event("paused", saved + 1)
        worker.ask("resume")
        resumed = worker.wait_for_event("resumed", max(beat, again))
        worker.wait_for(lambda line: line.get("type") == "episode", resumed)
        worker.ask("stop", grace_s=5)
        assert worker.finish() == 0, worker.tail()
    assert not [line for line in worker.lines[paused:resumed] if line.get("type") == "episode"]
    assert worker.lines[resumed]["payload"]["episodes"] == position["episodes"]
    assert worker.lines[saved]["payload"]["episodes"] == position["episodes"]
    assert worker.last()["reason"] == "control"


def test_a_stop_ends_a_pause(tmp_path: Path) -> None:
    """Stop and SIGTERM are heard while paused: checkpoint, run_cancelled, exit 0."""
    for name in ("order", "signal"):
        with Worker(tmp_path / name, CONFIG, has_control=True) as worker:
            worker.wait_for_episode(1)
            worker.ask("pause")
            worker.wait_for_event("paused")
            if name == "order":
                worker.ask("stop")
            else:
                worker.process.send_signal(signal.SIGTERM)
            assert worker.finish() == 0, worker.tail()
        assert worker.events()[-2:] == ["checkpoint_saved", "run_cancelled"]


def test_a_lost_channel_under_a_pause_is_a_stop(tmp_path: Path) -> None:
    """If the channel closes, a paused worker saves and exits; a running worker continues."""
    with Worker(tmp_path / "paused", CONFIG, has_control=True) as worker:
        worker.wait_for_episode(1)
        worker.ask("pause")
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


def test_a_long_delay_does_not_delay_an_order(tmp_path: Path) -> None:
    """A worker that sleeps between steps for a watcher is paused and stopped at once all the same."""
    with Worker(tmp_path, {**CONFIG, "step_delay_s": 60, "step_telemetry": True}, has_control=True) as worker:
        worker.wait_for(lambda line: line.get("type") == "step")
        asked_mono = time.monotonic()
        worker.ask("pause")
        worker.wait_for_event("paused")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.finish() == 0
        assert time.monotonic() - asked_mono < DEADLINE_S


def test_ctrl_c_exits_130(tmp_path: Path) -> None:
    """A Ctrl-C in a terminal saves, says run_cancelled and exits 130."""
    with Worker(tmp_path, CONFIG) as worker:
        worker.wait_for_episode(1)
        worker.process.send_signal(signal.SIGINT)
        assert worker.finish() == 130
    assert worker.events()[-1] == "run_cancelled"


def test_nobody_reads_any_more(tmp_path: Path) -> None:
    """A worker whose stdout has no reader left ends by itself."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    process = subprocess.Popen(
        [sys.executable, "-m", "mosaic_tabular", "--config", "config.json"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_S) != 0


def test_a_descriptor_that_is_no_socket(tmp_path: Path) -> None:
    """A wrong MOSAIC_CONTROL_FD is said on stderr and otherwise ignored."""
    worker = run_to_end(tmp_path, {**CONFIG, "episodes": 2}, MOSAIC_CONTROL_FD="57")
    assert b"MOSAIC_CONTROL_FD=57 is no socket" in worker.stderr


class Said(TelemetryEmitter):
    """An emitter that keeps names."""

    def __init__(self) -> None:
        super().__init__("r")
        self.names: list[str] = []

    def event(self, name: str, payload: Any = None, constant: Any = None) -> None:
        self.names.append(name)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Control, Said]]:
    ours, theirs = socket.socketpair()
    said = Said()
    with ours, Control(said, theirs.detach(), poll_interval_s=0) as control:
        yield ours, control, said


def test_orders_may_come_in_pieces_and_heaps(pair: tuple[socket.socket, Control, Said]) -> None:
    """Half a line waits for its rest; a pause that was taken back is answered by `resumed`."""
    ours, control, said = pair
    ours.sendall(b'{"control":"chec')
    saves: list[int] = []
    assert not control.checkpoint_point(lambda: saves.append(1))
    ours.sendall(
        b'kpoint"}\n{"control":"pause"}\nnonsense\n{"control":"dance"}\n[]\n\n{"control":"resume"}\n'
    )
    assert control.is_called()
    assert not control.checkpoint_point(lambda: saves.append(1))
    assert (saves, said.names, control.is_paused) == ([1], ["resumed"], False)
    assert not control.is_called()


def test_a_checkpoint_nobody_can_write_is_dropped(pair: tuple[socket.socket, Control, Said]) -> None:
    """A worker without `save` is not called again and again for one order."""
    ours, control, _ = pair
    ours.sendall(b'{"control":"checkpoint"}\n')
    assert control.is_called()
    assert not control.checkpoint_point()
    assert not control.sleep(0)


def test_sleep_ends_early(pair: tuple[socket.socket, Control, Said]) -> None:
    """An order wakes a sleeping worker; without one it sleeps its time."""
    ours, control, _ = pair
    assert not control.sleep(0.01)
    threading.Timer(0.02, ours.sendall, [b'{"control":"stop","grace_s":3}\n']).start()
    began_mono = time.monotonic()
    assert control.sleep(60)
    assert time.monotonic() - began_mono < DEADLINE_S
    assert control.checkpoint_point()
    assert (control.stop_requested, control.stop_grace_s) == (True, 3.0)


@pytest.mark.usefixtures("descriptors_from_1024")
def test_descriptors_above_1023_are_waited_for() -> None:
    """A worker with many open files (environments, data loaders) pauses and is woken like any other."""
    ours, theirs = socket.socketpair()
    said = Said()
    with ours, Control(said, theirs.detach(), poll_interval_s=0) as control:
        assert not control.sleep(0.01)
        threading.Timer(0.02, ours.sendall, [b'{"control":"pause"}\n']).start()
        assert control.sleep(60)
        threading.Timer(0.02, ours.sendall, [b'{"control":"resume"}\n']).start()
        assert not control.checkpoint_point()
    assert said.names == ["paused", "resumed"]


def test_a_line_without_end_is_dropped(pair: tuple[socket.socket, Control, Said]) -> None:
    """A flood without a line break takes no memory, and the orders after it count."""
    ours, control, _ = pair
    for _ in range(40):
        ours.sendall(b"x" * 4096)
        assert not control.checkpoint_point()
    ours.sendall(b'\n{"control":"stop"}\n')
    assert control.checkpoint_point()


def test_asking_is_cheap() -> None:
    """A point where nothing is asked costs about a microsecond: it may stand in an inner loop."""
    with Control(Said()) as control:
        control.checkpoint_point()
        began_s = time.thread_time()
        for _ in range(100_000):
            control.checkpoint_point()
        assert time.thread_time() - began_s < 1.0


def test_a_forked_child_dies_of_its_signal() -> None:
    """The handler is the worker's own: a child that a library forked still dies of SIGTERM."""
    code = (
        "import os, select, signal\n"
        "from mosaic_worker import Control, TelemetryEmitter\n"
        "control = Control(TelemetryEmitter('r')); control.install_signals()\n"
        "ready, told = os.pipe()\n"
        "pid = os.fork()\n"
        "while pid == 0:\n    os.write(told, b'x'); select.select([], [], [], 0.01)\n"
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


def test_the_channel_is_not_inherited() -> None:
    """Programs that a worker starts neither hold the channel open nor believe that it is theirs."""
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    os.environ["MOSAIC_CONTROL_FD"] = str(theirs.fileno())
    with ours, Control(Said(), theirs.fileno()):
        assert "MOSAIC_CONTROL_FD" not in os.environ
        assert not os.get_inheritable(theirs.fileno())
        theirs.detach()


def test_a_nap_does_not_hide_an_order() -> None:
    """An order that a sleep noticed is carried out by the very next point, however soon that comes."""
    ours, theirs = socket.socketpair()
    said = Said()
    with ours, Control(said, theirs.detach(), poll_interval_s=3600) as control:
        ours.sendall(b'{"control":"resume"}\n')
        assert control.sleep(60)
        assert control.is_called()
        assert not control.checkpoint_point()
    assert said.names == ["resumed"]
