"""Reports of a shim to the daemon: worker.register with a status, worker.fact, worker.advance.

Register, Facts and Advance are the parameters of these methods; the daemon decodes them as strictly as every
other request.  A status, a fact or a checkpoint may be any JSON object here: `untrusted` reads its fields.
"""

from typing import ClassVar

from mosaicd.protocol import Json
from mosaicd.protocol.records.attempt import Exit, Started, Stop
from mosaicd.protocol.records.record import Record


class Status(Record):
    """The progress of an attempt.

    `spawned`: the record of the worker's process.  `sign_of_life`, `started_at`: whether and when the worker
    sent its first telemetry record that is no error; for a command, when it was spawned.  `frozen_at` or
    `thawed_at`: the time of the newest pause or resume.  `swept`: the process tree is empty.
    """

    OMITTED: ClassVar = frozenset(("frozen_at", "thawed_at"))

    spawned: Started | None = None
    sign_of_life: bool | None = None
    started_at: float | None = None
    frozen: bool | None = None
    frozen_at: float | None = None
    thawed_at: float | None = None
    paused_mode: str | None = None
    stop: Stop | None = None
    exit: Exit | None = None
    swept: bool | None = None


class Register(Record):
    """The handshake of a shim; `status` is a Status: the progress of the attempt until now."""

    proto_version: int
    schema_id: str
    schema_version: int
    run_id: str
    attempt: int
    secret: str
    worker_id: str
    worker_kind: str
    supports_pause: bool
    supports_checkpoint: bool
    shim_pid: int
    shim_start_ticks: int
    status: Json


class Advance(Record):
    """Cursors, last values and signs of life; an advance is no event of the ledger."""

    run_id: str
    session_token: str
    telemetry_seq: int
    stdout_bytes: int
    stderr_bytes: int
    steps: int | None
    episodes: int | None
    metrics: Json
    resumed_from: Json | None = None
    checkpoint: Json | None = None
    beat_at: float
    worker_beat: bool
    total_steps: int | None = None
    total_episodes: int | None = None


class Facts(Record):
    """Facts of an attempt in their order; each is an object with `fact`, `at` and its evidence."""

    run_id: str
    session_token: str
    facts: list[Json]
