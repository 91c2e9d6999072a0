"""Opening recovers the runs and events that a lost or stale registry lacks."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mosaicd.core.fsm import Event, Kind, apply, submitted
from mosaicd.core.run import Progress, Run
from mosaicd.protocol.states import Dedup, State
from mosaicd.store.loading import load
from mosaicd.store.recovering import FindMissing, MissingRuns, RecoveredRun
from mosaicd.store.recovery_report import MOST_NAMED, REPORTED_S, RecoveryReport
from mosaicd.store.registry import Registry
from mosaicd.store.replacing import ASIDE, RESTORED, finish, replace_with_empty
from tests.store.building import AT, event, ledger, new_run, raw, submission, to_exec, to_term
from tests.store.test_replacing import Interrupted, interrupt_at_rename

WHY = "the registry is damaged"


def recovered(run: Run, *events: Event) -> RecoveredRun:
    """Return a run as the reader of run directories gives it."""
    steps = [(submitted(submission(run)), submission(run))]
    for happened in events:
        steps.append((apply(steps[-1][0], happened), happened))
    return RecoveredRun(steps, Progress())


def finding(*runs: RecoveredRun, unreadable: int = 0) -> FindMissing:
    """Return a reader that finds these runs and a number of unreadable directories."""

    def find_missing(known: frozenset[str], live: Sequence[Run], has_loss: bool) -> MissingRuns:
        unknown = [found for found in runs if found.run.run_id not in known]
        faults = {f"directory-{number}": "no spec" for number in range(unreadable if has_loss else 0)}
        return MissingRuns(without_row=unknown, unreadable=faults)

    return find_missing


async def old_registry(path: Path) -> bytes:
    """Make a registry with one run and return its file."""
    registry = await Registry.open(path)
    await registry.add(submission(new_run(name="old")), dedup=Dedup.NEW)
    await registry.close()
    return path.read_bytes()


RUNS = (
    recovered(new_run(name="ended"), *to_exec(0), *to_term()),
    recovered(new_run(name="live"), *to_exec(0)),
    recovered(new_run(name="waits")),
)


async def test_a_lost_registry_is_rebuilt(path: Path) -> None:
    """Every run is recovered in the order of submission; the report stays while the old file exists."""
    before = await old_registry(path)
    replace_with_empty(path, WHY, AT)
    registry = await Registry.open(path, find_missing=finding(*RUNS))
    [report] = registry.recovery.reports
    assert report == registry.recovery.new and report.why == WHY
    assert (report.ended, report.live, report.waiting) == (1, 1, 1)
    [aside] = (path.parent / ASIDE).iterdir()
    assert report.set_aside == str(aside) and (aside / path.name).read_bytes() == before
    assert [run.name for run in registry.live.values()] == ["live", "waits"]
    assert registry.live[RUNS[1].run.run_id] == RUNS[1].run
    assert ledger(path, RUNS[0].run.run_id) == [recorded for _, recorded in RUNS[0].steps]
    epoch = registry.epoch
    await registry.close()

    registry = await Registry.open(path, find_missing=finding(*RUNS))
    assert (registry.epoch, registry.recovery.new, len(registry.recovery.reports)) == (epoch, None, 1)
    assert registry.recovery.reports[0].summary() == report.summary()
    await registry.close()
    shutil.rmtree(aside)
    registry = await Registry.open(path, find_missing=finding(*RUNS))
    assert registry.recovery.reports == []
    await registry.close()


@pytest.mark.parametrize("number", range(1, 8))
async def test_an_interrupted_replacement_is_finished_or_not_begun(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill at any rename the next start finds the old registry or continues with the empty one."""
    before = await old_registry(path)
    interrupt_at_rename(number, monkeypatch)
    if number < 7:
        with pytest.raises(Interrupted):
            replace_with_empty(path, WHY, AT)
    else:
        replace_with_empty(path, WHY, AT)
    monkeypatch.undo()
    aside = finish(path)
    if number == 1:
        assert aside is None and path.read_bytes() == before
        return
    registry = await Registry.open(path, find_missing=finding(*RUNS))
    assert registry.recovery.new is not None and registry.recovery.new.live == 1
    await registry.close()
    [aside_dir] = (path.parent / ASIDE).iterdir()
    assert (aside_dir / path.name).read_bytes() == before
    assert not Path(f"{path}{RESTORED}").exists() and not list(path.parent.glob("*.part*"))


async def test_an_interrupted_recovery_is_repeated(path: Path) -> None:
    """If the daemon is killed before the COMMIT, even repeatedly, the next start recovers everything."""
    await old_registry(path)
    replace_with_empty(path, WHY, AT)

    def dies(known: frozenset[str], live: Sequence[Run], has_loss: bool) -> MissingRuns:
        raise Interrupted

    for _ in range(2):
        with pytest.raises(Interrupted):
            load(path, AT, dies)
    registry = await Registry.open(path, find_missing=finding(*RUNS))
    assert registry.recovery.new is not None and registry.recovery.new.ended == 1
    await registry.close()


async def test_a_lost_registry_without_runs_is_reported(path: Path) -> None:
    """The loss of a registry is reported also if no run can be recovered."""
    await old_registry(path)
    replace_with_empty(path, WHY, AT)
    registry = await Registry.open(path, find_missing=finding(unreadable=3))
    [report] = registry.recovery.reports
    assert report.is_empty and len(report.not_recovered) == 3 and registry.live == {}
    await registry.close()


@pytest.mark.usefixtures("may_warn")
async def test_two_runs_never_share_a_slot(path: Path) -> None:
    """Of two runs with one slot, the run whose shim lives gets it; the other is quarantined and reported."""
    await old_registry(path)
    replace_with_empty(path, WHY, AT)
    first, second = recovered(new_run(), *to_exec(0)), recovered(new_run(), *to_exec(0))
    second = RecoveredRun(second.steps, second.progress, is_held=True)
    registry = await Registry.open(path, find_missing=finding(first, second))
    assert registry.recovery.new is not None
    assert list(registry.recovery.new.quarantined) == [first.run.run_id]
    assert list(registry.live) == [second.run.run_id]
    [entry] = registry.quarantine
    assert (entry["run_id"], entry["slots"], entry["is_live"]) == (first.run.run_id, [0], True)
    await registry.close()


async def test_a_registry_that_is_behind_is_reported_for_a_week(path: Path) -> None:
    """A run without a row gives a new epoch, the recovered run, and a report for a week; the file stays."""
    await old_registry(path)
    first = load(path, AT)
    first.connection.close()
    found = load(path, AT, finding(RUNS[2]))
    found.connection.close()
    assert found.epoch != first.epoch and found.recovery.new is not None
    assert (found.recovery.new.set_aside, found.recovery.new.waiting) == (None, 1)
    assert found.recovery.unconfirmed == frozenset()
    for age_s, count in ((REPORTED_S - 1, 1), (REPORTED_S + 1, 0)):
        later = load(path, AT + age_s, finding(RUNS[2]))
        later.connection.close()
        assert (later.epoch, later.recovery.new, len(later.recovery.reports)) == (found.epoch, None, count)


async def test_a_row_that_is_behind_is_caught_up(path: Path) -> None:
    """The missing events of a row are recorded, and its former slots go to the run that has them now."""
    registry = await Registry.open(path)
    old, _ = await registry.add(submission(new_run(retries=1)), dedup=Dedup.NEW)
    old = await registry.record(old.run_id, *to_exec(0))
    await registry.close()
    steps = []
    run = old
    for one in (event(Kind.LOST, kind="shim_lost"), event(Kind.REQUEUED, not_before=1.0, cause={})):
        run = apply(run, one)
        steps.append((run, one))
    newer = recovered(new_run(), *to_exec(0))

    def find_missing(known: frozenset[str], live: Sequence[Run], has_loss: bool) -> MissingRuns:
        return MissingRuns([newer], [(old, steps)])

    registry = await Registry.open(path, find_missing=find_missing)
    assert registry.live[old.run_id].state is State.INIT and registry.live[newer.run.run_id].slots == (0,)
    assert registry.recovery.new is not None and registry.recovery.new.caught_up == 1
    await registry.close()


def test_a_report_is_stored_and_read() -> None:
    """The stored form equals the report; names are limited, counts are not; an invalid form is no report."""
    named = {f"directory-{number}": "no spec" for number in range(MOST_NAMED + 7)}
    report = RecoveryReport("why", AT, None, 1, 2, 3, 4, 5, named, {"A": "has a slot"})
    stored = RecoveryReport.from_dict(report.to_dict())
    assert stored is not None and stored.summary() == report.summary()
    assert (len(stored.not_recovered), stored.unnamed) == (MOST_NAMED, 7)
    assert RecoveryReport.from_dict(stored.to_dict()) == stored
    for invalid in ({}, {"at": "x"}, {"at": True}):
        assert RecoveryReport.from_dict(invalid) is None
    invalid_values = {"ended": [], "live": -1, "quarantined": 5, "not_recovered": {"a": 1}}
    odd = RecoveryReport.from_dict({"at": AT, **invalid_values})
    assert odd is not None and odd.is_empty and odd.not_recovered == {}


async def test_a_report_of_an_older_version_is_read(path: Path) -> None:
    """A registry that an older daemon rebuilt is still reported."""
    await old_registry(path)
    connection = raw(path)
    stored = {
        "why": "damaged",
        "at": AT,
        "set_aside": str(path.parent),
        "ended": 2,
        "live": 0,
        "waiting": 1,
    }
    connection.execute("INSERT INTO meta VALUES ('damage', ?)", (json.dumps(stored),))
    connection.close()
    registry = await Registry.open(path)
    [report] = registry.recovery.reports
    assert (report.why, report.ended, report.waiting) == ("damaged", 2, 1)
    assert str(path.parent) in report.summary()
    await registry.close()
