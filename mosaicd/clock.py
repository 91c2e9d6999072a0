"""The daemon's clock: the only place that reads the time.

Two clocks, never mixed: `wall` is for what people and files see (`_at`), `mono` for deadlines and
durations (`_mono`).  `mono` stands still while the machine is suspended, so a laptop lid is no missed
heartbeat; it also starts anew at every boot, so a `_mono` value is never stored.
"""

import time
from functools import cached_property
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """The machine's own time."""

    def wall(self) -> float:
        """Return Unix seconds (UTC); may jump when the machine's time is set."""
        return time.time()

    def mono(self) -> float:
        """Return seconds that never jump and stop with the machine; comparable within one boot only."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def boot_id(self) -> str:
        """Return the name of this boot of the kernel: one pid under two of them is two processes."""
        return self._boot_id

    @cached_property
    def _boot_id(self) -> str:
        return BOOT_ID.read_text(encoding="ascii").strip()


class ManualClock(Clock):
    """A clock that moves only when told: for tests and simulations."""

    def __init__(self, wall: float = 1_800_000_000.0, mono: float = 1_000.0, boot_id: str = "boot-1") -> None:
        self._wall = wall
        self._mono = mono
        self._boot = boot_id

    def wall(self) -> float:
        return self._wall

    def mono(self) -> float:
        return self._mono

    def boot_id(self) -> str:
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time pass, awake; ValueError for a step back."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._wall += seconds
        self._mono += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: the wall clock goes on, the monotonic one does not."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._wall += seconds

    def set_wall(self, at: float) -> None:
        """Set the machine's time, forwards or back."""
        self._wall = at

    def reboot(self, boot_id: str) -> None:
        """Start another boot: a new boot id, the monotonic clock near zero."""
        self._boot = boot_id
        self._mono = 1.0
