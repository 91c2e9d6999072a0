"""Retention and prune: exactly what was said goes, for good, and nothing that lives, is pinned or named."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Conflict, InvalidParams, NotFound
from mosaicd.store.database import open_writer
from mosaicd.store.pruning import prune
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until


def ended(harness: DaemonHarness, *command: str, **params: Any) -> str:
    """A run that has ended."""
    run_id = harness.submit(*(command or ("true",)), dedup="new", **params)
    harness.ended(run_id)
    harness.put_away(run_id)  # what a shim still has in its hand stays
    return run_id


def directories(harness: DaemonHarness) -> set[str]:
    return {path.name for path in (harness.state_dir / "runs").iterdir()}


def gone(harness: DaemonHarness, *run_ids: str) -> None:
    """The harness's own teardown need not wait for these."""
    harness.run_ids.difference_update(run_ids)


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Have no thread of a process do anything meanwhile."""

    def states() -> set[str]:
        stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
        return {stat.rpartition(")")[2].split()[0] for stat in stats}

    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(states, lambda seen: seen == {"T"}, "it stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_retention_takes_what_the_settings_say_and_nothing_else(build: Build) -> None:
    """The two newest ended runs, the pinned one and the live one stay; the others go, with row and events."""
    harness = build(retention={"interval_s": 0.1})
    pinned, *old = [ended(harness) for _ in range(4)]
    harness.call("run.pin", run_id=pinned)
    new = [ended(harness) for _ in range(2)]
    live = harness.submit("sleep", "60")
    harness.until(live, "EXEC")
    assert len(harness.call("run.list", limit=50)["runs"]) == 7, "nothing goes while no limit is set"
    harness.kill()
    harness.configure({"retention": {"interval_s": 0.1, "runs_per_user": 3}})
    gone(harness, *old)
    harness.start()

    wait_until(lambda: directories(harness), lambda seen: seen == {pinned, *new, live}, "the old ones go")
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {pinned, *new, live}
    wait_until(lambda: harness.logged(Catalogue.RUNS_PRUNED, "retention"), bool, "it is logged")


@pytest.mark.parametrize("limit", [{"age_days": 1e-9}, {"bytes_per_user": 1}, {"bytes_total": 1}])
def test_every_limit_takes_what_it_is_for(build: Build, limit: dict[str, float]) -> None:
    """Age and bytes, a user or in all: an ended run beyond the limit goes, a pinned one never."""
    harness = build(retention={"interval_s": 0.1, **limit})
    live = harness.submit("sleep", "60")
    harness.call("run.pin", run_id=live)
    first = harness.submit("true")
    gone(harness, first)
    wait_until(lambda: first in directories(harness), lambda there: not there, f"{limit} takes it")
    harness.call("run.stop", run_id=live, grace_s=0)
    harness.ended(live)
    second = harness.submit("true")
    gone(harness, second)
    wait_until(lambda: second in directories(harness), lambda there: not there, f"{limit} takes it")
    assert live in directories(harness), "it was pinned while it lived"


def test_live_pinned_and_named_runs_stay(harness: DaemonHarness) -> None:
    """prune of everything takes none of these: live, held, pinned, or mentioned by a live run."""
    plain, pinned, named = ended(harness), ended(harness), ended(harness)
    assert harness.ctl("pin", pinned).returncode == 0
    live = harness.submit("sh", "-c", "sleep 60", "sh", f"{harness.state_dir}/runs/{named}/files/last")
    harness.until(live, "EXEC")
    held = harness.submit("true", hold=True)

    done = harness.ctl("-o", "json", "prune", "--older-than", "0")
    report = json.loads(done.stdout)
    gone(harness, plain)
    assert [run["run_id"] for run in report["runs"]] == [plain]
    assert {kept["run_id"] for kept in report["kept"]} == {pinned, named}
    assert directories(harness) == {pinned, named, live, held}

    done = harness.ctl("prune", live, held, pinned, named)
    assert done.returncode == 5
    assert all(run_id in done.stderr for run_id in (live, held, pinned, named))
    assert directories(harness) == {pinned, named, live, held}


def test_a_dry_run_says_what_a_real_one_does(harness: DaemonHarness) -> None:
    """The same runs, the same sizes, and nothing is touched before."""
    small = ended(harness)
    large = ended(harness, "sh", "-c", "head -c 3000000 /dev/zero")
    asked = ("-o", "json", "prune", "--outcome", "succeeded")
    told = json.loads(harness.ctl(*asked, "--dry-run").stdout)
    assert directories(harness) == {small, large}
    did = json.loads(harness.ctl(*asked).stdout)
    gone(harness, small, large)
    assert told["runs"] == did["runs"] and told["bytes"] == did["bytes"] >= 3_000_000
    assert [run["run_id"] for run in did["runs"]] == [small, large], "the longest ended first"
    assert directories(harness) == set()


def test_filters_are_joined(harness: DaemonHarness) -> None:
    """Outcome, label, name and age all have to fit."""
    both = ended(harness, "false", labels={"a": "1"}, name="x")
    others = [
        ended(harness, "false", labels={"a": "2"}, name="x"),
        ended(harness, "true", labels={"a": "1"}, name="x"),
        ended(harness, "false", labels={"a": "1"}, name="y"),
    ]
    chosen: dict[str, Any] = {"outcome": ["failed"], "label": {"a": "1"}, "name": "x"}
    assert harness.call("run.prune", older_than_s=3600, **chosen)["count"] == 0
    assert [run["run_id"] for run in harness.call("run.prune", **chosen)["runs"]] == [both]
    gone(harness, both)
    assert directories(harness) == set(others)


def test_a_removal_that_a_crash_interrupted_is_finished(harness: DaemonHarness) -> None:
    """Row gone, directory there, daemon killed: the next start removes the directory and remembers it."""
    half, whole = ended(harness), ended(harness)
    harness.kill()
    registry = harness.state_dir / "registry.sqlite3"
    connection = open_writer(registry)
    connection.execute("BEGIN")
    assert prune({half: 1}, "ada", 1.0, connection)[0] == [half]
    connection.execute("COMMIT")
    connection.close()
    gone(harness, half)
    harness.start()

    wait_until(lambda: directories(harness), lambda seen: seen == {whole}, "what a crash left is removed")

    def removed() -> Any:
        with sqlite3.connect(f"file:{registry}?mode=ro", uri=True) as reader:
            return reader.execute("SELECT removed FROM pruned WHERE run_id = ?", (half,)).fetchone()

    wait_until(removed, lambda row: row == (1,), "the removal is remembered")


def test_what_a_link_points_to_is_not_touched(harness: DaemonHarness) -> None:
    """Pruning a run with links to other data removes the links and not the data."""
    outside = harness.home / "data"
    outside.mkdir()
    (outside / "precious").write_text("x")
    code = "import os, sys; os.symlink(sys.argv[1], os.environ['MOSAIC_RUN_DIR'] + '/link')"
    run_id = harness.python(code, str(outside))
    assert harness.ended(run_id)["outcome"] == "succeeded"
    harness.put_away(run_id)
    assert harness.call("run.prune", runs=[run_id])["count"] == 1
    gone(harness, run_id)
    assert directories(harness) == set()
    assert (outside / "precious").read_text() == "x"


def test_a_replay_over_pruned_runs_says_so(harness: DaemonHarness) -> None:
    """since=0 gives what remains, in order; `pruned_seq` says where holes may be; no seq comes again."""
    first, second, third = (ended(harness) for _ in range(3))
    before = harness.call("daemon.hello")["last_seq"]
    assert harness.call("run.prune", runs=[second])["count"] == 1
    gone(harness, second)
    harness.restart()
    fourth = ended(harness)
    with harness.client() as client:
        start = client.call("run.watch", {"since": 0})
        seen: list[dict[str, Any]] = []
        while not seen or (seen[-1]["run_id"], seen[-1]["state"]) != (fourth, "TERM"):
            notification = client.next_notification(20.0)
            assert notification is not None, seen
            seen.append(notification[1])
    assert 0 < start["pruned_seq"] <= before
    seqs = [event["seq"] for event in seen]
    assert seqs == sorted(set(seqs))
    assert {event["run_id"] for event in seen} == {first, third, fourth}
    assert min(event["seq"] for event in seen if event["run_id"] == fourth) > before


def test_a_pruned_run_is_told_from_one_that_never_was(harness: DaemonHarness) -> None:
    """Its id is not found, with when and how it ended; its key and id are not used again."""
    run_id = ended(harness, key="nightly")
    harness.call("run.prune", runs=[run_id])
    gone(harness, run_id)
    with pytest.raises(NotFound) as missing:
        harness.get(run_id)
    assert missing.value.data["pruned_at"] > 0 and missing.value.data["outcome"] == "succeeded"
    with pytest.raises(Conflict) as caught:
        harness.submit("true", key="nightly")
    assert caught.value.data["run_id"] == run_id and caught.value.data["pruned_at"] > 0
    assert directories(harness) == set(), "the refused submit left nothing"
    shown = harness.ctl("show", run_id)
    assert shown.returncode == 3 and "pruned" in shown.stderr


def test_what_makes_no_sense_is_refused(harness: DaemonHarness) -> None:
    """No policy and no choice, both kinds of choice, a negative age: refused, and nothing goes."""
    run_id = ended(harness)
    both: dict[str, Any] = {"runs": [run_id], "name": "x"}
    nonsense: list[dict[str, Any]] = [{}, {"dry_run": True}, {"runs": []}, both, {"older_than_s": -1}]
    for params in nonsense:
        with pytest.raises(InvalidParams):
            harness.call("run.prune", **params)
    assert harness.ctl("prune").returncode == 2
    unknown = harness.ctl("prune", "missing")
    assert unknown.returncode == 3 and unknown.stderr == "mosaicctl: there is no run 'missing'\n"
    assert directories(harness) == {run_id}


def test_pins_outlive_the_daemon_and_are_shown(harness: DaemonHarness) -> None:
    """A pin is set once and stays, also when set twice; unpin takes it; both answer the run."""
    run_id = ended(harness)
    for _ in range(2):
        assert harness.call("run.pin", run_id=run_id)["pinned"] is True
    harness.restart()
    assert harness.get(run_id)["pinned"] is True
    assert "pinned" in harness.ctl("show", run_id).stdout
    assert json.loads(harness.ctl("-o", "json", "unpin", run_id).stdout)["pinned"] is False
    assert harness.call("run.unpin", run_id=run_id)["pinned"] is False
    assert harness.call("run.prune", runs=[run_id])["count"] == 1
    gone(harness, run_id)


def test_a_directory_that_cannot_be_removed_is_told_and_tried_again(
    build: Build,
) -> None:
    """What is in the way is logged with its path; once it is out of the way, the next look finishes."""
    harness = build(retention={"interval_s": 0.1})
    harness.allow(Catalogue.PRUNED_DIRECTORY_LEFT)
    run_id = ended(harness)
    directory = harness.state_dir / "runs" / run_id
    aside = Path(f"{directory}.real")
    directory.rename(aside)
    directory.write_text("in the way")
    harness.call("run.prune", runs=[run_id])
    gone(harness, run_id)
    wait_until(lambda: harness.logged(Catalogue.PRUNED_DIRECTORY_LEFT, run_id), bool, "it is logged")
    assert harness.process is not None
    with standing_still(harness.process.pid):  # between the two there is nothing, which is as good as removed
        directory.unlink()
        aside.rename(directory)
    wait_until(lambda: directory.exists(), lambda there: not there, "it is removed in the end")
