"""Retention and prune remove exactly the runs that they select, and never a live, pinned or mentioned run."""

import json
import os
import signal
import sqlite3
import subprocess
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


def ended_run(harness: DaemonHarness, *command: str, **params: Any) -> str:
    """Return the id of a run that has ended and whose shim has exited."""
    run_id = harness.submit(*(command or ("true",)), dedup="new", **params)
    harness.ended(run_id)
    harness.wait_until_cleaned_up(run_id)  # a run with a live shim is not pruned
    return run_id


def directories(harness: DaemonHarness) -> set[str]:
    """Return the names of the run directories."""
    return {path.name for path in (harness.state_dir / "runs").iterdir()}


def forget(harness: DaemonHarness, *run_ids: str) -> None:
    """Exclude runs from the teardown of the harness, because they are pruned."""
    harness.run_ids.difference_update(run_ids)


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend all threads of a process meanwhile."""

    def states() -> set[str]:
        stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
        return {stat.rpartition(")")[2].split()[0] for stat in stats}

    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(states, lambda seen: seen == {"T"}, "the process is suspended")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_retention_removes_exactly_what_the_settings_select(build: Build) -> None:
    """With a limit of 3 runs, the two newest ended runs, the pinned and the live one stay; the others go,
    with rows and events."""
    harness = build(retention={"interval_s": 0.1})
    pinned, *old = [ended_run(harness) for _ in range(4)]
    harness.call("run.pin", run_id=pinned)
    new = [ended_run(harness) for _ in range(2)]
    live = harness.submit("sleep", "60")
    harness.until(live, "EXEC")
    assert len(harness.call("run.list", limit=50)["runs"]) == 7, "without a limit nothing is removed"
    harness.kill()
    harness.configure({"retention": {"interval_s": 0.1, "runs_per_user": 3}})
    forget(harness, *old)
    harness.start()

    wait_until(
        lambda: directories(harness), lambda seen: seen == {pinned, *new, live}, "the oldest runs are removed"
    )
    assert {run["run_id"] for run in harness.call("run.list")["runs"]} == {pinned, *new, live}
    wait_until(lambda: harness.logged(Catalogue.RUNS_PRUNED, "retention"), bool, "it is logged")


@pytest.mark.parametrize("limit", [{"age_days": 1e-9}, {"bytes_per_user": 1}, {"bytes_total": 1}])
def test_every_retention_limit_removes_ended_runs_beyond_it(build: Build, limit: dict[str, float]) -> None:
    """An ended run beyond the limit of age, of bytes of a user or of total bytes is removed; a pinned run
    stays."""
    harness = build(retention={"interval_s": 0.1, **limit})
    live = harness.submit("sleep", "60")
    harness.call("run.pin", run_id=live)
    first = harness.submit("true")
    forget(harness, first)
    wait_until(lambda: first in directories(harness), lambda exists: not exists, f"{limit} removes the run")
    harness.call("run.stop", run_id=live, grace_s=0)
    harness.ended(live)
    second = harness.submit("true")
    forget(harness, second)
    wait_until(lambda: second in directories(harness), lambda exists: not exists, f"{limit} removes the run")
    assert live in directories(harness), "it was pinned while it lived"


def test_live_pinned_and_mentioned_runs_stay(harness: DaemonHarness) -> None:
    """A prune of everything keeps live, held and pinned runs, and runs that a live run mentions."""
    plain, pinned, named = ended_run(harness), ended_run(harness), ended_run(harness)
    assert harness.ctl("pin", pinned).returncode == 0
    live = harness.submit("sh", "-c", "sleep 60", "sh", f"{harness.state_dir}/runs/{named}/files/last")
    harness.until(live, "EXEC")
    held = harness.submit("true", hold=True)

    done = harness.ctl("-o", "json", "prune", "--yes", "--older-than", "0")
    report = json.loads(done.stdout)
    forget(harness, plain)
    assert [run["run_id"] for run in report["runs"]] == [plain]
    assert {kept["run_id"] for kept in report["kept"]} == {pinned, named}
    assert directories(harness) == {pinned, named, live, held}

    done = harness.ctl("prune", live, held, pinned, named)
    assert done.returncode == 5
    assert all(run_id in done.stderr for run_id in (live, held, pinned, named))
    assert directories(harness) == {pinned, named, live, held}


def test_a_dry_run_reports_what_prune_removes(harness: DaemonHarness) -> None:
    """A dry run reports the same runs and sizes as the real prune, and removes nothing."""
    small = ended_run(harness)
    large = ended_run(harness, "sh", "-c", "head -c 3000000 /dev/zero")
    command = ("-o", "json", "prune", "--outcome", "succeeded")
    planned = json.loads(harness.ctl(*command, "--dry-run").stdout)
    assert directories(harness) == {small, large}
    pruned = json.loads(harness.ctl(*command, "--yes").stdout)
    forget(harness, small, large)
    assert planned["runs"] == pruned["runs"] and planned["bytes"] == pruned["bytes"] >= 3_000_000
    assert [run["run_id"] for run in pruned["runs"]] == [small, large], "the oldest end first"
    assert directories(harness) == set()


def test_prune_without_a_terminal_needs_yes(harness: DaemonHarness) -> None:
    """Without a terminal and --yes, prune is a usage error and removes nothing, also if nothing matches."""
    run_id = ended_run(harness)
    done = harness.ctl("prune", run_id)
    assert (done.returncode, done.stdout) == (2, "") and "--yes" in done.stderr
    done = harness.ctl("prune", "--outcome", "failed")
    assert done.returncode == 2 and "--yes" in done.stderr
    assert directories(harness) == {run_id}
    done = harness.ctl("prune", "-y", run_id)
    forget(harness, run_id)
    assert done.returncode == 0 and done.stdout.startswith("RUN") and run_id in done.stdout
    assert directories(harness) == set()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("Yes", 0), ("n", 1), ("", 1), ("\x04", 1)])
def test_prune_asks_on_a_terminal(harness: DaemonHarness, answer: str, code: int) -> None:
    """On a terminal, prune lists the runs with their bytes and asks; only yes prunes, and only the runs that
    it listed: a run that ends during the question stays."""
    run_id = ended_run(harness, "sh", "-c", "head -c 3000000 /dev/zero")
    terminal, other_end = os.openpty()
    with subprocess.Popen(
        harness.ctl_command("prune", "--outcome", "succeeded"), stdin=other_end, stderr=other_end,
        stdout=subprocess.PIPE, env=harness.environment, text=True,
    ) as client:  # fmt: skip
        os.close(other_end)
        try:
            question = read_until(terminal, "[y/N]")
            later = ended_run(harness)
            os.write(terminal, f"{answer}\n".encode() if answer != "\x04" else b"\x04")
            out, _ = client.communicate(timeout=30)
        finally:
            client.kill()
            os.close(terminal)
    assert client.returncode == code
    assert run_id in question and "2.9 MiB" in question and later not in question
    if code == 0:
        forget(harness, run_id)
        assert out.startswith("1 run") and run_id not in out
        assert directories(harness) == {later}
    else:
        assert out == "" and directories(harness) == {run_id, later}


def read_until(terminal: int, text: str) -> str:
    """Return what was printed on a terminal up to `text`."""
    printed = b""
    while text.encode() not in printed:
        printed += os.read(terminal, 4096)
    return printed.decode()


def test_prune_filters_must_all_match(harness: DaemonHarness) -> None:
    """A run is pruned only if its outcome, label, name and age all match."""
    both = ended_run(harness, "false", labels={"a": "1"}, name="x")
    others = [
        ended_run(harness, "false", labels={"a": "2"}, name="x"),
        ended_run(harness, "true", labels={"a": "1"}, name="x"),
        ended_run(harness, "false", labels={"a": "1"}, name="y"),
    ]
    chosen: dict[str, Any] = {"outcome": ["failed"], "label": {"a": "1"}, "name": "x"}
    assert harness.call("run.prune", older_than_s=3600, **chosen)["count"] == 0
    assert [run["run_id"] for run in harness.call("run.prune", **chosen)["runs"]] == [both]
    forget(harness, both)
    assert directories(harness) == set(others)


def test_a_removal_that_a_crash_interrupts_is_finished(harness: DaemonHarness) -> None:
    """If a crash leaves the directory of a pruned run, the next start removes the directory and records the
    removal."""
    half_pruned, other = ended_run(harness), ended_run(harness)
    harness.kill()
    registry = harness.state_dir / "registry.sqlite3"
    connection = open_writer(registry)
    connection.execute("BEGIN")
    assert prune({half_pruned: 1}, "ada", 1.0, connection)[0] == [half_pruned]
    connection.execute("COMMIT")
    connection.close()
    forget(harness, half_pruned)
    harness.start()

    wait_until(lambda: directories(harness), lambda seen: seen == {other}, "the directory is removed")

    def removed() -> Any:
        with sqlite3.connect(f"file:{registry}?mode=ro", uri=True) as reader:
            return reader.execute("SELECT removed FROM pruned WHERE run_id = ?", (half_pruned,)).fetchone()

    wait_until(removed, lambda row: row == (1,), "the removal is recorded")


def test_prune_does_not_follow_links(harness: DaemonHarness) -> None:
    """Pruning a run with links to other data removes the links and not the data."""
    outside = harness.home / "data"
    outside.mkdir()
    (outside / "precious").write_text("x")
    code = "import os, sys; os.symlink(sys.argv[1], os.environ['MOSAIC_RUN_DIR'] + '/link')"
    run_id = harness.python(code, str(outside))
    assert harness.ended(run_id)["outcome"] == "succeeded"
    harness.wait_until_cleaned_up(run_id)
    assert harness.call("run.prune", runs=[run_id])["count"] == 1
    forget(harness, run_id)
    assert directories(harness) == set()
    assert (outside / "precious").read_text() == "x"


def test_a_replay_over_pruned_runs_has_pruned_seq(harness: DaemonHarness) -> None:
    """since=0 returns the remaining events in order; `pruned_seq` is the end of possible gaps; no seq is used
    again."""
    first, second, third = (ended_run(harness) for _ in range(3))
    before = harness.call("daemon.hello")["last_seq"]
    assert harness.call("run.prune", runs=[second])["count"] == 1
    forget(harness, second)
    harness.restart()
    fourth = ended_run(harness)
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


def test_a_pruned_run_differs_from_an_unknown_one(harness: DaemonHarness) -> None:
    """The id of a pruned run is not found, with the time of the prune and the outcome; id and key are not
    used again."""
    run_id = ended_run(harness, key="nightly")
    harness.call("run.prune", runs=[run_id])
    forget(harness, run_id)
    with pytest.raises(NotFound) as missing:
        harness.get(run_id)
    assert missing.value.data["pruned_at"] > 0 and missing.value.data["outcome"] == "succeeded"
    with pytest.raises(Conflict) as caught:
        harness.submit("true", key="nightly")
    assert caught.value.data["run_id"] == run_id and caught.value.data["pruned_at"] > 0
    assert directories(harness) == set(), "a refused submit leaves no directory"
    shown = harness.ctl("show", run_id)
    assert shown.returncode == 3 and "pruned" in shown.stderr


def test_invalid_prune_requests_are_refused(harness: DaemonHarness) -> None:
    """A prune without a policy and filters, with ids and filters, or with a negative age is refused and
    removes nothing."""
    run_id = ended_run(harness)
    both: dict[str, Any] = {"runs": [run_id], "name": "x"}
    invalid: list[dict[str, Any]] = [{}, {"dry_run": True}, {"runs": []}, both, {"older_than_s": -1}]
    for params in invalid:
        with pytest.raises(InvalidParams):
            harness.call("run.prune", **params)
    assert harness.ctl("prune").returncode == 2
    unknown = harness.ctl("prune", "missing")
    assert unknown.returncode == 3 and unknown.stderr == "mosaicctl: there is no run 'missing'\n"
    assert directories(harness) == {run_id}


def test_pins_outlive_the_daemon_and_are_shown(harness: DaemonHarness) -> None:
    """A pin survives a restart, and pinning twice changes nothing; unpin removes it; both return the run."""
    run_id = ended_run(harness)
    for _ in range(2):
        assert harness.call("run.pin", run_id=run_id)["pinned"] is True
    harness.restart()
    assert harness.get(run_id)["pinned"] is True
    assert "pinned" in harness.ctl("show", run_id).stdout
    assert json.loads(harness.ctl("-o", "json", "unpin", run_id).stdout)["pinned"] is False
    assert harness.call("run.unpin", run_id=run_id)["pinned"] is False
    assert harness.call("run.prune", runs=[run_id])["count"] == 1
    forget(harness, run_id)


def test_a_directory_that_cannot_be_removed_is_logged_and_retried(
    build: Build,
) -> None:
    """If the directory of a pruned run cannot be removed, its path is logged, and a later pass removes it."""
    harness = build(retention={"interval_s": 0.1})
    harness.allow(Catalogue.PRUNED_DIRECTORY_LEFT)
    run_id = ended_run(harness)
    directory = harness.state_dir / "runs" / run_id
    aside = Path(f"{directory}.real")
    directory.rename(aside)
    directory.write_text("in the way")
    harness.call("run.prune", runs=[run_id])
    forget(harness, run_id)
    wait_until(lambda: harness.logged(Catalogue.PRUNED_DIRECTORY_LEFT, run_id), bool, "it is logged")
    assert harness.process is not None
    with suspended(harness.process.pid):  # a missing directory would count as removed
        directory.unlink()
        aside.rename(directory)
    wait_until(lambda: directory.exists(), lambda exists: not exists, "the directory is removed")
