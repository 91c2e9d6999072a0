"""The progress of an attempt from its telemetry: counts, last values, checkpoints, and the final record.

`steps` is the global step if the worker reports one, otherwise the number of step records.  The global step
of a worker that resumes continues the count of the earlier attempt.
"""

import time
from collections import deque

from mosaicd.protocol import Json, telemetry
from mosaicd.protocol.records.attempt import Checkpoint
from mosaicd.protocol.telemetry import Recognised

_WINDOW = 100
_METRICS_LIMIT = 16
_NAME_LIMIT = 40
_PATH_LIMIT = 500
_HASH = 64
_FAILURE_NAMES = ("error", "message", "reason", "error_message", "detail")


class Progress:
    """Counters and last values of one attempt."""

    def __init__(self) -> None:
        self.steps: int | None = None
        self.episodes: int | None = None
        self.total_steps: int | None = None
        self.total_episodes: int | None = None
        self.metrics: dict[str, float | int] = {}
        self.last_word: str | None = None
        self.failure: str | None = None
        self.resumed_from: Checkpoint | None = None
        self.checkpoint: Checkpoint | None = None
        self.checkpoints = 0  # number of checkpoints that this attempt has saved
        self._step_records = 0
        self._reported_steps: int | None = None
        self._episode_base = 0
        self._returns: deque[float] = deque(maxlen=_WINDOW)

    def note(self, record: Recognised) -> None:
        """Update the progress with one telemetry record."""
        kind, data = record.kind, record.data
        if kind == "step":
            self._step_records += 1
        elif kind == "episode":
            self._note_episode(data)
        elif kind == "run_started":
            self._note_totals(telemetry.payload_of(data))
        elif kind in telemetry.LAST_WORDS:
            self.last_word = kind
            self.failure = _failure_text(telemetry.payload_of(data)) if kind == "run_failed" else None
        elif kind == "checkpoint_saved":
            self.checkpoints += 1
            self.checkpoint = _checkpoint(telemetry.payload_of(data))
        elif kind == "checkpoint_loaded":
            self.resumed_from = self.checkpoint = _checkpoint(telemetry.payload_of(data))
        if kind != "run_started":
            reported = telemetry.global_step(data)
            if reported is not None:
                self._reported_steps = max(reported, self._reported_steps or 0)
        self._count_steps()
        values = telemetry.scalars(kind, data)
        if values:
            self._merge(values)

    @property
    def steps_are_global(self) -> bool:
        """Return whether `steps` is the worker's own count, which includes earlier attempts."""
        return self._reported_steps is not None

    def _count_steps(self) -> None:
        if self._reported_steps is not None:
            self.steps = self._reported_steps
        elif self._step_records:
            self.steps = self._step_records

    def _note_episode(self, data: Json) -> None:
        if self.episodes is None:
            index = telemetry.first_number(data, ("episode_index", "episode"))
            self._episode_base = int(index) if index is not None and index > 1 else 0
            self.episodes = self._episode_base
        self.episodes += 1
        value = telemetry.first_number(data, telemetry.RETURN)
        if value is not None:
            self._returns.append(value)
            mean = sum(self._returns) / len(self._returns)
            self._merge({"episode_return": value, "mean_return_100": mean})
        length = telemetry.first_number(data, telemetry.LENGTH)
        if length is not None:
            self._merge({"episode_length": length})

    def _note_totals(self, payload: Json) -> None:
        total = telemetry.first_number(payload, telemetry.TOTAL_STEPS)
        self.total_steps = None if total is None else int(total)
        total = telemetry.first_number(payload, telemetry.TOTAL_EPISODES)
        self.total_episodes = None if total is None else int(total)

    def _merge(self, values: Json) -> None:
        """Store last values; a message must stay small, so only the first 16 metrics with short names
        count."""
        for name, value in values.items():
            if (name in self.metrics or self._has_room_for(name)) and telemetry.is_number(value):
                self.metrics[name] = value

    def _has_room_for(self, name: str) -> bool:
        return len(self.metrics) < _METRICS_LIMIT and len(name) <= _NAME_LIMIT and name.isprintable()


def _checkpoint(payload: Json) -> Checkpoint | None:
    """Return the checkpoint in a record; None if its path is missing or too long for a message."""
    path, sha256 = payload.get("path"), payload.get("sha256")
    if not isinstance(path, str) or not 0 < len(path.encode("utf-8", "replace")) <= _PATH_LIMIT:
        return None
    step = telemetry.global_step(payload)
    is_hash = isinstance(sha256, str) and len(sha256) == _HASH
    return Checkpoint(path=path, step=step, at=time.time(), sha256=sha256 if is_hash else None)


def _failure_text(payload: Json) -> str | None:
    """Return the error text in a `run_failed` record, or None; workers use several names for it."""
    values = (payload.get(name) for name in _FAILURE_NAMES)
    return next((str(text) for text in values if isinstance(text, str) and text), None)
