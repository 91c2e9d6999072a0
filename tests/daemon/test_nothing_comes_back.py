"""What must not come back when a registry has lost its newest commits: submits that nobody was told of, runs
that were pruned, directories that tell of no run."""

import fcntl
import json
import os
import random
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mosaicd import crash_points
from mosaicd.clock import Clock
from mosaicd.config.settings import Timeouts
from mosaicd.log import Catalogue
from mosaicd.protocol import rundir, ulid
from mosaicd.protocol.errors import NotFound
from mosaicd.recovery.rundir_reader import LAUNCH_S, RunDirReader
from mosaicd.rundirs.directories import RunDirs
from tests.daemon.lost_log import dies_at, is_there, lose_log, one_and_slowly
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


@pytest.mark.parametrize(
    "point", one_and_slowly("submit.after_commit", "submit.before_commit", "submit.directory_written")
)
def test_a_submit_that_was_never_answered_does_not_appear(
    build: Build, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before anybody was told, and the log lost besides: no run, no directory; who asks again with the
    same key gets one."""
    harness = build()
    harness.stop()
    asked: dict[str, Any] = {"command": ["true"], "cwd": str(harness.home), "key": "once"}
    dies_at(harness, point, monkeypatch, "run.submit", **asked)
    [left] = [path.name for path in (harness.state_dir / "runs").iterdir()]
    assert (harness.state_dir / "runs" / left / rundir.UNACKNOWLEDGED).exists()
    lose_log(harness)
    harness.start()
    assert harness.call("run.list")["runs"] == [] and not is_there(harness, left)
    run = harness.call("run.submit", **asked)
    assert not run["duplicate"] and harness.ended(run["run_id"])["outcome"] == "succeeded"
    assert len(harness.call("run.list")["runs"]) == 1


@pytest.mark.parametrize("point", one_and_slowly("submit.after_commit", "submit.before_reply"))
def test_a_submit_that_was_committed_is_one_run(
    build: Build, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the COMMIT with the registry whole: the run is there, and who asks again gets that one."""
    harness = build()
    harness.stop()
    asked: dict[str, Any] = {"command": ["true"], "cwd": str(harness.home), "key": "once"}
    dies_at(harness, point, monkeypatch, "run.submit", **asked)
    harness.start()
    run = harness.call("run.submit", **asked)
    harness.run_ids.add(run["run_id"])
    assert run["duplicate"] and harness.ended(run["run_id"])["outcome"] == "succeeded"
    marks = [path.name for path in (harness.state_dir / "runs" / run["run_id"]).iterdir()]
    assert rundir.UNACKNOWLEDGED not in marks


PRUNING = one_and_slowly("prune.recorded", "prune.marked", "prune.removing", "prune.removed")


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", PRUNING)
def test_what_was_pruned_stays_pruned(
    build: Build, point: str, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a prune: the directory goes and no run comes back, also where the registry
    knows nothing of either.  Before it was decided, with the registry whole, nothing has happened."""
    harness = build()
    harness.stop()
    harness.start()
    run_id = harness.submit("true")
    harness.ended(run_id)
    harness.put_away(run_id)
    if is_whole:
        harness.stop()
    else:
        harness.kill()
    dies_at(harness, point, monkeypatch, "run.prune", runs=[run_id])
    if not is_whole:
        lose_log(harness)
    harness.start()
    if point == "prune.marked" and is_whole:
        assert harness.get(run_id)["outcome"] == "succeeded"
        assert not (harness.state_dir / "runs" / run_id / rundir.PRUNED).exists()
        return
    harness.run_ids.discard(run_id)
    wait_until(lambda: is_there(harness, run_id), lambda there: not there, "the directory goes")
    with pytest.raises(NotFound):
        harness.get(run_id)
    assert harness.call("run.list")["runs"] == []


def test_what_tells_nothing_is_left_where_it_is(build: Build) -> None:
    """An invalid directory prevents no start, becomes no run and is not removed; an empty one is removed."""
    harness = build(start=False)
    harness.start()
    runs = harness.state_dir / "runs"
    harness.stop()
    strange, empty = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"
    (runs / strange / "attempt-1").mkdir(parents=True)
    (runs / strange / "attempt-1" / "stdout.log").write_text("results")
    (runs / empty).mkdir()
    epoch = None
    for _ in range(2):
        harness.start()
        hello = harness.call("daemon.hello")
        assert epoch in (None, hello["epoch"]), "nothing was written, so nothing is another ledger"
        epoch = hello["epoch"]
        assert harness.call("run.list")["runs"] == [] and not is_there(harness, empty)
        harness.stop()
    assert (runs / strange / "attempt-1" / "stdout.log").read_text() == "results"


OTHER = "test_registry_behind.py"


def test_every_rare_crash_point_is_passed_here() -> None:
    """The crash points that no ordinary workload passes are all tried here and for registries."""
    text = "".join((Path(__file__).parent / name).read_text() for name in (Path(__file__).name, OTHER))
    rare = [point for point in crash_points.POINTS if point.startswith(crash_points.RARE)]
    assert rare and [point for point in rare if f'"{point}"' not in text] == []


#: What no record of ours says, in the place of anything that one says.
ODD: tuple[Any, ...] = (
    None, True, -1, 1 << 70, 1e308, "", "x" * 5000, "\ud800", [], [[]], {}, {"kind": []}, [0, 0], "TERM", 0.5,
)  # fmt: skip


def test_directories_of_any_kind_never_keep_the_daemon_down(build: Build) -> None:
    """Copies of a run's directory with one value each that no record has, none of them known to the registry:
    the daemon starts, makes of them what it can, and works."""
    harness = build(gpus={"static": 4})
    model = harness.submit("sh", "-c", "exit 3", gpus=1, retries=1)
    harness.ended(model)
    harness.put_away(model)
    harness.stop()
    harness.allow(
        Catalogue.REGISTRY_BEHIND,
        Catalogue.DIRECTORY_NOT_RECOVERED,
        Catalogue.RUN_NOT_RECOVERED,
        Catalogue.ROW_QUARANTINED,
        Catalogue.SLOTS_WITHHELD,
        Catalogue.RECORD_TORN,
        Catalogue.LAUNCH_FAILED,
        Catalogue.ATTEMPT_UNREADABLE,
        Catalogue.PROCESSES_UNKNOWN,
        Catalogue.RUN_CONTRADICTED,
        Catalogue.SHIM_LOST,
    )
    runs = harness.state_dir / "runs"
    dice = random.Random(7)
    files = ["spec.json", "attempt-1/launch.json", "attempt-1/started.json", "attempt-1/exit.json"]
    for number in range(200):
        name = ulid.encode(1_700_000_000_000 + number, dice.randbytes(10))
        shutil.copytree(runs / model, runs / name)
        spoil(runs / name / dice.choice(files), dice)
        if dice.random() < 0.5:
            (runs / name / rundir.ENVIRONMENT).write_text("{}")
        if dice.random() < 0.3:
            (runs / name / "attempt-1" / "exit.json").unlink()
    harness.start()
    assert harness.ended(harness.submit("true", dedup="new"), 60)["outcome"] == "succeeded"
    assert harness.get(model)["exit_code"] == 3
    assert len(harness.call("run.list", limit=500)["runs"]) > 50, "most of them tell of a run all the same"


def spoil(path: Path, dice: random.Random) -> None:
    """Change one value, anywhere in the record, or cut the record short."""
    record = json.loads(path.read_text())
    if dice.random() < 0.1:
        path.write_text(path.read_text()[: dice.randrange(200)] + "[" * dice.choice([0, 100_000]))
        return
    place, name = record, dice.choice(list(record))
    while isinstance(place[name], dict) and place[name] and dice.random() < 0.8:
        place = place[name]
        name = dice.choice(list(place))
    place[name] = dice.choice(ODD)
    path.write_text(json.dumps(record))


def test_files_that_never_end_keep_the_daemon_waiting_for_nobody(build: Build) -> None:
    """A FIFO, an endless device and a file larger than memory in the place of a spec, and an end whose
    numbers are none: the daemon starts."""
    harness = build()
    model = harness.submit("sh", "-c", "exit 3")
    harness.ended(model)
    harness.put_away(model)
    harness.stop()
    harness.allow(Catalogue.REGISTRY_BEHIND, Catalogue.DIRECTORY_NOT_RECOVERED, Catalogue.RECORD_TORN)
    runs = harness.state_dir / "runs"
    names = [ulid.encode(1_700_000_000_000 + number, bytes(10)) for number in range(4)]
    for name in names:
        shutil.copytree(runs / model, runs / name)
    for name in names[:3]:
        (runs / name / rundir.SPEC).unlink()
    os.mkfifo(runs / names[0] / rundir.SPEC)
    (runs / names[1] / rundir.SPEC).symlink_to("/dev/zero")
    (runs / names[2] / rundir.SPEC).touch()
    os.truncate(runs / names[2] / rundir.SPEC, 1 << 40)
    end = runs / names[3] / "attempt-1" / rundir.EXIT
    end.write_text(json.dumps({**json.loads(end.read_text()), "metrics": [1], "steps": float("nan")}))
    harness.start()
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {model, names[3]}
    assert harness.get(names[3])["exit_code"] == 3


def test_shims_that_stand_still_are_waited_for_once(harness: DaemonHarness) -> None:
    """Eight that have their locks and say nothing cost a start the wait for one."""

    class Ticking(Clock):
        spent_s = 0.0

        def mono(self) -> float:
            self.spent_s += LAUNCH_S / 20
            return self.spent_s

    run_ids = [harness.submit("true", hold=True, dedup="new") for _ in range(8)]
    harness.stop()
    rundirs, clock = RunDirs(harness.state_dir / "runs"), Ticking()
    attempts = [rundirs.path(run_id) / "attempt-1" for run_id in run_ids]
    with ExitStack() as locks:
        for attempt in attempts:
            attempt.mkdir(mode=0o700)
            descriptor = os.open(attempt, os.O_RDONLY)
            locks.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        reader = RunDirReader(rundirs, Timeouts(), clock, str)
        found = reader.find_missing(frozenset(), [], has_loss=True).without_row
    assert sorted(one.run.run_id for one in found) == sorted(run_ids), found
    assert all(one.is_held for one in found)
    assert LAUNCH_S < clock.spent_s < 2 * LAUNCH_S
    for attempt in attempts:
        attempt.rmdir()
