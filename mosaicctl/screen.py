"""A terminal with lines that stay and lines that live: plain ANSI, no library.

`say` prints a line for good; `live` replaces the block under it.  On anything but a terminal `live`
does nothing and `say` prints.
"""

import os
import shutil
import time
from typing import TextIO

from mosaicctl.render import has_colour


class Screen:
    """A stream with at most one block of live lines at its end."""

    FRAME_S = 0.1

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.has_colour = has_colour(stream)
        encoding = (getattr(stream, "encoding", None) or "").lower()
        self.has_unicode = encoding.replace("-", "") == "utf8"
        self._block: list[str] = []
        self._drawn_mono = 0.0

    @property
    def width(self) -> int:
        """Columns a live line may fill: one less than there are, lest the terminal wrap."""
        return shutil.get_terminal_size((100, 24)).columns - 1

    @property
    def height(self) -> int:
        """Live lines there is room for."""
        return max(1, shutil.get_terminal_size((100, 24)).lines - 2)

    def say(self, text: str, lines: list[str] | None = None) -> None:
        """Print a line that stays, above the live block (which becomes `lines`, if given)."""
        wipe = self._wiped()
        if lines is not None and self.is_live:
            self._block, self._drawn_mono = lines, time.monotonic()
        self.stream.write(f"{wipe}{text}\n{''.join(f'{line}{chr(10)}' for line in self._block)}")
        self.stream.flush()

    def live(self, lines: list[str], now: bool = False) -> None:
        """Show `lines` as the live block; draws at most ten times a second unless `now`."""
        if not self.is_live:
            return
        at = time.monotonic()
        if not now and at - self._drawn_mono < self.FRAME_S:
            return
        wipe = self._wiped()
        self._block, self._drawn_mono = lines, at
        self.stream.write(wipe + "".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def _wiped(self) -> str:
        """Return what moves the cursor to the block's first line and clears to the end."""
        return f"\x1b[{len(self._block)}A\r\x1b[J" if self.is_live and self._block else ""
