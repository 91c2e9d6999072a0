"""Durations of the command line: each form has one meaning."""

import argparse

import pytest

from mosaicctl.cli import build_parser
from mosaicd.protocol.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0.0", 0), ("0s", 0), ("30s", 30), ("30m", 1800), ("1h30m", 5400), ("1 h 30 M", 5400),
        ("2d", 172_800), ("1w", 604_800), ("250ms", 0.25), ("1.5h", 5400), ("0:01:30", 90),
        ("1:30:00", 5400), ("36:00:00", 129_600), ("2-12:00:00", 216_000),
    ],
)  # fmt: skip
def test_a_duration_has_units_or_three_parts_or_is_0(text: str, seconds: float) -> None:
    """Numbers with units, H:MM:SS with or without days, and 0 are durations."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("30", ["30s", "30m"]), ("0.5", ["0.5s", "0.5m"]), ("1:30", ["0:01:30", "1:30:00"]),
        ("90:05", ["1:30:05", "90:05:00"]),
    ],
)  # fmt: skip
def test_a_text_with_two_meanings_is_refused_with_both(text: str, meanings: list[str]) -> None:
    """A bare number and a two-part time are refused; the message has both meanings as valid durations."""
    with pytest.raises(ValueError, match="write") as refused:
        parse_duration(text)
    words = str(refused.value).split()
    assert all(meaning in words for meaning in meanings)
    assert len({parse_duration(meaning) for meaning in meanings}) == 2


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-5m", "1:60:00", "1:00:60", "12:61", "1:5", "2-12:00", "5x", "9" * 400 + "h", "1e3s"],
)
def test_other_texts_are_no_durations(text: str) -> None:
    """A text without one of the forms is refused with the forms; minutes and seconds end at 59."""
    with pytest.raises(ValueError, match=r"90s.*1:30:00"):
        parse_duration(text)


def test_every_duration_option_refuses_a_bare_number() -> None:
    """Each option of each verb whose value is a duration reads it in this way."""
    verbs = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    options = [
        (verb, action)
        for verb, parser in verbs.choices.items()
        for action in parser._actions
        if action.metavar == "DURATION"
    ]
    assert {verb for verb, _ in options} >= {"submit", "run", "stop", "wait", "prune"}
    for verb, action in options:
        assert callable(action.type)
        for text in ("30", "1:30"):
            with pytest.raises(argparse.ArgumentTypeError, match="write"):
                action.type(text)
        assert action.type("30s") == 30, verb
