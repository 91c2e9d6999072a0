"""The runs that a retention policy chooses for pruning."""

from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.retention import EndedRun, Policy, choose

NOW = 1_800_000_000.0

LIMITS = st.none() | st.integers(1, 6)
ENDED = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 40), st.booleans(), st.booleans(), st.integers(0, 9)),
    max_size=14,
)


def run(number: int, owner_uid: int = 1, age: float = 0.0, pinned: bool = False) -> EndedRun:
    return EndedRun(
        run_id=f"{number:026d}", name="n", owner_uid=owner_uid, owner=str(owner_uid), outcome="failed",
        created_at=NOW - age - 1, finished_at=NOW - age, pinned=pinned,
    )  # fmt: skip


@given(ENDED, LIMITS, LIMITS, LIMITS, st.none() | st.integers(1, 40))
def test_the_policy_prunes_no_more_than_its_limits_need(
    rows: list[tuple[int, int, bool, bool, int]],
    most_runs: int | None, most_bytes: int | None, most_in_all: int | None, age_s: int | None,
) -> None:  # fmt: skip
    """Pinned and kept runs stay, and each limit holds unless only such runs remain."""
    runs = [run(n, uid, age, pinned) for n, (uid, age, pinned, _, _) in enumerate(rows)]
    kept = frozenset(r.run_id for r, row in zip(runs, rows, strict=True) if row[3])
    sizes = {r.run_id: row[4] for r, row in zip(runs, rows, strict=True)}
    policy = Policy(age_s, most_runs, most_bytes, most_in_all)
    chosen = choose(runs, policy, NOW, sizes, kept)

    free = {r.run_id for r in runs if not r.pinned} - kept
    assert chosen.keys() <= free
    remaining = [r for r in runs if r.run_id not in chosen]
    for uid in {r.owner_uid for r in runs}:
        own = [r for r in remaining if r.owner_uid == uid]
        prunable_left = {r.run_id for r in own} & free
        if most_runs is not None:
            assert len(own) <= most_runs or not prunable_left
        if most_bytes is not None:
            assert sum(sizes[r.run_id] for r in own) <= most_bytes or not sum(sizes[i] for i in prunable_left)
    if most_in_all is not None:
        total = sum(sizes[r.run_id] for r in remaining)
        assert total <= most_in_all or not sum(sizes[i] for i in free - chosen.keys())
    if age_s is not None:
        assert not [r for r in remaining if r.run_id in free and r.finished_at < NOW - age_s]
    reasons = {"age_days": age_s, "runs_per_user": most_runs, "bytes_per_user": most_bytes,
               "bytes_total": most_in_all}  # fmt: skip
    assert all(reasons[why] is not None for why in chosen.values())


def test_without_a_policy_everything_stays() -> None:
    """Without a limit, retention prunes no run."""
    assert Policy().is_off
    assert choose([run(n, age=1e9) for n in range(50)], Policy(), NOW, {}, frozenset()) == {}


def test_the_runs_that_ended_first_are_pruned_first() -> None:
    """The oldest ends are chosen first, whatever the order of the argument."""
    runs = [run(n, age=age) for n, age in enumerate([5, 40, 1, 30])]
    chosen = choose(runs, Policy(runs_per_user=2), NOW, {}, frozenset())
    assert list(chosen) == [runs[1].run_id, runs[3].run_id]


def test_pinned_runs_count_and_stay() -> None:
    """With three pinned runs and a limit of two, all other runs are pruned."""
    pinned = [run(n, age=50 - n, pinned=True) for n in range(3)]
    free = [run(n, age=10 - n) for n in range(3, 6)]
    chosen = choose([*pinned, *free], Policy(runs_per_user=2), NOW, {}, frozenset())
    assert set(chosen) == {r.run_id for r in free}


def test_one_users_runs_do_not_count_against_another() -> None:
    """A limit per user prunes no run of a user within the limit."""
    runs = [*(run(n, 1, age=n) for n in range(5)), *(run(n, 2, age=100 + n) for n in range(5, 7))]
    chosen = choose(runs, Policy(runs_per_user=2), NOW, {}, frozenset())
    assert {r.owner_uid for r in runs if r.run_id in chosen} == {1}


def test_a_run_is_pruned_once_with_the_first_rule_it_exceeds() -> None:
    """A run that is pruned for its age no longer counts for the other limits."""
    runs = [run(n, age=age) for n, age in enumerate([100, 90, 3, 2])]
    sizes = {r.run_id: 10 for r in runs}
    chosen = choose(runs, Policy(age_s=50, bytes_total=20), NOW, sizes, frozenset())
    assert chosen == {runs[0].run_id: "age_days", runs[1].run_id: "age_days"}


def test_empty_runs_are_not_pruned_for_a_byte_limit() -> None:
    """A limit of bytes prunes only runs that have bytes."""
    runs = [run(0, age=9), run(1, age=8), run(2, age=7)]
    sizes = {runs[0].run_id: 0, runs[1].run_id: 30, runs[2].run_id: 5}
    assert list(choose(runs, Policy(bytes_per_user=10), NOW, sizes, frozenset())) == [runs[1].run_id]
