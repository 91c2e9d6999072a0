"""The content of this worker's checkpoints, and its conversion to and from bytes.

A snapshot has all state that affects later episodes: the table, the counters, the last returns and the state
of the three random generators.  It is taken only between episodes, so it needs no state of the environment.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mosaic_worker import Checkpoint, CheckpointInvalid

from mosaic_tabular.learning import Table

TABLE_FILE = "q_table.npy"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class Snapshot:
    """The state of the learner between two episodes."""

    env_id: str
    env_kwargs: dict[str, Any]
    seed: int
    episodes: int
    steps: int
    recent_returns: list[float]
    best_mean_return: float | None
    random_state: dict[str, Any]  # "agent", "env", "action_space"

    def files(self, table: Table) -> dict[str, bytes]:
        """Return the checkpoint's files."""
        array = io.BytesIO()
        np.save(array, np.asarray(table, dtype=np.float64), allow_pickle=False)
        return {TABLE_FILE: array.getvalue(), STATE_FILE: json.dumps(asdict(self)).encode("ascii")}


def load(checkpoint: Checkpoint) -> tuple[Snapshot, Table]:
    """Return the snapshot and table of a verified checkpoint; raise CheckpointInvalid if another worker's."""
    try:
        state: Mapping[str, Any] = json.loads(checkpoint.read(STATE_FILE))
        table = np.load(io.BytesIO(checkpoint.read(TABLE_FILE)), allow_pickle=False)
        return Snapshot(**state), table.tolist()
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointInvalid(f"{checkpoint.path}: not a checkpoint of this worker ({error})") from error
