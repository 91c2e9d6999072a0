"""Scenarios of the state machine: each .txt file here is a transcript that is played event by event.

The first line is the title. `> kind name=value ...` is an event; evidence that is not given has defaults. `>
(break)` and `> (empty)` are the events that the daemon makes of a bad exit and of an empty process tree. `!
kind` is an event that is refused and changes nothing; `= PLACE name=value ...` is checked then. Values are
JSON or words; `-` is none.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mosaicd.core.fsm import Event, IllegalTransition, Kind, apply, broke_event, conclude, owed, place
from mosaicd.core.run import Run
from mosaicd.protocol.states import RunKind
from tests.unit.lifecycle import AT, make_event, new_run

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(scenario: Path) -> None:
    """The run follows the transcript; asking twice for the owed action gives the same one."""
    title, _, script = scenario.read_text(encoding="utf-8").partition("\n\n")
    assert title.strip().endswith(".")
    run: Run | None = None
    for number, line in enumerate(script.splitlines(), 3):
        if not line.strip():
            continue
        mark, *words = split(line)
        try:
            run = play(run, mark, words)
        except IllegalTransition as error:
            pytest.fail(f"{scenario.name}:{number}: {error}")
        if run is not None:
            assert owed(run) is owed(run)


def play(run: Run | None, mark: str, words: list[str]) -> Run:
    """Apply one line of a scenario; return the run."""
    name, values = (
        words[0],
        {key: value(text) for key, _, text in (word.partition("=") for word in words[1:])},
    )
    if mark == ">" and name == "submitted":
        if "kind" in values:
            values["kind"] = RunKind(values["kind"])
        return new_run(**values)
    assert run is not None, "a scenario begins with > submitted"
    if mark == ">":
        return apply(run, event_of(run, name, values))
    if mark == "!":
        with pytest.raises(IllegalTransition):
            apply(run, make_event(Kind(name), **values))
        return run
    assert mark == "="
    expected = {"place": name, **values}
    assert {key: shown_value(run, key) for key in expected} == expected
    return run


def event_of(run: Run, name: str, values: dict[str, Any]) -> Event:
    """Return the event of a `>` line."""
    if name == "(break)":
        assert owed(run) == "break"
        return broke_event(run, AT)
    if name == "(empty)":
        assert owed(run) == "empty_tree"
        return conclude(run, AT, values.get("backoff_s", 0.0))
    return make_event(Kind(name), **values)


def shown_value(run: Run, key: str) -> Any:
    """Return the value of a run under a name of a transcript."""
    if key == "place":
        return str(place(run))
    if key == "owes":
        return owed(run)
    name, _, inner = key.partition(".")
    shown = run.to_dict()[name]
    return (shown or {}).get(inner) if inner else shown


def split(line: str) -> list[str]:
    """Split at spaces outside of JSON braces and brackets."""
    words, depth = [""], 0
    for character in line:
        depth += (character in "{[") - (character in "}]")
        if character == " " and not depth:
            words.append("")
        else:
            words[-1] += character
    return [word for word in words if word]


def value(text: str) -> Any:
    """Return the value of a word: none, JSON, or the word."""
    if text == "-":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_every_outcome_has_a_scenario() -> None:
    """Every outcome of a run is in some scenario."""
    text = "".join(scenario.read_text(encoding="utf-8") for scenario in SCENARIOS)
    outcomes = ("succeeded", "failed", "cancelled", "timeout", "interrupted")
    assert not [outcome for outcome in outcomes if f"outcome={outcome}" not in text]
