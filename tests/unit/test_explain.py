"""Why a run waits, and what would start it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.explain import Explanation, Holder, Scene, explain, reason
from mosaicd.core.queue import Queue, Waiting
from mosaicd.core.slots import Capacity, Withheld

ADA, BEA = 1000, 1001
NOW = 100.0


def scene(capacity: Capacity, holders: Sequence[Holder] = ()) -> Scene:
    """The machine with what these runs hold of it."""
    used: dict[int, int] = {}
    for holder in holders:
        capacity = capacity.less(holder.grant)
        used[holder.owner_uid] = used.get(holder.owner_uid, 0) + holder.cpus
    return Scene(capacity, used, NOW, holders, {ADA: "ada", BEA: "bea"})


def why(waiting: Waiting, where: Scene, others: Sequence[Waiting] = ()) -> Explanation:
    return explain(waiting.run_id, Queue([*others, waiting]), where)


def kinds(explanation: Explanation) -> list[str]:
    return [fact["fact"] for fact in explanation.facts]


def texts(explanation: Explanation) -> list[list[str]]:
    return [[step["text"] for step in steps] for steps in explanation.changes]


BIG = Holder("h1", "big", "bea", BEA, 3, (0,))
SMALL = Holder("h2", "small", "ada", ADA, 1)


def test_one_is_one() -> None:
    """One CPU is no `1 CPUs`, neither as what is needed nor as what would do; one that is free is."""
    told = why(Waiting("w", ADA), scene(Capacity(4), [BIG, SMALL]))
    assert told.facts[0]["text"] == "it needs 1 CPU; 0 of 4 are free"
    told = why(Waiting("w", ADA, cpus=2), scene(Capacity(4), [BIG]))
    assert told.facts[0]["text"] == "it needs 2 CPUs; 1 of 4 is free"
    assert texts(told)[0] == ["ask for 1 CPU"]


def test_nothing_blocks_a_run_that_starts_next() -> None:
    """No fact, no reason, no change."""
    assert why(Waiting("w", ADA), scene(Capacity(4))) == Explanation("w", None, [], [])


def test_held_is_said_and_release_is_the_change() -> None:
    """A held run on a free machine: one fact, one step."""
    told = why(Waiting("w", ADA, held=True), scene(Capacity(4)))
    assert kinds(told) == ["held"] and texts(told) == [["release it"]]


def test_a_back_off_has_the_seconds_that_are_left() -> None:
    """A run in its back-off: the time of its start, and the seconds until then."""
    told = why(Waiting("w", ADA, not_before=NOW + 12.5), scene(Capacity(4)))
    [fact] = told.facts
    assert "12.5 s" in fact.pop("text")
    assert fact == {"fact": "not_before", "not_before": NOW + 12.5, "wait_s": 12.5}
    assert texts(told) == [["skip its back-off"]]


def test_what_is_too_little_and_who_holds_it() -> None:
    """Numbers and owners: needed, free, total, held by whom; the smallest end that is enough comes first."""
    told = why(Waiting("w", ADA, cpus=2, gpus=1, mandatory=True), scene(Capacity(4, 0, 1), [BIG, SMALL]))
    assert kinds(told) == ["cpus", "gpus"]
    assert told.facts[0]["text"] == "it needs 2 CPUs; 0 of 4 are free"
    assert [holder["owner"] for holder in told.facts[0]["held_by"]] == ["bea", "ada"]
    assert told.facts[1]["held_by"] == [
        {"run_id": "h1", "name": "big", "owner": "bea", "cpus": 3, "slots": [0]}
    ]
    assert texts(told) == [["big of bea ends"]]


def test_fewer_cpus_are_named_when_they_would_do() -> None:
    """The largest smaller request that starts."""
    told = why(Waiting("w", ADA, cpus=4), scene(Capacity(4), [SMALL]))
    assert texts(told) == [["ask for 3 CPUs"], ["small of ada ends"]]


def test_runs_ahead_are_named_with_the_rule_that_puts_them_there() -> None:
    """Who goes first and why, and the least priority that would pass them."""
    others = [
        Waiting("a", BEA, priority=5, cpus=2, submit_order=9),
        Waiting("b", BEA, cpus=2, submit_order=1),
        Waiting("c", ADA, cpus=2, submit_order=2),
    ]
    told = why(Waiting("w", ADA, cpus=2, submit_order=3), scene(Capacity(4)), others)
    (fact,) = told.facts
    assert fact["text"] == "3 runs are ahead of it (ada, bea)"
    assert [(run["run_id"], run["because"]) for run in fact["runs"]] == [
        ("a", "higher priority"),
        ("c", "submitted earlier"),
        ("b", "submitted earlier"),
    ]
    assert [run["starts"] for run in fact["runs"]] == [True, True, False]
    assert told.reason == "waits in the queue"
    assert texts(told)[0] == ["raise its priority to 1"]


def test_a_neighbour_who_holds_less_goes_first() -> None:
    """Fair share is a fact like any other."""
    told = why(
        Waiting("w", ADA, submit_order=1), scene(Capacity(2), [SMALL]), [Waiting("b", BEA, submit_order=5)]
    )
    assert told.facts[0]["runs"][0]["because"] == "its owner uses fewer CPUs"


def test_gpus_that_the_machine_has_no_more() -> None:
    """Impossible is said as such, with what is possible."""
    told = why(Waiting("w", ADA, gpus=3, mandatory=True), scene(Capacity(4, 0, 2)))
    assert kinds(told)[0] == "impossible"
    assert told.reason == "needs 3 GPUs, the machine has 2"
    assert texts(told) == [["ask for 2 GPUs"]]


def test_a_run_that_does_not_wait_is_a_key_error() -> None:
    """Only waiting runs are explained."""
    with pytest.raises(KeyError):
        explain("missing", Queue(), scene(Capacity(1)))


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        (Waiting("w", ADA, held=True), "held"),
        (Waiting("w", ADA, not_before=NOW + 1), "retry in 1 s"),
        (Waiting("w", ADA, cpus=9, gpus=1), "needs 4 CPUs, 0 of 4 free; 1 GPU, 0 of 1 free"),
    ],
)
def test_the_short_reason(waiting: Waiting, text: str) -> None:
    """A few words for each run object."""
    assert reason(waiting, scene(Capacity(4, 0, 1), [BIG, SMALL]).capacity, NOW) == text
    assert reason(Waiting("w", ADA), Capacity(1), NOW) == "waits in the queue"


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[Waiting], Scene]:
    """A machine, runs that hold parts of it, and runs that wait."""
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
    return runs, scene(capacity, holders)


def changed(run: Waiting, where: Scene, steps: list[dict[str, Any]]) -> tuple[Waiting, Scene]:
    """Carry out the steps, as a reader would."""
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
    return run, scene(total, [holder for holder in where.holders if holder.run_id not in ended])


@given(machines())
def test_every_change_told_starts_the_run(machine: tuple[list[Waiting], Scene]) -> None:
    """A change is a promise: carried out, the next plan starts the run.  Without a fact it starts anyway."""
    runs, where = machine
    queue = Queue(runs)
    starting = {start.run_id for start in queue.plan(where.capacity, where.used, NOW)}
    for run in runs:
        told = explain(run.run_id, queue, where)
        assert (not told.facts) == (run.run_id in starting)
        assert bool(told.facts) == bool(told.changes), "there is always something that would start it"
        assert json.loads(json.dumps(told.to_dict())) == told.to_dict()
        for steps in told.changes:
            assert steps and len({json.dumps(step) for step in steps}) == len(steps)
            other, then = changed(run, where, steps)
            again = Queue([other, *(waiting for waiting in runs if waiting is not run)])
            assert run.run_id in {start.run_id for start in again.plan(then.capacity, then.used, NOW)}
    assert set(queue) == set(runs), "asking changes nothing"


def test_what_is_withheld_is_told_and_nobody_is_to_end_it() -> None:
    """Reserved slots of a quarantined run are a fact of their own for runs that need them; no change frees
    them."""
    kept = Withheld("lost", "bea", 2, (0,), (77,))
    capacity = Capacity(4, 2, 1, frozenset({0}), 2, frozenset({0}))
    where = replace(scene(capacity, [SMALL]), withheld=[kept])
    told = why(Waiting("w", ADA, gpus=1), where)
    assert kinds(told) == ["gpus", "withheld"]
    assert "pid 77" in told.facts[1]["text"] and "2 CPUs and GPU slot 0" in told.facts[1]["text"]
    assert texts(told) == [["ask for 0 GPUs"]]
    assert told.reason == "needs 1 GPU, 0 of 1 free (1 reserved)"
    assert reason(Waiting("w", ADA, cpus=4), capacity, NOW) == "needs 4 CPUs, 2 of 4 free (2 reserved)"
    assert kinds(why(Waiting("w", ADA), where)) == []


def test_what_is_withheld_is_told_as_far_as_it_is_known() -> None:
    """Before the first look, and where no CPUs or slots are known, the sentence says no more."""
    assert "reserved" not in Withheld("r", "o").summary()
    assert "GPU slots 1, 3" in Withheld("r", "o", 0, (1, 3)).summary()
