"""A small MOSAIC worker for the drill: it steps, saves, pauses, exits on request and resumes.

Like program.sh, it notes in its own file what the verdicts need: the checkpoint that it resumed from, each
step with its time, each save before and after, the damage that it does on purpose, and how it will end.
Note: its state is a chain of hashes that follows from the step alone, so loaded state can be verified.
"""

import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mosaic_worker import Checkpoint, WorkerRun

COPIES = 100  # of the state in a file; a file of so many bytes is incomplete


class Trainer:
    """The work of one attempt."""

    def __init__(self, config: dict[str, Any], run: WorkerRun) -> None:
        self._config = config
        self._run = run
        self._attempt = run.environment.attempt
        notes = Path(config["notes"])
        self._path = notes / run.run_id
        known = self._path.read_text().splitlines() if self._path.exists() else []
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for line in known:
            word, attempt, *rest = line.split()
            if word == "started" and is_alive(rest[0], run.run_id):
                self.note("overlap", attempt, rest[0])
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        for gpu in filter(None, gpus.split(",")):
            self._take_gpu(notes / f"gpu{gpu}", gpu)
        self.note("started", os.getpid(), gpus)
        self.step = 0
        self.state = self._chain(0)

    def note(self, word: str, *rest: object) -> None:
        """Append a line to the notes with one write."""
        os.write(self._fd, " ".join(map(str, (word, self._attempt, *rest))).encode() + b"\n")

    def _take_gpu(self, path: Path, gpu: str) -> None:
        words = path.read_text().split() if path.exists() else []
        if len(words) == 2 and words[1] != self._run.run_id and is_alive(*words):
            self.note("shared", gpu, words[1])
        path.write_text(f"{os.getpid()} {self._run.run_id}\n")

    def _chain(self, step: int) -> str:
        state = str(self._config["mark"])
        for number in range(step + 1):
            state = hashlib.sha256(f"{state}{number}".encode()).hexdigest()
        return state

    def resume(self) -> None:
        """Resume from the newest complete checkpoint, or begin at step 0."""
        checkpoint, skipped = self._run.checkpoints.latest_verified()
        self._run.emitter.run_started({"total_steps": self._config["steps"]})
        for entry in skipped:
            self.note("skipped", entry.path.name)
        if checkpoint is None:
            self.note("fresh")
            return
        self._run.emitter.checkpoint_loaded(checkpoint.payload())
        self.note("resumed", checkpoint.step, checkpoint.sha256)
        self.step, self.state = checkpoint.step, self._chain(checkpoint.step)
        if checkpoint.read("state") != self._content():
            self.note("wrong", f"the loaded state is not the state at step {checkpoint.step}")

    def _content(self) -> bytes:
        return self.state.encode() * COPIES

    def work(self) -> bool:
        """Do all steps; return False if a stop was requested before the end."""
        config, control = self._config, self._run.control
        first = self.step
        while self.step < config["steps"]:
            if control.checkpoint_point(self.save):
                return False
            self.step += 1
            self.state = hashlib.sha256(f"{self.state}{self.step}".encode()).hexdigest()
            self.note("step", self.step, f"{time.time():.6f}")
            self._report_step()
            if self.step % config["save_every"] == 0:
                self.save()
            if self._attempt <= config["crashes"] and self.step - first == config["crash_after"]:
                self._crash(config["crash"])
            control.sleep(config["step_s"])
        return True

    def _report_step(self) -> None:
        self._run.emitter.step(
            episode_index=0, step_index=self.step, action=0, observation=0, reward=1.0, terminated=False,
            truncated=False, global_step=self.step,
        )  # fmt: skip

    def save(self) -> None:
        """Save a checkpoint, on a full disk or with damage afterwards if the config says so."""
        self.note("saving", self.step)
        is_full = self.step in self._config["full_at"]
        try:
            if is_full:
                limit_files(COPIES)
            saved = self._run.checkpoints.save(self.step, {"state": self._content()})
        except OSError as error:
            lift_limit()
            self.note("unsaved", self.step, error.errno)
            return
        lift_limit()
        self.note("saved", self.step, saved.sha256)
        self._run.emitter.checkpoint_saved(saved.payload())
        if self.step in self._config["damage_at"]:
            self._damage(saved)

    def _damage(self, saved: Checkpoint) -> None:
        """Truncate the checkpoint and create a later one without manifest, like a crash of the machine."""
        later = saved.path.with_name(f"checkpoint-{saved.step + 1000:012d}")
        with contextlib.suppress(OSError):  # on a full disk the later checkpoint is even less complete
            later.mkdir(exist_ok=True)
            (later / "state").write_bytes(self._content())  # without a manifest
        self.note("damaging", saved.step)
        os.truncate(saved.path / "state", COPIES)
        self.note("damaged", saved.step)

    def _crash(self, how: str) -> None:
        self.note("ending", how)
        if how.isdecimal():
            os._exit(int(how))
        os.kill(os.getpid(), getattr(signal, f"SIG{how}"))
        signal.pause()


def is_alive(pid: str, run_id: str) -> bool:
    """Return whether the process is alive and belongs to the run."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"MOSAIC_RUN_ID={run_id}".encode() in words


def limit_files(size_bytes: int) -> None:
    """Limit the size of files that this process writes, which simulates a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def lift_limit() -> None:
    """Remove the limit, also one that was inherited from a limited shim."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def main() -> int:
    """Do the steps of the config; return the exit code."""
    lift_limit()
    config = json.loads(Path(os.environ["MOSAIC_CONFIG_FILE"]).read_bytes())
    with WorkerRun(heartbeat_interval_s=0.2) as run:
        trainer = Trainer(config, run)
        trainer.resume()
        if trainer.work():
            trainer.note("ending", 0)
            run.completed()
            return 0
        trainer.save()
        trainer.note("ending", run.stop_exit_code)
        run.cancelled()
        return run.stop_exit_code


if __name__ == "__main__":
    sys.exit(main())
