"""Cutting output into candidate lines, whatever the pieces it comes in."""

import random

import pytest

from mosaicd.shim.scanner import Scanner


def scan(text: bytes, cuts: list[int], limit_bytes: int = 1 << 20) -> tuple[list[bytes], Scanner]:
    """Feed `text` cut at `cuts`; a last candidate without its end is taken too."""
    scanner = Scanner(limit_bytes)
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece = bytearray(text[start:end]) + b"{rubbish of an earlier round\n"
        found += scanner.feed(piece, end - start)
    if scanner.tail():
        found.append(scanner.tail())
    return [line.strip() for line in found], scanner


TEXT = (
    b'plain\n{"a":1}\n  {"b":2}\r\nprogress 1%\rprogress 2%\r{"c":3}\n\n\nx {"d":4}\n{e\n'
    b'\r\r{"f":5}\r{"g":6}\n'
    b' \t {"h":7}\nno { here\n{}\n}{\n{"last":8}'
)
EXPECTED = [
    b'{"a":1}', b'{"b":2}', b'{"c":3}', b"{e", b'{"f":5}', b'{"g":6}', b'{"h":7}', b"{}", b'{"last":8}',
]  # fmt: skip


def test_whole() -> None:
    """Lines that begin with a brace, after blanks or a carriage return, and no others."""
    assert scan(TEXT, [])[0] == EXPECTED


@pytest.mark.parametrize("seed", range(50))
def test_any_cutting_gives_the_same(seed: int) -> None:
    """Where one read ends and the next begins changes nothing."""
    draw = random.Random(seed)
    cuts = sorted(draw.sample(range(1, len(TEXT)), draw.randint(1, 40)))
    assert scan(TEXT, cuts)[0] == EXPECTED


def test_byte_by_byte() -> None:
    """Not even single bytes."""
    assert scan(TEXT, list(range(1, len(TEXT))))[0] == EXPECTED


def test_a_line_beyond_the_limit_is_counted_and_skipped() -> None:
    """Memory is bounded, and the next line is read again."""
    text = b'{"a":1}\n{' + b"x" * 5000 + b'\n{"b":2}\n'
    found, scanner = scan(text, list(range(100, len(text), 100)), limit_bytes=1000)
    assert found == [b'{"a":1}', b'{"b":2}']
    assert scanner.oversized == 1


def test_long_blanks_before_a_brace_are_not_a_line_start() -> None:
    """A dull line stays dull over many pieces."""
    assert scan(b"x" + b" " * 500 + b'{"a":1}\n{"b":2}\n', [1, 100, 300, 501])[0] == [b'{"b":2}']
