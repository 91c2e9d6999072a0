"""A damaged spec.json: its run ends with spawn_failed, and the daemon and other runs are not affected."""

import json
from typing import Any

import pytest

from mosaicd.log import Catalogue
from mosaicd.protocol.errors import Unavailable
from tests.harness.daemon import DaemonHarness

#: For each damage: the file, and the keys that are changed; None: the key is removed.
DAMAGED = [
    ("spec.json", {"argv": None}), ("spec.json", {"version": None}), ("spec.json", {"surprise": 1}),
    ("spec.json", {"limits": [1]}), ("spec.json", {"argv": 5}), ("spec.json", {"argv": ["true", 5]}),
    ("spec.json", {"limits": {"retry_on": None, "time_limit_s": "1"}}), ("spec.json", {"config": "x"}),
    ("environment.json", {"A": 1}), ("caller-environment.json", {"A": 1}),
]  # fmt: skip
#: Whole contents of spec.json and of environment.json.
CONTENTS = ["", "{}", "[]", '{"version": 1,', "[" * 100_000]


def test_a_damaged_spec_fails_its_run_and_not_the_daemon(harness: DaemonHarness) -> None:
    """A run whose spec.json or environment.json was damaged while it waited ends with spawn_failed, and its
    cause names the file; a retry of the run names it too.  The daemon continues."""
    harness.allow(Catalogue.LAUNCH_FAILED)
    pid = harness.pid
    for name, changes in DAMAGED:
        path = submit_held(harness) / name
        content = json.loads(path.read_text() or "{}") | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        check_failure(harness, path)
    for text in CONTENTS:
        path = submit_held(harness) / "spec.json"
        path.write_text(text)
        check_failure(harness, path)
    for text in CONTENTS[2:]:
        for name in ("environment.json", "caller-environment.json"):
            path = submit_held(harness) / name
            path.write_text(text)
            check_failure(harness, path)
    assert harness.ended(harness.submit("true"))["outcome"] == "succeeded"
    assert harness.pid == pid and harness.process is not None and harness.process.poll() is None


def submit_held(harness: DaemonHarness) -> Any:
    """Submit a held run; return its directory."""
    return harness.state_dir / "runs" / harness.submit("true", hold=True, dedup="new")


def check_failure(harness: DaemonHarness, path: Any) -> None:
    """Release the run of a damaged file; check that the end, and a retry, name the file."""
    run_id = path.parent.name
    harness.call("run.release", run_id=run_id)
    cause = harness.ended(run_id)["cause"]
    assert (cause["kind"], str(path) in cause["error"]) == ("spawn_failed", True), cause
    if path.name == "spec.json":
        with pytest.raises(Unavailable, match=str(path)):
            harness.call("run.retry", run_id=run_id)
