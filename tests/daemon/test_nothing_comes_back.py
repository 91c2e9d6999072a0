"""If the registry loses its newest commits, some things must not come back: submits without a reply, pruned
runs, and directories that describe no run."""

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
from tests.daemon.lost_log import first_fast_others_slow, has_directory, lose_log, request_and_die_at
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


@pytest.mark.parametrize(
    "point", first_fast_others_slow("submit.after_commit", "submit.before_commit", "submit.directory_written")
)
def test_a_lost_submit_without_a_reply_leaves_no_run(
    build: Build, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit that got no reply and whose commit is lost leaves no run and no directory; the same key can be
    submitted again."""
    harness = build()
    harness.stop()
    params: dict[str, Any] = {"command": ["true"], "cwd": str(harness.home), "key": "once"}
    request_and_die_at(harness, point, monkeypatch, "run.submit", **params)
    [run_id] = [path.name for path in (harness.state_dir / "runs").iterdir()]
    assert (harness.state_dir / "runs" / run_id / rundir.UNACKNOWLEDGED).exists()
    lose_log(harness)
    harness.start()
    assert harness.call("run.list")["runs"] == [] and not has_directory(harness, run_id)
    run = harness.call("run.submit", **params)
    assert not run["duplicate"] and harness.ended(run["run_id"])["outcome"] == "succeeded"
    assert len(harness.call("run.list")["runs"]) == 1


@pytest.mark.parametrize("point", first_fast_others_slow("submit.after_commit", "submit.before_reply"))
def test_a_committed_submit_is_one_run(build: Build, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the daemon is killed after the COMMIT, the run exists; the same submit again returns that run."""
    harness = build()
    harness.stop()
    params: dict[str, Any] = {"command": ["true"], "cwd": str(harness.home), "key": "once"}
    request_and_die_at(harness, point, monkeypatch, "run.submit", **params)
    harness.start()
    run = harness.call("run.submit", **params)
    harness.run_ids.add(run["run_id"])
    assert run["duplicate"] and harness.ended(run["run_id"])["outcome"] == "succeeded"
    marks = [path.name for path in (harness.state_dir / "runs" / run["run_id"]).iterdir()]
    assert rundir.UNACKNOWLEDGED not in marks


PRUNING = first_fast_others_slow("prune.recorded", "prune.marked", "prune.removing", "prune.removed")


@pytest.mark.parametrize("is_intact", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", PRUNING)
def test_pruned_runs_stay_pruned(
    build: Build, point: str, is_intact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the daemon is killed during a prune, the directory is removed and the run does not come back, also
    if the registry lost the prune.

    If the kill comes before the prune is recorded and the registry is intact, the run stays.
    """
    harness = build()
    harness.stop()
    harness.start()
    run_id = harness.submit("true")
    harness.ended(run_id)
    harness.wait_until_cleaned_up(run_id)
    if is_intact:
        harness.stop()
    else:
        harness.kill()
    request_and_die_at(harness, point, monkeypatch, "run.prune", runs=[run_id])
    if not is_intact:
        lose_log(harness)
    harness.start()
    if point == "prune.marked" and is_intact:
        assert harness.get(run_id)["outcome"] == "succeeded"
        assert not (harness.state_dir / "runs" / run_id / rundir.PRUNED).exists()
        return
    harness.run_ids.discard(run_id)
    wait_until(lambda: has_directory(harness, run_id), lambda exists: not exists, "the directory is removed")
    with pytest.raises(NotFound):
        harness.get(run_id)
    assert harness.call("run.list")["runs"] == []


def test_an_invalid_run_directory_is_kept_and_prevents_no_start(build: Build) -> None:
    """An invalid directory prevents no start, becomes no run and is kept; an empty one is removed."""
    harness = build(start=False)
    harness.start()
    runs = harness.state_dir / "runs"
    harness.stop()
    invalid, empty = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"
    (runs / invalid / "attempt-1").mkdir(parents=True)
    (runs / invalid / "attempt-1" / "stdout.log").write_text("results")
    (runs / empty).mkdir()
    epoch = None
    for _ in range(2):
        harness.start()
        hello = harness.call("daemon.hello")
        assert epoch in (None, hello["epoch"]), "nothing is recovered, so the epoch stays"
        epoch = hello["epoch"]
        assert harness.call("run.list")["runs"] == [] and not has_directory(harness, empty)
        harness.stop()
    assert (runs / invalid / "attempt-1" / "stdout.log").read_text() == "results"


OTHER = "test_registry_behind.py"


def test_every_rare_crash_point_is_tested() -> None:
    """The tests of this file and of test_registry_behind.py use every rare crash point, which no ordinary
    workload reaches."""
    text = "".join((Path(__file__).parent / name).read_text() for name in (Path(__file__).name, OTHER))
    rare = [point for point in crash_points.POINTS if point.startswith(crash_points.RARE)]
    assert rare and [point for point in rare if f'"{point}"' not in text] == []


#: Values that no record has.
INVALID_VALUES: tuple[Any, ...] = (
    None, True, -1, 1 << 70, 1e308, "", "x" * 5000, "\ud800", [], [[]], {}, {"kind": []}, [0, 0], "TERM", 0.5,
)  # fmt: skip


def test_no_run_directory_prevents_the_start(build: Build) -> None:
    """With 200 unknown run directories, each with one invalid value in a record, the daemon starts, recovers
    what it can, and works."""
    harness = build(gpus={"static": 4})
    model = harness.submit("sh", "-c", "exit 3", gpus=1, retries=1)
    harness.ended(model)
    harness.wait_until_cleaned_up(model)
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
        damage_record(runs / name / dice.choice(files), dice)
        if dice.random() < 0.5:
            (runs / name / rundir.ENVIRONMENT).write_text("{}")
        if dice.random() < 0.3:
            (runs / name / "attempt-1" / "exit.json").unlink()
    harness.start()
    assert harness.ended(harness.submit("true", dedup="new"), 60)["outcome"] == "succeeded"
    assert harness.get(model)["exit_code"] == 3
    assert len(harness.call("run.list", limit=500)["runs"]) > 50, "most of them are recovered"


def damage_record(path: Path, dice: random.Random) -> None:
    """Change one value anywhere in the record, or truncate the record."""
    record = json.loads(path.read_text())
    if dice.random() < 0.1:
        path.write_text(path.read_text()[: dice.randrange(200)] + "[" * dice.choice([0, 100_000]))
        return
    table, name = record, dice.choice(list(record))
    while isinstance(table[name], dict) and table[name] and dice.random() < 0.8:
        table = table[name]
        name = dice.choice(list(table))
    table[name] = dice.choice(INVALID_VALUES)
    path.write_text(json.dumps(record))


def test_endless_files_do_not_block_the_start(build: Build) -> None:
    """A FIFO, an endless device or a file larger than memory in place of spec.json, and an exit record with
    invalid numbers, do not block the start."""
    harness = build()
    model = harness.submit("sh", "-c", "exit 3")
    harness.ended(model)
    harness.wait_until_cleaned_up(model)
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


def test_hung_shims_delay_the_start_once(harness: DaemonHarness) -> None:
    """Eight shims that hold their locks and do not answer delay a start only as long as one."""

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
    assert sorted(missing.run.run_id for missing in found) == sorted(run_ids), found
    assert all(missing.is_held for missing in found)
    assert LAUNCH_S < clock.spent_s < 2 * LAUNCH_S
    for attempt in attempts:
        attempt.rmdir()
