"""Sizes of memory on the command line."""

import pytest

from mosaicctl.sizes import parse_mebibytes


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("512M", 512), ("1.5G", 1536), ("4GiB", 4096), ("4gb", 4096), ("2 T", 2 << 20), ("1K", 1),
        ("1025K", 2), ("0.5m", 1),
    ],
)  # fmt: skip
def test_a_size_has_a_unit_of_powers_of_1024(text: str, mebibytes: int) -> None:
    """K, M, G and T, also with B or iB, are powers of 1024; the size is rounded up to MiB."""
    assert parse_mebibytes(text) == mebibytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4", "4M or 4G"), ("0", "more than 0"), ("0G", "more than 0"), ("", "512M"), ("-1G", "512M"),
        ("4X", "512M"), ("1e3M", "512M"), ("G", "512M"), ("9" * 400 + "G", "512M"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_size_is_refused(text: str, words: str) -> None:
    """A bare number is refused with both meanings, 0 with the rule, and other texts with the forms."""
    with pytest.raises(ValueError, match=words):
        parse_mebibytes(text)
