"""The scanner: output in pieces of any size becomes candidate lines."""

import random

import pytest

from mosaicd.shim.scanner import Scanner


def scan(text: bytes, cuts: list[int], limit_bytes: int = 1 << 20) -> tuple[list[bytes], Scanner]:
    """Feed `text` in pieces that end at `cuts`; return the candidates, with an unfinished last one."""
    scanner = Scanner(limit_bytes)
    lines: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece = bytearray(text[start:end]) + b"{rest of an earlier read\n"
        lines += scanner.feed(piece, end - start)
    if scanner.tail():
        lines.append(scanner.tail())
    return [line.strip() for line in lines], scanner


TEXT = (
    b'plain\n{"a":1}\n  {"b":2}\r\nprogress 1%\rprogress 2%\r{"c":3}\n\n\nx {"d":4}\n{e\n'
    b'\r\r{"f":5}\r{"g":6}\n'
    b' \t {"h":7}\nno { here\n{}\n}{\n{"last":8}'
)
EXPECTED = [
    b'{"a":1}', b'{"b":2}', b'{"c":3}', b"{e", b'{"f":5}', b'{"g":6}', b'{"h":7}', b"{}", b'{"last":8}',
]  # fmt: skip


def test_candidates_begin_with_a_brace() -> None:
    """A candidate is a line that begins with a brace, after blanks or a carriage return."""
    assert scan(TEXT, [])[0] == EXPECTED


@pytest.mark.parametrize("seed", range(50))
def test_pieces_of_any_size_give_the_same_candidates(seed: int) -> None:
    """The candidates do not depend on the ends of the reads."""
    draw = random.Random(seed)
    cuts = sorted(draw.sample(range(1, len(TEXT)), draw.randint(1, 40)))
    assert scan(TEXT, cuts)[0] == EXPECTED


def test_single_bytes_give_the_same_candidates() -> None:
    """Reads of one byte give the same candidates."""
    assert scan(TEXT, list(range(1, len(TEXT))))[0] == EXPECTED


def test_a_line_beyond_the_limit_is_counted_and_skipped() -> None:
    """Memory is bounded, and the line after an oversized line is found."""
    text = b'{"a":1}\n{' + b"x" * 5000 + b'\n{"b":2}\n'
    lines, scanner = scan(text, list(range(100, len(text), 100)), limit_bytes=1000)
    assert lines == [b'{"a":1}', b'{"b":2}']
    assert scanner.oversized == 1


def test_long_blanks_before_a_brace_are_not_a_line_start() -> None:
    """A brace after text and many blanks is no candidate, also over many pieces."""
    assert scan(b"x" + b" " * 500 + b'{"a":1}\n{"b":2}\n', [1, 100, 300, 501])[0] == [b'{"b":2}']
