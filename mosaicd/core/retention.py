"""Retention: the ended runs that a policy deletes, oldest end first.

Note: pinned and kept runs count towards the limits but are never chosen, so a limit may stay exceeded.  Live
runs are not considered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The fields of an ended run that retention needs; `_at` in Unix seconds."""

    run_id: str
    name: str
    owner_uid: int
    owner: str
    outcome: str
    created_at: float
    finished_at: float
    pinned: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of retention; None means no limit."""

    age_s: float | None = None
    runs_per_user: int | None = None
    bytes_per_user: int | None = None
    bytes_total: int | None = None

    @property
    def is_off(self) -> bool:
        """Whether there is no limit, so that all runs stay."""
        return self == Policy()

    @property
    def needs_sizes(self) -> bool:
        """Whether a limit needs the sizes of the runs."""
        return self.bytes_per_user is not None or self.bytes_total is not None


def choose(
    runs: Sequence[EndedRun], policy: Policy, now: float, sizes: Mapping[str, int], kept: frozenset[str]
) -> dict[str, str]:
    """Return run id -> the setting that selects it, in the order of deletion.

    `runs` are all ended runs, `sizes` has bytes by run id (absent: 0), `kept` has ids that stay although they
    are not pinned.
    """
    chosen: dict[str, str] = {}
    by_age = sorted(runs, key=lambda run: (run.finished_at, run.run_id))
    deletable = [run for run in by_age if not run.pinned and run.run_id not in kept]
    if policy.age_s is not None:
        for run in deletable:
            if run.finished_at < now - policy.age_s:
                chosen[run.run_id] = "age_days"
    for uid in {run.owner_uid for run in by_age}:
        own = [run for run in by_age if run.owner_uid == uid]
        own_deletable = [run for run in deletable if run.owner_uid == uid]
        _choose_oldest(
            own, own_deletable, {run.run_id: 1 for run in own}, policy.runs_per_user, "runs_per_user", chosen
        )
        _choose_oldest(own, own_deletable, sizes, policy.bytes_per_user, "bytes_per_user", chosen)
    _choose_oldest(by_age, deletable, sizes, policy.bytes_total, "bytes_total", chosen)
    return {run.run_id: chosen[run.run_id] for run in by_age if run.run_id in chosen}


def _choose_oldest(
    runs: Sequence[EndedRun],
    deletable: Sequence[EndedRun],
    weights: Mapping[str, int],
    limit: int | None,
    why: str,
    chosen: dict[str, str],
) -> None:
    """Add the oldest runs of `deletable` to `chosen` until the rest of `runs` weighs at most `limit`.

    `deletable` is ordered by end, the oldest first.
    """
    if limit is None:
        return
    left = sum(weights.get(run.run_id, 0) for run in runs if run.run_id not in chosen)
    for run in deletable:
        if left <= limit:
            return
        weight = weights.get(run.run_id, 0)
        if run.run_id not in chosen and weight > 0:
            chosen[run.run_id] = why
            left -= weight
