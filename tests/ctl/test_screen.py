"""Living lines on a terminal, plain lines elsewhere."""

import io

import pytest

from mosaicctl.screen import Screen


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen(text: str) -> list[str]:
    """What stands on a terminal after `text`: the two sequences that Screen uses are interpreted."""
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


def test_lines_that_stay_stand_above_those_that_live(terminal: Tty) -> None:
    """Whatever is said goes above the block, and the block is redrawn in place, growing and shrinking."""
    screen = Screen(terminal)
    screen.live(["a 1%", "b 1%"], now=True)
    screen.say("first")
    screen.live(["a 2%"], now=True)
    screen.say("second", ["a 3%", "c 3%"])
    assert seen(terminal.getvalue()) == ["first", "second", "a 3%", "c 3%"]
    screen.live([], now=True)
    assert seen(terminal.getvalue()) == ["first", "second"]


def test_frames_are_limited(terminal: Tty) -> None:
    """A thousand reports a second are not a thousand redraws."""
    screen = Screen(terminal)
    for number in range(1000):
        screen.live([f"{number}"])
    assert terminal.getvalue().count("\n") < 100


def test_a_pipe_gets_plain_lines_only() -> None:
    """No escape ever reaches a file, and no living line either."""
    pipe = io.StringIO()
    screen = Screen(pipe)
    screen.live(["50%"], now=True)
    screen.say("done", ["51%"])
    assert pipe.getvalue() == "done\n"
