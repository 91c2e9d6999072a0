"""The daemon's clock: the only place that reads the time.

There are two clocks: `wall` for times in files and replies (`_at`), `mono` for deadlines and durations
(`_mono`).  `mono` stops while the machine is suspended, so a suspend causes no missed heartbeat.  It restarts
at every boot, so a `_mono` value is never stored.
"""

import time
from functools import cached_property
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """The clock of the machine."""

    def wall(self) -> float:
        """Return Unix seconds (UTC); may jump when the machine's time is set."""
        return time.time()

    def mono(self) -> float:
        """Return seconds that never jump and stop with the machine; comparable within one boot only."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def boot_id(self) -> str:
        """Return the kernel's id of this boot: the same pid under another boot id is another process."""
        return self._boot_id

    @cached_property
    def _boot_id(self) -> str:
        return BOOT_ID.read_text(encoding="ascii").strip()
