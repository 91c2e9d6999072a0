"""Simulated shims and workers, which follow the contract of the run directory.

The simulated daemon sees only their facts, their files, and whether a process tree is empty.
"""

from dataclasses import dataclass, field
from typing import Any

from mosaicd.protocol import Json
from mosaicd.protocol.records.attempt import Exit, Launch, Started
from mosaicd.protocol.records.attempt_files import AttemptFiles
from mosaicd.protocol.records.reports import Status
from mosaicd.protocol.records.untrusted import read


@dataclass
class Attempt:
    """One attempt: its shim, its worker, its files.  The files survive every crash."""

    run_id: str
    number: int
    nonce: str
    is_worker: bool
    boot_id: str
    cooperative: bool = False
    shim_alive: bool = True
    registered: bool = False
    has_launch_file: bool = False
    worker_starts: int = 0
    worker_alive: bool = False
    helper_alive: bool = False
    frozen: bool = False
    is_stubborn: bool = False
    is_silent: bool = False
    orders: dict[str, Any] = field(default_factory=dict)
    started: Json | None = None
    life_at: float | None = None
    exit: Json | None = None
    will_exit: int | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether no process of the attempt is alive."""
        return not self.worker_alive and not self.helper_alive

    def status(self) -> Status:
        """Return the status that the shim sends when it registers."""
        status = {
            "spawned": self.started,
            "started_at": self.life_at,
            "frozen": self.frozen,
            "paused_mode": "freeze" if self.frozen else None,
            "stop": self.orders.get("stop"),
            "exit": self.exit,
        }
        return read(Status, status)

    def files(self) -> AttemptFiles:
        """Return the files in the directory of the attempt."""
        launch = Launch(nonce=self.nonce, boot_id=self.boot_id) if self.has_launch_file else None
        started = None if self.started is None else read(Started, self.started)
        exit = None if self.exit is None else read(Exit, self.exit)
        return AttemptFiles(self.number, launch, started, exit, self.shim_alive)

    def next_fact(self, at: float) -> Json | None:
        """Do the next step of the shim, and return the fact that it reports, or None."""
        if self.exit is not None or not self.shim_alive or self.is_silent:
            return None
        if "stop" in self.orders or self.will_exit is not None:
            return self._end(at)
        if self.started is None:
            return self._spawn(at)
        if self.life_at is None:
            self.life_at = at
            return {"fact": "started", "at": at}
        return self._follow_orders(at)

    def _spawn(self, at: float) -> Json:
        self.worker_starts += 1
        self.worker_alive = True
        self.started = {"pid": 1000 + self.number, "start_ticks": 1, "boot_id": self.boot_id, "at": at}
        return {"fact": "spawned", **self.started}

    def _follow_orders(self, at: float) -> Json | None:
        wanted = self.orders.get("pause")
        if wanted is None or wanted == self.frozen:
            return None
        if wanted == "release":
            self.will_exit = 0
            self.orders["released"] = True
            return self._end(at)
        self.frozen = bool(wanted)
        return {"fact": "paused" if self.frozen else "continued", "at": at}

    def _end(self, at: float) -> Json:
        stop = self.orders.get("stop") if self.will_exit is None else None
        code = self.will_exit
        self.worker_alive = self.frozen = False
        self.exit = {
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code
            if code is not None and code < 0
            else None
            if self.started is None
            else 15
            if stop
            else None,
            "finished_at": at,
            "stop": stop,
            "released": bool(self.orders.get("released")) and stop is None,
            "swept": self.is_empty,
        }
        return {"fact": "exited", "at": at, **self.exit}
