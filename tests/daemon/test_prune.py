"""Retention and prune: exactly what was said goes, for good, and nothing that lives, is pinned or named."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mosaicd.protocol.errors import Conflict, InvalidParams, NotFound
from mosaicd.store.database import open_writer
from mosaicd.store.pruning import prune
from tests.daemon.house import House, eventually


def ended(house: House, *command: str, **params: Any) -> str:
    """A run that has ended."""
    run_id = house.submit(*(command or ("true",)), dedup="new", **params)
    house.ended(run_id)
    house.put_away(run_id)  # what a shim still has in its hand stays
    return run_id


def directories(house: House) -> set[str]:
    return {path.name for path in (house.state_dir / "runs").iterdir()}


def gone(house: House, *run_ids: str) -> None:
    """The house's own teardown need not wait for these."""
    house.run_ids.difference_update(run_ids)


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Have no thread of a process do anything meanwhile."""

    def states() -> set[str]:
        stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
        return {stat.rpartition(")")[2].split()[0] for stat in stats}

    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(states, lambda seen: seen == {"T"}, "it stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_retention_takes_what_the_settings_say_and_nothing_else(build: Callable[..., House]) -> None:
    """The two newest ended runs, the pinned one and the live one stay; the others go, with row and events."""
    house = build(retention={"interval_s": 0.1})
    pinned, *old = [ended(house) for _ in range(4)]
    house.call("run.pin", run_id=pinned)
    new = [ended(house) for _ in range(2)]
    live = house.submit("sleep", "60")
    house.until(live, "EXEC")
    assert len(house.call("run.list", limit=50)["runs"]) == 7, "nothing goes while no limit is set"
    house.kill()
    house.configure({"retention": {"interval_s": 0.1, "runs_per_user": 3}})
    gone(house, *old)
    house.start()

    eventually(lambda: directories(house), lambda seen: seen == {pinned, *new, live}, "the old ones go")
    assert {run["run_id"] for run in house.call("run.list")["runs"]} == {pinned, *new, live}
    eventually(house.log.read_text, lambda text: "runs pruned by retention" in text, "it is told")


@pytest.mark.parametrize("limit", [{"age_days": 1e-9}, {"bytes_per_user": 1}, {"bytes_total": 1}])
def test_every_limit_takes_what_it_is_for(build: Callable[..., House], limit: dict[str, float]) -> None:
    """Age and bytes, a user or in all: an ended run beyond the limit goes, a pinned one never."""
    house = build(retention={"interval_s": 0.1, **limit})
    live = house.submit("sleep", "60")
    house.call("run.pin", run_id=live)
    first = house.submit("true")
    gone(house, first)
    eventually(lambda: first in directories(house), lambda there: not there, f"{limit} takes it")
    house.call("run.stop", run_id=live, grace_s=0)
    house.ended(live)
    second = house.submit("true")
    gone(house, second)
    eventually(lambda: second in directories(house), lambda there: not there, f"{limit} takes it")
    assert live in directories(house), "it was pinned while it lived"


def test_live_pinned_and_named_runs_stay(house: House) -> None:
    """prune of everything takes none of these: live, held, pinned, or mentioned by a live run."""
    plain, pinned, named = ended(house), ended(house), ended(house)
    assert house.ctl("pin", pinned).returncode == 0
    live = house.submit("sh", "-c", "sleep 60", "sh", f"{house.state_dir}/runs/{named}/files/last")
    house.until(live, "EXEC")
    held = house.submit("true", hold=True)

    done = house.ctl("-o", "json", "prune", "--older-than", "0")
    report = json.loads(done.stdout)
    gone(house, plain)
    assert [run["run_id"] for run in report["runs"]] == [plain]
    assert {kept["run_id"]: kept["why"] for kept in report["kept"]} == {
        pinned: "it is pinned", named: "a live run names it",
    }  # fmt: skip
    assert directories(house) == {pinned, named, live, held}

    done = house.ctl("prune", live, held, pinned, named)
    assert done.returncode == 5
    assert done.stderr.count("it has not ended") == 2
    assert directories(house) == {pinned, named, live, held}


def test_a_dry_run_says_what_a_real_one_does(house: House) -> None:
    """The same runs, the same sizes, and nothing is touched before."""
    small = ended(house)
    large = ended(house, "sh", "-c", "head -c 3000000 /dev/zero")
    asked = ("-o", "json", "prune", "--outcome", "succeeded")
    told = json.loads(house.ctl(*asked, "--dry-run").stdout)
    assert directories(house) == {small, large}
    did = json.loads(house.ctl(*asked).stdout)
    gone(house, small, large)
    assert told["runs"] == did["runs"] and told["bytes"] == did["bytes"] >= 3_000_000
    assert [run["run_id"] for run in did["runs"]] == [small, large], "the longest ended first"
    assert directories(house) == set()


def test_filters_are_joined(house: House) -> None:
    """Outcome, label, name and age all have to fit."""
    both = ended(house, "false", labels={"a": "1"}, name="x")
    others = [
        ended(house, "false", labels={"a": "2"}, name="x"),
        ended(house, "true", labels={"a": "1"}, name="x"),
        ended(house, "false", labels={"a": "1"}, name="y"),
    ]
    chosen = {"outcome": ["failed"], "label": {"a": "1"}, "name": "x"}
    assert house.call("run.prune", older_than_s=3600, **chosen)["count"] == 0
    assert [run["run_id"] for run in house.call("run.prune", **chosen)["runs"]] == [both]
    gone(house, both)
    assert directories(house) == set(others)


def test_a_removal_that_a_crash_interrupted_is_finished(house: House) -> None:
    """Row gone, directory there, daemon killed: the next start removes the directory and remembers it."""
    half, whole = ended(house), ended(house)
    house.kill()
    registry = house.state_dir / "registry.sqlite3"
    connection = open_writer(registry)
    connection.execute("BEGIN")
    assert prune({half: 1}, "ada", 1.0, connection)[0] == [half]
    connection.execute("COMMIT")
    connection.close()
    gone(house, half)
    house.start()

    eventually(lambda: directories(house), lambda seen: seen == {whole}, "what a crash left is removed")

    def removed() -> Any:
        with sqlite3.connect(f"file:{registry}?mode=ro", uri=True) as reader:
            return reader.execute("SELECT removed FROM pruned WHERE run_id = ?", (half,)).fetchone()

    eventually(removed, lambda row: row == (1,), "the removal is remembered")


def test_what_a_link_points_to_is_not_touched(house: House) -> None:
    """A run that linked somebody's data into its directory takes the links with it and nothing else."""
    outside = house.home / "data"
    outside.mkdir()
    (outside / "precious").write_text("x")
    code = "import os, sys; os.symlink(sys.argv[1], os.environ['MOSAIC_RUN_DIR'] + '/link')"
    run_id = house.python(code, str(outside))
    assert house.ended(run_id)["outcome"] == "succeeded"
    house.put_away(run_id)
    assert house.call("run.prune", runs=[run_id])["count"] == 1
    gone(house, run_id)
    assert directories(house) == set()
    assert (outside / "precious").read_text() == "x"


def test_a_replay_over_pruned_runs_says_so(house: House) -> None:
    """since=0 gives what remains, in order; `pruned_seq` says where holes may be; no seq comes again."""
    first, second, third = (ended(house) for _ in range(3))
    before = house.call("daemon.hello")["last_seq"]
    assert house.call("run.prune", runs=[second])["count"] == 1
    gone(house, second)
    house.restart()
    fourth = ended(house)
    with house.client() as client:
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


def test_a_pruned_run_is_told_from_one_that_never_was(house: House) -> None:
    """Its id is not found, with when and how it ended; its key and id are not used again."""
    run_id = ended(house, key="nightly")
    house.call("run.prune", runs=[run_id])
    gone(house, run_id)
    with pytest.raises(NotFound, match="succeeded\\) was pruned on") as caught:
        house.get(run_id)
    assert caught.value.data["pruned_at"] > 0
    with pytest.raises(Conflict, match="has been pruned"):
        house.submit("true", key="nightly")
    assert directories(house) == set(), "the refused submit left nothing"
    shown = house.ctl("show", run_id)
    assert shown.returncode == 3 and "was pruned" in shown.stderr


def test_what_makes_no_sense_is_refused(house: House) -> None:
    """No policy and no choice, both kinds of choice, a negative age: refused, and nothing goes."""
    run_id = ended(house)
    nonsense = ({}, {"dry_run": True}, {"runs": []}, {"runs": [run_id], "name": "x"}, {"older_than_s": -1})
    for params in nonsense:
        with pytest.raises(InvalidParams):
            house.call("run.prune", **params)
    assert house.ctl("prune").returncode == 2
    unknown = house.ctl("prune", "nobody")
    assert unknown.returncode == 3 and unknown.stderr == "mosaicctl: there is no run 'nobody'\n"
    assert directories(house) == {run_id}


def test_pins_outlive_the_daemon_and_are_shown(house: House) -> None:
    """A pin is set once and stays, also when set twice; unpin takes it; both answer the run."""
    run_id = ended(house)
    for _ in range(2):
        assert house.call("run.pin", run_id=run_id)["pinned"] is True
    house.restart()
    assert house.get(run_id)["pinned"] is True
    assert "pinned" in house.ctl("show", run_id).stdout
    assert json.loads(house.ctl("-o", "json", "unpin", run_id).stdout)["pinned"] is False
    assert house.call("run.unpin", run_id=run_id)["pinned"] is False
    assert house.call("run.prune", runs=[run_id])["count"] == 1
    gone(house, run_id)


def test_a_directory_that_cannot_be_removed_is_told_and_tried_again(
    build: Callable[..., House],
) -> None:
    """What is in the way is logged with its path; once it is out of the way, the next look finishes."""
    house = build(retention={"interval_s": 0.1})
    house.allowed_warnings.append("directory of pruned run")
    run_id = ended(house)
    directory = house.state_dir / "runs" / run_id
    aside = Path(f"{directory}.real")
    directory.rename(aside)
    directory.write_text("in the way")
    house.call("run.prune", runs=[run_id])
    gone(house, run_id)
    said = f"pruned run {run_id} cannot be removed"
    eventually(house.log.read_text, lambda text: said in text, "it is said")
    assert house.process is not None
    with standing_still(house.process.pid):  # between the two there is nothing, which is as good as removed
        directory.unlink()
        aside.rename(directory)
    eventually(lambda: directory.exists(), lambda there: not there, "it is removed in the end")
