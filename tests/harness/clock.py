"""A clock that a test or a simulation moves by hand."""

from mosaicd.clock import Clock


class ManualClock(Clock):
    """A clock that moves only when a test moves it."""

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
        """Move both clocks forward; raise ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._wall += seconds
        self._mono += seconds

    def suspend(self, seconds: float) -> None:
        """Move only the wall clock, like a suspend; raise ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._wall += seconds

    def set_wall(self, at: float) -> None:
        """Set the wall clock, forwards or back."""
        self._wall = at

    def reboot(self, boot_id: str) -> None:
        """Start another boot: a new boot id, and a monotonic clock near zero."""
        self._boot = boot_id
        self._mono = 1.0
