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
