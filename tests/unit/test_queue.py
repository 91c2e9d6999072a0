"""The order of the queue, and the runs that a plan starts."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.queue import Queue, Start, Waiting
from mosaicd.core.slots import Capacity, Grant, choose, cpus_due, earmark, gpus_due

ADA, BEA = 1000, 1001
NOW = 100.0


def run(name: str, owner: int = ADA, **fields: object) -> Waiting:
    seq = int("".join(filter(str.isdigit, name)) or 0)
    return Waiting(name, owner, **{"submit_order": seq} | fields)  # type: ignore[arg-type]


def started(runs: Iterable[Waiting], capacity: Capacity, used: dict[int, int] | None = None) -> list[str]:
    return [start.run_id for start in Queue(runs).plan(capacity, used or {}, NOW)]


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    return [
        Waiting(
            f"r{seq}",
            draw(st.integers(1, 3)),
            draw(st.integers(-1, 1)),
            draw(st.integers(1, 6)),
            draw(st.integers(0, 3)),
            draw(st.booleans()),
            draw(st.none() | st.floats(90, 110)),
            draw(st.booleans()) and draw(st.booleans()),
            seq,
        )
        for seq in draw(st.permutations(range(draw(st.integers(0, 12)))))
    ]


CAPACITIES = st.builds(
    Capacity, st.integers(1, 6), st.integers(0, 4), st.integers(0, 3), st.frozensets(st.integers(0, 2))
)
SHARES = st.dictionaries(st.integers(1, 3), st.integers(0, 5))


def plan_by_sorting(runs: list[Waiting], capacity: Capacity, used: dict[int, int]) -> list[Start]:
    """Return the plan by the simplest implementation of the policy."""
    eligible = [run for run in runs if not run.held and (run.not_before is None or run.not_before <= NOW)]
    share, starts = dict(used), []
    while eligible:
        head = min(eligible, key=lambda run: (-run.priority, share.get(run.owner_uid, 0), run.submit_order))
        eligible.remove(head)
        if not capacity.cpus_free:
            break
        grant = choose(head.cpus, head.gpus, head.mandatory, capacity)
        if grant is not None:
            starts.append(Start(head.run_id, grant))
            share[head.owner_uid] = share.get(head.owner_uid, 0) + grant.cpus
        capacity = capacity.less(grant or earmark(head.cpus, head.gpus, head.mandatory, capacity))
    return starts


@given(queues(), CAPACITIES, SHARES)
def test_a_plan_equals_that_of_the_simplest_implementation(
    runs: list[Waiting], capacity: Capacity, used: dict[int, int]
) -> None:
    """Order: priority, fewest CPUs in use by the owner, submission; a blocked run reserves what it needs."""
    assert Queue(runs).plan(capacity, used, NOW) == plan_by_sorting(runs, capacity, used)


@given(queues(), CAPACITIES, SHARES)
def test_a_plan_fits_the_machine(runs: list[Waiting], capacity: Capacity, used: dict[int, int]) -> None:
    """A plan grants only free CPUs and slots, each slot once, and starts each run once."""
    starts = Queue(runs).plan(capacity, used, NOW)
    slots = [slot for start in starts for slot in start.grant.slots]
    assert sum(start.grant.cpus for start in starts) <= capacity.cpus_free
    assert len(slots) == len(set(slots)) and set(slots) <= set(capacity.gpus_free)
    assert len({start.run_id for start in starts}) == len(starts)


@given(queues(), queues(), CAPACITIES, SHARES)
def test_a_changed_queue_plans_like_a_new_queue(
    before: list[Waiting], after: list[Waiting], capacity: Capacity, used: dict[int, int]
) -> None:
    """After changes and removals only the waiting runs count; planning does not change the queue."""
    queue = Queue(before)
    queue.plan(capacity, used, NOW)
    queue.next_due(NOW)
    for waiting in after:
        queue.put(waiting)
    kept = {waiting.run_id for waiting in after}
    for waiting in before:
        if waiting.run_id not in kept:
            queue.discard(waiting.run_id)
    queue.discard("missing")
    fresh = Queue(after)
    assert (
        queue.plan(capacity, used, NOW) == queue.plan(capacity, used, NOW) == fresh.plan(capacity, used, NOW)
    )
    assert queue.order(capacity, used, NOW) == fresh.order(capacity, used, NOW)
    assert queue.next_due(NOW) == fresh.next_due(NOW)
    assert len(queue) == len(after) and set(queue) == set(after)


@given(queues(), CAPACITIES, SHARES)
def test_the_first_run_is_never_delayed_by_runs_behind_it(
    runs: list[Waiting], capacity: Capacity, used: dict[int, int]
) -> None:
    """The first run gets the same grant as alone; if it is blocked, the free resources it needs stay free."""
    order = Queue(runs).order(capacity, used, NOW)
    if not order:
        return
    head, before = order[0], capacity
    starts = Queue(runs).plan(capacity, used, NOW)
    alone = Queue([head]).plan(capacity, used, NOW)
    if alone:
        assert starts[0] == alone[0]
    elif not (head.mandatory and head.gpus > capacity.gpu_slots_total):
        for start in starts:
            capacity = capacity.less(start.grant)
        assert capacity.cpus_free >= min(cpus_due(head.cpus, capacity), before.cpus_free)
        assert len(capacity.gpus_free) >= min(gpus_due(head.gpus, capacity), len(before.gpus_free))


def test_priority_then_share_then_submission() -> None:
    """Fair share decides only between equal priorities, submission only between equal shares."""
    runs = [run("a1"), run("b2", BEA), run("b3", BEA, priority=1), run("a4")]
    assert started(runs, Capacity(1)) == ["b3"]
    assert [w.run_id for w in Queue(runs).order(Capacity(9), {}, NOW)] == ["b3", "a1", "b2", "a4"]
    assert started(runs[:2], Capacity(1), {ADA: 1}) == ["b2"]


def test_owners_alternate_within_one_plan() -> None:
    """A single run of one user starts before the rest of another user's sweep."""
    sweep = [run(f"a{n}") for n in range(1, 100)]
    assert started([*sweep, run("b500", BEA)], Capacity(4)) == ["a1", "b500", "a2", "a3"]


def test_a_big_run_is_not_starved_by_small_ones() -> None:
    """A blocked run reserves the free CPUs, so smaller runs behind it wait although they would fit."""
    runs = [run("big1", cpus=4), run("small2"), run("small3")]
    assert started(runs, Capacity(4, 1)) == []
    assert started(runs, Capacity(4, 0)) == ["big1"]


def test_free_cpus_that_no_run_ahead_needs_are_used() -> None:
    """A run that waits for a GPU reserves one CPU; the other CPUs go to runs behind it."""
    runs = [run("gpu1", gpus=1, mandatory=True), run("cpu2", cpus=2), run("cpu3", cpus=2)]
    assert started(runs, Capacity(4, 0, 1, frozenset({0}))) == ["cpu2"]


def test_a_run_that_can_never_start_blocks_no_other_run() -> None:
    """A run that needs more GPUs than the machine has does not delay the runs behind it."""
    runs = [run("lost1", gpus=2, mandatory=True, priority=9), run("cpu2", cpus=4)]
    assert started(runs, Capacity(4, 0, 1)) == ["cpu2"]


def test_held_runs_and_runs_in_back_off_are_skipped() -> None:
    """Such runs do not delay others; next_due returns the end of the next back-off."""
    queue = Queue([run("held1", held=True), run("later2", not_before=NOW + 5), run("now3")])
    assert queue.plan(Capacity(1), {}, NOW) == [Start("now3", Grant(1))]
    assert queue.next_due(NOW) == NOW + 5
    queue.discard("now3")
    assert queue.plan(Capacity(1), {}, NOW + 5) == [Start("later2", Grant(1))]
    assert queue.next_due(NOW + 5) is None


def test_a_plan_considers_few_of_many_runs() -> None:
    """A plan over 20,000 waiting runs considers no more runs than there are free CPUs."""
    queue = Queue(run(f"a{n}", owner=n % 5, cpus=1 + n % 3) for n in range(20_000))
    assert len(list(queue.consider(Capacity(8, 1), {}, NOW))) <= 7
    assert "a19999" in queue and queue.get("a19999") is not None
