"""The worker's process has the umask, limits, nice value, affinity of its submitter, and fresh signals."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosaicd.protocol.errors import InvalidParams
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness

_PRINT = """
import json, os, resource
made = f"made-{os.getpid()}"
open(made, "w").close()
print(json.dumps({
    "mode": os.stat(made).st_mode & 0o777, "nice": os.nice(0), "affinity": sorted(os.sched_getaffinity(0)),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
}))
"""


_IGNORANT = """
import os, signal, sys
for number in (signal.SIGPIPE, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGWINCH, signal.SIGHUP])
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _popen_with(program: str) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Return a Popen that starts a Python command through `program`, for a daemon with odd beginnings."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        return popen([sys.executable, "-c", program, *command[1:]], **options)

    return start


def printed(harness: DaemonHarness, run_id: str) -> dict[str, Any]:
    """Return what a run of `_PRINT` has printed."""
    assert harness.ended(run_id)["outcome"] == "succeeded"
    found: dict[str, Any] = json.loads(harness.stdout(run_id))
    return found


def submitted_as(harness: DaemonHarness, prepare: Callable[[], None]) -> tuple[str, str]:
    """Submit `_PRINT` from a mosaicctl whose process is prepared; return the run id and standard error."""
    done = subprocess.run(
        harness.ctl_command("-o", "name", "submit", "--", sys.executable, "-c", _PRINT),
        env=harness.environment, cwd=harness.home, capture_output=True, text=True, timeout=60, check=True,
        preexec_fn=prepare,
    )  # fmt: skip
    harness.run_ids.add(done.stdout.strip())
    return done.stdout.strip(), done.stderr


def test_umask_limits_and_nice_of_the_submitter_arrive(harness: DaemonHarness) -> None:
    """A run from a shell with umask 077, lower soft limits and nice 3 has all three; the hard limits stay."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def prepare() -> None:
        os.umask(0o077)
        os.setpriority(os.PRIO_PROCESS, 0, max(3, os.getpriority(os.PRIO_PROCESS, 0)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))

    nice = max(3, os.getpriority(os.PRIO_PROCESS, 0))
    found = printed(harness, submitted_as(harness, prepare)[0])
    assert (found["mode"], found["nice"], found["nofile"]) == (0o600, nice, [300, hard])


def test_the_affinity_of_the_submitter_arrives(harness: DaemonHarness) -> None:
    """`taskset -c 0 mosaicctl submit` keeps the run on that CPU."""
    first = min(os.sched_getaffinity(0))
    run_id, _ = submitted_as(harness, lambda: os.sched_setaffinity(0, {first}))
    assert printed(harness, run_id)["affinity"] == [first]


def test_the_files_of_the_shim_keep_their_modes(harness: DaemonHarness) -> None:
    """A umask of 0 is for the worker alone: the files of shim and daemon are as private as without it."""
    plain = harness.python(_PRINT)
    open_ = harness.python(_PRINT, process={"umask": 0})
    assert printed(harness, open_)["mode"] == 0o666
    harness.ended(plain)

    def modes(run_id: str) -> dict[str, int]:
        return {path.name: path.stat().st_mode for path in Path(harness.attempt(run_id)).iterdir()}

    assert modes(open_) == modes(plain)


def test_a_limit_above_the_hard_limit_is_cut_and_told(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A soft limit above the hard limit of the daemon is cut to it, and the reply names it."""
    monkeypatch.setattr(subprocess, "Popen", _popen_with(_LIMITED))
    harness = build()
    monkeypatch.undo()
    run = harness.call(
        "run.submit", command=[sys.executable, "-c", _PRINT], cwd=str(harness.home),
        process={"limits": {"core": "unlimited", "nofile": 300}},
    )  # fmt: skip
    harness.run_ids.add(run["run_id"])
    assert run["cut_attributes"] == ["core"]
    found = printed(harness, run["run_id"])
    assert (found["core"], found["nofile"][0]) == ([4096, 4096], 300)


def test_a_client_that_sends_no_attributes_changes_nothing(harness: DaemonHarness) -> None:
    """Without `process`, umask, nice and limits are those of the daemon's starter, as before."""
    found = printed(harness, harness.python(_PRINT))
    umask = os.umask(0)
    os.umask(umask)
    assert found["mode"] == 0o666 & ~umask
    assert found["nofile"][0] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("process", "path"),
    [
        ({"umask": 0o1000}, "process.umask"), ({"umask": "077"}, "process.umask"),
        ({"nice": -1}, "process.nice"), ({"nice": 20}, "process.nice"),
        ({"limits": []}, "process.limits"), ({"limits": {"files": 1}}, "process.limits.files"),
        ({"limits": {"nofile": -1}}, "process.limits.nofile"),
        ({"limits": {"nofile": True}}, "process.limits.nofile"),
        ({"limits": {"nofile": "none"}}, "process.limits.nofile"),
        ({"affinity": []}, "process.affinity"), ({"affinity": [-1]}, "process.affinity"),
        ({"affinity": ["0"]}, "process.affinity"), ({"color": 1}, "process.color"),
    ],
)  # fmt: skip
def test_a_bad_attribute_is_refused(harness: DaemonHarness, process: dict[str, Any], path: str) -> None:
    """Each attribute that cannot be set is refused with its path, and no run exists."""
    with pytest.raises(InvalidParams) as refused:
        harness.submit("true", process=process)
    assert [error["path"] for error in refused.value.data["errors"]] == [path]
    assert harness.call("run.list")["runs"] == []


def test_attributes_are_outside_of_the_digest_and_in_spec_json(harness: DaemonHarness) -> None:
    """Two submits that differ in `process` have one digest; spec.json keeps it for a retry."""
    first = harness.submit("true", process={"umask": 0o077})
    second = harness.submit("true")
    assert harness.get(first)["digest"] == harness.get(second)["digest"]
    spec = json.loads((harness.state_dir / "runs" / first / "spec.json").read_text())
    assert spec["process"] == {"umask": 0o077}
    for run_id in (first, second):
        harness.ended(run_id)


def test_signals_are_fresh_whatever_the_daemon_inherited(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that was started with ignored and blocked signals starts workers with neither."""
    monkeypatch.setattr(subprocess, "Popen", _popen_with(_IGNORANT))
    harness = build()
    monkeypatch.undo()
    run_id = harness.submit("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
    assert harness.ended(run_id)["outcome"] == "succeeded"
    masks = dict(line.split() for line in harness.stdout(run_id).decode().splitlines())
    ours = sum(1 << (number - 1) for number in signal.valid_signals())  # the C library keeps two for itself
    assert {int(mask, 16) & ours for mask in masks.values()} == {0}, masks
    assert harness.process is not None
    status = Path(f"/proc/{harness.process.pid}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGUSR2 - 1)), "the daemon itself has inherited it"
