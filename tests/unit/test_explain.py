"""The explanation of a waiting run: the facts that block it, and the changes that would start it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.explain import Explanation, Holder, Snapshot, explain, reason
from mosaicd.core.queue import Queue, Waiting
from mosaicd.core.slots import Capacity, Withheld

ADA, BEA = 1000, 1001
NOW = 100.0


def snapshot(capacity: Capacity, holders: Sequence[Holder] = ()) -> Snapshot:
    """Return the machine with the slots that these runs hold."""
    used: dict[int, int] = {}
    for holder in holders:
        capacity = capacity.less(holder.grant)
        used[holder.owner_uid] = used.get(holder.owner_uid, 0) + holder.cpus
    return Snapshot(capacity, used, NOW, holders, {ADA: "ada", BEA: "bea"})


def why(waiting: Waiting, where: Snapshot, others: Sequence[Waiting] = ()) -> Explanation:
    return explain(waiting.run_id, Queue([*others, waiting]), where)


def kinds(explanation: Explanation) -> list[str]:
    return [fact["fact"] for fact in explanation.facts]


def texts(explanation: Explanation) -> list[list[str]]:
    return [[step["text"] for step in steps] for steps in explanation.changes]


BIG = Holder("h1", "big", "bea", BEA, 3, (0,))
SMALL = Holder("h2", "small", "ada", ADA, 1)


def test_a_count_of_one_is_singular() -> None:
    """A count of one has a singular noun and verb, in facts and in changes."""
    explanation = why(Waiting("w", ADA), snapshot(Capacity(4), [BIG, SMALL]))
    assert explanation.facts[0]["text"] == "it needs 1 CPU; 0 of 4 are free"
    explanation = why(Waiting("w", ADA, cpus=2), snapshot(Capacity(4), [BIG]))
    assert explanation.facts[0]["text"] == "it needs 2 CPUs; 1 of 4 is free"
    assert texts(explanation)[0] == ["ask for 1 CPU"]


def test_a_run_that_starts_next_has_no_facts() -> None:
    """The explanation of a run that can start has no reason, no fact and no change."""
    assert why(Waiting("w", ADA), snapshot(Capacity(4))) == Explanation("w", None, [], [])


def test_a_held_run_starts_when_it_is_released() -> None:
    """On a free machine the only fact is `held`, and the only change is its release."""
    explanation = why(Waiting("w", ADA, held=True), snapshot(Capacity(4)))
    assert kinds(explanation) == ["held"] and texts(explanation) == [["release it"]]


def test_a_back_off_shows_the_remaining_seconds() -> None:
    """The fact has the time of the next start and the seconds until then."""
    explanation = why(Waiting("w", ADA, not_before=NOW + 12.5), snapshot(Capacity(4)))
    [fact] = explanation.facts
    assert "12.5 s" in fact.pop("text")
    assert fact == {"fact": "not_before", "not_before": NOW + 12.5, "wait_s": 12.5}
    assert texts(explanation) == [["skip its back-off"]]


def test_missing_resources_are_shown_with_their_holders() -> None:
    """A fact has the needed, free and total numbers and the holders; the smallest sufficient end is first."""
    explanation = why(
        Waiting("w", ADA, cpus=2, gpus=1, mandatory=True), snapshot(Capacity(4, 0, 1), [BIG, SMALL])
    )
    assert kinds(explanation) == ["cpus", "gpus"]
    assert explanation.facts[0]["text"] == "it needs 2 CPUs; 0 of 4 are free"
    assert [holder["owner"] for holder in explanation.facts[0]["held_by"]] == ["bea", "ada"]
    assert explanation.facts[1]["held_by"] == [
        {"run_id": "h1", "name": "big", "owner": "bea", "cpus": 3, "slots": [0]}
    ]
    assert texts(explanation) == [["big of bea ends"]]


def test_the_largest_request_that_fits_is_suggested() -> None:
    """If fewer CPUs would start the run, the change has the largest such number."""
    explanation = why(Waiting("w", ADA, cpus=4), snapshot(Capacity(4), [SMALL]))
    assert texts(explanation) == [["ask for 3 CPUs"], ["small of ada ends"]]


def test_runs_ahead_are_listed_with_the_rule_of_their_order() -> None:
    """The fact lists each run ahead with its reason; the change has the lowest sufficient priority."""
    others = [
        Waiting("a", BEA, priority=5, cpus=2, submit_order=9),
        Waiting("b", BEA, cpus=2, submit_order=1),
        Waiting("c", ADA, cpus=2, submit_order=2),
    ]
    explanation = why(Waiting("w", ADA, cpus=2, submit_order=3), snapshot(Capacity(4)), others)
    (fact,) = explanation.facts
    assert fact["text"] == "3 runs are ahead of it (ada, bea)"
    assert [(run["run_id"], run["because"]) for run in fact["runs"]] == [
        ("a", "higher priority"),
        ("c", "submitted earlier"),
        ("b", "submitted earlier"),
    ]
    assert [run["starts"] for run in fact["runs"]] == [True, True, False]
    assert explanation.reason == "waits in the queue"
    assert texts(explanation)[0] == ["raise its priority to 1"]


def test_a_run_of_a_user_with_fewer_cpus_is_ahead() -> None:
    """Fair share is a reason for the order of the queue."""
    explanation = why(
        Waiting("w", ADA, submit_order=1), snapshot(Capacity(2), [SMALL]), [Waiting("b", BEA, submit_order=5)]
    )
    assert explanation.facts[0]["runs"][0]["because"] == "its owner uses fewer CPUs"


def test_a_request_beyond_the_machine_is_reported_as_impossible() -> None:
    """The reason has both numbers; the change has the largest possible request."""
    explanation = why(Waiting("w", ADA, gpus=3, mandatory=True), snapshot(Capacity(4, 0, 2)))
    assert kinds(explanation)[0] == "impossible"
    assert explanation.reason == "needs 3 GPUs, the machine has 2"
    assert texts(explanation) == [["ask for 2 GPUs"]]


def test_a_run_that_is_not_queued_raises_key_error() -> None:
    """Only waiting runs have an explanation."""
    with pytest.raises(KeyError):
        explain("missing", Queue(), snapshot(Capacity(1)))


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        (Waiting("w", ADA, held=True), "held"),
        (Waiting("w", ADA, not_before=NOW + 1), "retry in 1 s"),
        (Waiting("w", ADA, cpus=9, gpus=1), "needs 4 CPUs, 0 of 4 free; 1 GPU, 0 of 1 free"),
    ],
)
def test_the_short_reason_of_a_waiting_run(waiting: Waiting, text: str) -> None:
    """Each run object has a short reason."""
    assert reason(waiting, snapshot(Capacity(4, 0, 1), [BIG, SMALL]).capacity, NOW) == text
    assert reason(Waiting("w", ADA), Capacity(1), NOW) == "waits in the queue"


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[Waiting], Snapshot]:
    """Draw a machine, runs that hold slots of it, and waiting runs."""
    capacity = Capacity(draw(st.integers(1, 6)), 0, draw(st.integers(0, 3)))
    holders: list[Holder] = []
    left = capacity
    for number in range(draw(st.integers(0, 4))):
        if not left.cpus_free:
            break
        slots = left.gpus_free[: draw(st.integers(0, 2))]
        owner = draw(st.sampled_from([ADA, BEA]))
        holder = Holder(
            f"h{number}", f"name{number}", str(owner), owner, draw(st.integers(1, left.cpus_free)), slots
        )
        holders.append(holder)
        left = left.less(holder.grant)
    runs = [
        Waiting(
            f"w{seq}", draw(st.sampled_from([ADA, BEA])), draw(st.integers(-1, 1)), draw(st.integers(1, 7)),
            draw(st.integers(0, 4)), draw(st.booleans()), draw(st.none() | st.floats(NOW, NOW + 9)),
            draw(st.booleans()) and draw(st.booleans()), seq,
        )
        for seq in range(draw(st.integers(1, 6)))
    ]  # fmt: skip
    return runs, snapshot(capacity, holders)


def changed(run: Waiting, where: Snapshot, steps: list[dict[str, Any]]) -> tuple[Waiting, Snapshot]:
    """Return the run and the snapshot after the steps of a change."""
    ended = []
    for step in steps:
        match step["change"]:
            case "release":
                run = replace(run, held=False)
            case "begin":
                run = replace(run, not_before=None)
            case "end":
                ended.append(step["run_id"])
            case "priority" | "cpus" | "gpus" as what:
                run = replace(run, **{what: step[what]})
            case other:
                raise AssertionError(other)
    total = Capacity(where.capacity.cpus_total, 0, where.capacity.gpu_slots_total)
    return run, snapshot(total, [holder for holder in where.holders if holder.run_id not in ended])


@given(machines())
def test_every_suggested_change_starts_the_run(machine: tuple[list[Waiting], Snapshot]) -> None:
    """After a suggested change the next plan starts the run; a run without facts starts without a change."""
    runs, where = machine
    queue = Queue(runs)
    starting = {start.run_id for start in queue.plan(where.capacity, where.used, NOW)}
    for run in runs:
        explanation = explain(run.run_id, queue, where)
        assert (not explanation.facts) == (run.run_id in starting)
        assert bool(explanation.facts) == bool(explanation.changes), (
            "a run with facts has at least one change"
        )
        assert json.loads(json.dumps(explanation.to_dict())) == explanation.to_dict()
        for steps in explanation.changes:
            assert steps and len({json.dumps(step) for step in steps}) == len(steps)
            other, then = changed(run, where, steps)
            again = Queue([other, *(waiting for waiting in runs if waiting is not run)])
            assert run.run_id in {start.run_id for start in again.plan(then.capacity, then.used, NOW)}
    assert set(queue) == set(runs), "an explanation changed the queue"


def test_reserved_slots_of_a_quarantined_run_are_a_fact() -> None:
    """Runs that need slots of a quarantined run have the fact `withheld`; no change frees such slots."""
    kept = Withheld("lost", "bea", 2, (0,), (77,))
    capacity = Capacity(4, 2, 1, frozenset({0}), 2, frozenset({0}))
    where = replace(snapshot(capacity, [SMALL]), withheld=[kept])
    explanation = why(Waiting("w", ADA, gpus=1), where)
    assert kinds(explanation) == ["gpus", "withheld"]
    assert (
        "pid 77" in explanation.facts[1]["text"] and "2 CPUs and GPU slot 0" in explanation.facts[1]["text"]
    )
    assert texts(explanation) == [["ask for 0 GPUs"]]
    assert explanation.reason == "needs 1 GPU, 0 of 1 free (1 reserved)"
    assert reason(Waiting("w", ADA, cpus=4), capacity, NOW) == "needs 4 CPUs, 2 of 4 free (2 reserved)"
    assert kinds(why(Waiting("w", ADA), where)) == []


def test_the_sentence_about_a_quarantined_run_has_only_known_numbers() -> None:
    """Without known CPUs or slots, the sentence does not mention reserved ones."""
    assert "reserved" not in Withheld("r", "o").summary()
    assert "GPU slots 1, 3" in Withheld("r", "o", 0, (1, 3)).summary()
