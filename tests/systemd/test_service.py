"""mosaicd under a real `systemctl --user`: start, readiness, socket activation, status and journal."""

import json
import stat
from typing import Any

import pytest

from mosaicd.log import Catalogue
from tests.harness.waiting import wait_until
from tests.systemd.machine import HOME, RUNTIME, UID, UserService

pytestmark = [pytest.mark.systemd, pytest.mark.root]


@pytest.fixture
def started(service: UserService) -> UserService:
    """The service, installed and started by name, with four CPU slots."""
    service.install()
    service.configure("[cpus]\nslots = 4\n")
    service.systemctl("start", "mosaicd")
    return service


def test_start_by_name(started: UserService) -> None:
    """`systemctl --user start mosaicd` returns when the daemon is ready, and mosaicctl finds its socket."""
    assert started.show("ActiveState") == "active"
    health = started.ctl_json("health")
    assert (health["ready"], health["pid"]) == (True, started.main_pid)


def test_the_socket_is_private(started: UserService) -> None:
    """The socket is made by systemd, with mode 0600 in a directory of mode 0700."""
    folder = started.machine.root / RUNTIME.lstrip("/") / "mosaicd"
    status = (folder / "mosaicd.sock").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert status.st_uid == UID
    assert started.show("ActiveState", "mosaicd.socket") == "active"


def test_the_first_client_starts_the_daemon(service: UserService) -> None:
    """If only the socket is active, the first client starts the daemon and is served."""
    service.install()
    service.systemctl("start", "mosaicd.socket")
    assert service.show("ActiveState") == "inactive"
    assert service.ctl_output("-o", "name", "list") == ""
    assert service.show("ActiveState") in ("activating", "active")
    assert service.ctl_json("health")["pid"] == service.main_pid


def test_ready_means_reconciled(started: UserService) -> None:
    """READY=1 is sent after the reconcile: when `start` returns, runs that ended meanwhile have their exact
    exit code.

    In the journal the reconcile comes before systemd's `Started`.
    """
    go = f"{HOME}/work/go"
    runs = {code: started.submit("--", "sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done; exit {code}")
            for code in (0, 7, 200)}  # fmt: skip
    for run_id in runs.values():
        started.wait_state(run_id, "EXEC")
    started.systemctl("stop", "mosaicd.socket", "mosaicd.service")
    started.machine.run("sh", "-c", f"mkdir -p {HOME}/work && touch {go}")
    wait_until(
        started.processes, lambda lines: not lines, "workers and shims have ended", 60
    )  # their shims have seen them end, too
    started.systemctl("start", "mosaicd")
    assert started.ctl_json("health")["ready"]
    for code, run_id in runs.items():
        assert started.run_object(run_id)["exit_code"] == code
    for run_id in runs.values():
        started.wait_state(run_id, "TERM")
    records = wait_until(started.journal, lambda found: len(starts(found)) == 2, "a second start", 60)
    reconciled = [
        i for i, record in enumerate(records) if record.get("LOG_CODE") == Catalogue.RECONCILED.code
    ]
    assert len(reconciled) == 2, records
    assert max(reconciled) < max(starts(records))


def starts(records: list[dict[str, Any]]) -> list[int]:
    """Return the positions of the records in which systemd reports a start of the service."""
    return [i for i, record in enumerate(records) if str(record["MESSAGE"]).startswith("Started mosaicd")]


def test_the_status_has_the_number_of_runs(started: UserService) -> None:
    """STATUS= has the current number of runs."""

    def text() -> str:
        return started.show("StatusText")

    run_id = started.submit("--", "sleep", "300")
    wait_until(text, lambda seen: "1 live run" in seen, "the status has the run", 60)
    started.ctl("stop", run_id)
    wait_until(text, lambda seen: "0 live run" in seen, "the status has no run", 60)


def test_a_run_has_no_variables_of_systemd(started: UserService) -> None:
    """The environment of a run has no variable with which it could notify systemd as the daemon."""
    run_id = started.submit("--", "env")
    run = started.wait_state(run_id, "TERM")
    printed = started.machine.run("cat", f"{run['run_dir']}/attempt-1/stdout.log").stdout
    assert "MOSAIC_RUN_ID=" in printed
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert not [name for name in names if name.startswith(("NOTIFY_", "WATCHDOG_", "LISTEN_", "INVOCATION_"))]


def test_the_journal_has_the_run_id(started: UserService) -> None:
    """Log records are stored as fields, so that `journalctl RUN_ID=` selects the records of a run."""
    run_id = started.submit("--", "true")
    started.wait_state(run_id, "TERM")
    command = ("journalctl", "--no-pager", "-o", "json", f"RUN_ID={run_id}")
    lines = wait_until(lambda: started.machine.run(*command, root=True).stdout, bool, "a record", 60)
    records = [json.loads(line) for line in lines.splitlines()]
    assert all(record["PRIORITY"] in "34567" for record in records)


def test_the_journal_has_a_removed_run_directory(started: UserService) -> None:
    """A shim logs to the journal that its run directory was removed; the run can still be stopped."""
    run_id = started.submit("--", "sleep", "300")
    run = started.wait_state(run_id, "EXEC")
    started.machine.run("rm", "-r", f"{run['run_dir']}/attempt-1")
    command = ("journalctl", "--no-pager", "-o", "json", f"RUN_ID={run_id}", "MOSAIC_EVENT=RUN_DIR_REMOVED")
    lines = wait_until(lambda: started.machine.run(*command, root=True).stdout, bool, "a record", 60)
    [record] = [json.loads(line) for line in lines.splitlines()]
    assert record["MESSAGE_ID"] == Catalogue.RUN_DIR_REMOVED.message_id
    assert f"{run['run_dir']}/attempt-1" in record["MESSAGE"]
    started.ctl("stop", run_id)
    started.wait_state(run_id, "TERM")


def test_a_second_daemon_is_refused(started: UserService) -> None:
    """A daemon started in a terminal beside the service exits with 2 and names its pid; the service is
    unaffected."""
    before = started.main_pid
    done = started.machine.run(started.python, "-m", "mosaicd", check=False)
    assert done.returncode == 2
    assert str(before) in done.stderr
    assert started.main_pid == before


def test_a_refused_service_is_not_restarted(service: UserService) -> None:
    """If another daemon holds the state directory, the service fails once and is not restarted."""
    service.install()
    elsewhere = f"{RUNTIME}/elsewhere.sock"
    start = f"setsid {service.python} -m mosaicd --socket {elsewhere} >/dev/null 2>&1 &"
    service.machine.run("sh", "-c", start)
    wait_until(
        lambda: service.ctl("--socket", elsewhere, "health").returncode,
        lambda code: code == 0,
        "the other daemon answers",
        60,
    )
    assert service.systemctl("start", "mosaicd", check=False).returncode != 0
    assert service.show("ActiveState") == "failed"  # "activating" would mean a pending restart
    assert service.show("Result") == "exit-code"
    assert service.show("ExecMainStatus") == "2"
    assert service.show("NRestarts") == "0"
