"""Lines that are redrawn in place on a terminal, and plain lines in a pipe."""

import io

import pytest

from mosaicctl.screen import Screen


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(text: str) -> list[str]:
    """Return the lines on a terminal after `text`; interprets the two escape sequences of Screen."""
    lines, row = [""], 0
    for part in text.split("\x1b["):
        if part[:1].isdigit() and part.lstrip("0123456789")[:1] == "A":
            digits = part[: len(part) - len(part.lstrip("0123456789"))]
            row, part = row - int(digits), part[len(digits) + 1 :]
        elif part.startswith("J"):
            lines, part = [*lines[:row], ""], part[1:]
        for character in part.replace("\r", ""):
            if character == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] += character
    return lines[:-1]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("TERM", "xterm")
    return Tty()


def test_permanent_lines_are_above_the_live_lines(terminal: Tty) -> None:
    """Permanent lines are printed above the live lines; the live lines are redrawn in place."""
    screen = Screen(terminal)
    screen.draw(["a 1%", "b 1%"], now=True)
    screen.print_line("first")
    screen.draw(["a 2%"], now=True)
    screen.print_line("second", ["a 3%", "c 3%"])
    assert shown(terminal.getvalue()) == ["first", "second", "a 3%", "c 3%"]
    screen.draw([], now=True)
    assert shown(terminal.getvalue()) == ["first", "second"]


def test_redraws_are_limited(terminal: Tty) -> None:
    """A thousand updates in a moment cause few redraws."""
    screen = Screen(terminal)
    for number in range(1000):
        screen.draw([f"{number}"])
    assert terminal.getvalue().count("\n") < 100


def test_pipe_gets_plain_lines_only() -> None:
    """A pipe gets permanent lines only, without escape sequences and live lines."""
    pipe = io.StringIO()
    screen = Screen(pipe)
    screen.draw(["50%"], now=True)
    screen.print_line("done", ["51%"])
    assert pipe.getvalue() == "done\n"
