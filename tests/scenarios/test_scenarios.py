"""Transcripts of lives: each .txt file here is a story, played event by event.

Its first line says what it is about.  `> kind name=value ...` is an event, with the least evidence filled in;
`> (break)` and `> (empty)` are what the daemon makes of a bad exit and of an empty tree; `! kind` is refused
and changes nothing; `= PLACE name=value ...` is what must be true then.  Values are JSON or words; `-` is
none.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mosaicd.core.fsm import Event, IllegalTransition, Kind, apply, breaking, conclude, owed, place
from mosaicd.core.run import Run
from mosaicd.protocol.states import RunKind
from tests.unit.lives import AT, happening, new_run

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_story(story: Path) -> None:
    """The life goes as the transcript says; whatever is owed is the same when asked twice."""
    title, _, script = story.read_text(encoding="utf-8").partition("\n\n")
    assert title.strip().endswith(".")
    run: Run | None = None
    for number, line in enumerate(script.splitlines(), 3):
        if not line.strip():
            continue
        mark, *words = split(line)
        try:
            run = play(run, mark, words)
        except IllegalTransition as error:
            pytest.fail(f"{story.name}:{number}: {error}")
        if run is not None:
            assert owed(run) is owed(run)


def play(run: Run | None, mark: str, words: list[str]) -> Run:
    name, values = (
        words[0],
        {key: value(text) for key, _, text in (word.partition("=") for word in words[1:])},
    )
    if mark == ">" and name == "submitted":
        if "kind" in values:
            values["kind"] = RunKind(values["kind"])
        return new_run(**values)
    assert run is not None, "a story begins with > submitted"
    if mark == ">":
        return apply(run, made(run, name, values))
    if mark == "!":
        with pytest.raises(IllegalTransition):
            apply(run, happening(Kind(name), **values))
        return run
    assert mark == "="
    expected = {"place": name, **values}
    assert {key: found(run, key) for key in expected} == expected
    return run


def made(run: Run, name: str, values: dict[str, Any]) -> Event:
    if name == "(break)":
        assert owed(run) == "break"
        return breaking(run, AT)
    if name == "(empty)":
        assert owed(run) == "empty_tree"
        return conclude(run, AT, values.get("backoff_s", 0.0))
    return happening(Kind(name), **values)


def found(run: Run, key: str) -> Any:
    """What a run shows under a name of a transcript."""
    if key == "place":
        return str(place(run))
    if key == "owes":
        return owed(run)
    name, _, inner = key.partition(".")
    shown = run.to_dict()[name]
    return (shown or {}).get(inner) if inner else shown


def split(line: str) -> list[str]:
    """Split at blanks outside of JSON braces and brackets."""
    words, depth = [""], 0
    for character in line:
        depth += (character in "{[") - (character in "}]")
        if character == " " and not depth:
            words.append("")
        else:
            words[-1] += character
    return [word for word in words if word]


def value(text: str) -> Any:
    if text == "-":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_there_are_stories() -> None:
    """The folder is read at all, and every way a run can end is told."""
    told = "".join(story.read_text(encoding="utf-8") for story in STORIES)
    ends = ("succeeded", "failed", "cancelled", "timeout", "interrupted")
    assert not [end for end in ends if f"outcome={end}" not in told]
