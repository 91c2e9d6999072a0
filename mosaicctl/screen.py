"""Terminal output with permanent lines and, below them, a block of lines that is redrawn (ANSI sequences).

`print_line` prints a permanent line; `draw` replaces the block.  If the output is not a terminal, `draw` does
nothing.
"""

import os
import shutil
import time
from typing import TextIO

from mosaicctl.render import has_colour


class Screen:
    """An output stream with a block of redrawn lines at its end."""

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
        """The longest line of the block: one column less than the terminal, so that no line wraps."""
        return shutil.get_terminal_size((100, 24)).columns - 1

    @property
    def height(self) -> int:
        """The largest number of lines in the block."""
        return max(1, shutil.get_terminal_size((100, 24)).lines - 2)

    def print_line(self, text: str, lines: list[str] | None = None) -> None:
        """Print a permanent line above the block; `lines`, if given, becomes the new block."""
        erase = self._erase_sequence()
        if lines is not None and self.is_live:
            self._block, self._drawn_mono = lines, time.monotonic()
        self.stream.write(f"{erase}{text}\n{''.join(f'{line}{chr(10)}' for line in self._block)}")
        self.stream.flush()

    def draw(self, lines: list[str], now: bool = False) -> None:
        """Replace the block with `lines`; without `now`, at most ten times a second."""
        if not self.is_live:
            return
        at = time.monotonic()
        if not now and at - self._drawn_mono < self.FRAME_S:
            return
        erase = self._erase_sequence()
        self._block, self._drawn_mono = lines, at
        self.stream.write(erase + "".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def _erase_sequence(self) -> str:
        """Return the escape sequence that removes the block from the terminal."""
        return f"\x1b[{len(self._block)}A\r\x1b[J" if self.is_live and self._block else ""
