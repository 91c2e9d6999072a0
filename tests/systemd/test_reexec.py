"""Upgrades under a real systemd: the service stays one process; who follows a run has every line, once."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.waiting import wait_until
from tests.systemd.machine import HOME, UserService

pytestmark = [pytest.mark.systemd, pytest.mark.root]

GO = f"{HOME}/work/go"
COUNTING = f"i=0; until [ -e {GO} ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 7"


def started(service: UserService, **settings: str) -> str:
    """Start the service, and a run that counts until it is told to end."""
    service.install(**settings)
    service.systemctl("start", "mosaicd")
    run_id = service.submit("--", "sh", "-c", COUNTING)
    service.wait_state(run_id, "EXEC")
    return run_id


def test_reexec_is_no_restart(service: UserService) -> None:
    """Same main process, no restart counted, active afterwards; the run is undisturbed, by two of them."""
    run_id = started(service)
    daemon, before = service.main_pid, service.run_object(run_id)
    for _ in range(2):
        said = service.answer("daemon", "reexec")
        assert said["pid"] == daemon == service.main_pid
        wait_until(lambda: service.show("SubState"), lambda state: state == "running", "the unit runs", 60)
    assert (service.show("NRestarts"), service.show("ActiveState")) == ("0", "active")
    now = service.run_object(run_id)
    assert (now["pid"], now["attempt"], now["state"]) == (before["pid"], 1, "EXEC")
    service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    assert service.show("Result") == "success"


def reexec(service: UserService) -> None:
    service.said("daemon", "reexec")


def restart(service: UserService) -> None:
    service.systemctl("restart", "mosaicd")


def kill(service: UserService) -> None:
    replaced(service, "-9")


def hang(service: UserService) -> None:
    replaced(service, "-STOP")


def replaced(service: UserService, signal: str) -> None:
    old = service.main_pid
    service.machine.run("kill", signal, str(old))
    wait_until(lambda: service.main_pid, lambda pid: pid not in (0, old), "another daemon", 60)


def test_who_follows_has_every_line_once(service: UserService) -> None:
    """One `logs -f` and one `watch`, over a reexec, a restart, a kill -9 and a hang that is noticed."""
    run_id = started(service, WatchdogSec="5s", TimeoutAbortSec="1s")
    pipe = subprocess.PIPE
    followers = [
        subprocess.Popen(service.ctl_argv(*words), stdout=pipe, stderr=pipe)
        for words in (("logs", "-f", run_id), ("-o", "jsonl", "watch", "--since", "0", run_id))
    ]
    ways: list[Callable[[UserService], None]] = [reexec, restart, kill, hang]
    for way in ways:
        way(service)
        assert service.run_object(run_id)["state"] == "EXEC"
    service.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {GO}")
    assert service.ctl("wait", run_id).returncode == 7
    (lines, _), (events, _) = (follower.communicate(timeout=60) for follower in followers)
    numbers = [int(line) for line in lines.split()]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers
    told: list[dict[str, Any]] = [json.loads(line) for line in events.splitlines()]
    seqs = [event["seq"] for event in told if "seq" in event]
    assert seqs == sorted(set(seqs)) and told[-1].get("state") == "TERM"
