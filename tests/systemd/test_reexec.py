"""reexec under a real systemd: the service keeps its process, and clients that follow receive every line
once."""

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
    """Start the service and a run that counts until GO exists; return the run id."""
    service.install(**settings)
    service.systemctl("start", "mosaicd")
    run_id = service.submit("--", "sh", "-c", COUNTING)
    service.wait_state(run_id, "EXEC")
    return run_id


def test_reexec_is_no_restart(service: UserService) -> None:
    """After two reexecs the main process is the same, no restart is counted, and the run is unaffected."""
    run_id = started(service)
    daemon, before = service.main_pid, service.run_object(run_id)
    for _ in range(2):
        report = service.ctl_json("daemon", "reexec")
        assert report["pid"] == daemon == service.main_pid
        wait_until(lambda: service.show("SubState"), lambda state: state == "running", "the unit runs", 60)
    assert (service.show("NRestarts"), service.show("ActiveState")) == ("0", "active")
    now = service.run_object(run_id)
    assert (now["pid"], now["attempt"], now["state"]) == (before["pid"], 1, "EXEC")
    service.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    assert service.show("Result") == "success"


def reexec(service: UserService) -> None:
    service.ctl_output("daemon", "reexec")


def restart(service: UserService) -> None:
    service.systemctl("restart", "mosaicd")


def kill(service: UserService) -> None:
    signal_and_wait(service, "-9")


def hang(service: UserService) -> None:
    signal_and_wait(service, "-STOP")


def signal_and_wait(service: UserService, signal: str) -> None:
    """Send a signal to the daemon and wait for the next one."""
    old = service.main_pid
    service.machine.run("kill", signal, str(old))
    wait_until(lambda: service.main_pid, lambda pid: pid not in (0, old), "another daemon", 60)


def test_followers_receive_every_line_once(service: UserService) -> None:
    """`logs -f` and `watch` receive every line and event once, across a reexec, a restart, a kill -9 and a
    hang."""
    run_id = started(service, WatchdogSec="5s", TimeoutAbortSec="1s")
    pipe = subprocess.PIPE
    followers = [
        subprocess.Popen(service.ctl_argv(*arguments), stdout=pipe, stderr=pipe)
        for arguments in (("logs", "-f", run_id), ("-o", "jsonl", "watch", "--since", "0", run_id))
    ]
    interruptions: list[Callable[[UserService], None]] = [reexec, restart, kill, hang]
    for interrupt in interruptions:
        interrupt(service)
        assert service.run_object(run_id)["state"] == "EXEC"
    service.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {GO}")
    assert service.ctl("wait", run_id).returncode == 7
    (lines, _), (events, _) = (follower.communicate(timeout=60) for follower in followers)
    numbers = [int(line) for line in lines.split()]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers
    records: list[dict[str, Any]] = [json.loads(line) for line in events.splitlines()]
    seqs = [event["seq"] for event in records if "seq" in event]
    assert seqs == sorted(set(seqs)) and records[-1].get("state") == "TERM"
