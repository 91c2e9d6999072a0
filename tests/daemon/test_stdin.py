"""The input of a run (--stdin): every byte arrives, for each attempt; what fails leaves nothing."""

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mosaicctl.client import Client
from mosaicd.protocol import rundir
from mosaicd.protocol.errors import Conflict, InvalidParams, MosaicError, NotFound, TooLarge, Unavailable
from tests.daemon.test_submit import config
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

_CAT = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'wb'))"


def binary(size: int) -> bytes:
    """Return bytes of all values."""
    return random.Random(size).randbytes(size)


def input_file(harness: DaemonHarness, content: bytes) -> str:
    """Return the path of a new file with this content."""
    path = harness.home / f"input-{len(content)}"
    path.write_bytes(content)
    return str(path)


def run_of(done: "subprocess.CompletedProcess[Any]", harness: DaemonHarness) -> dict[str, Any]:
    """Return the run that `mosaicctl -o json` has printed."""
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads(done.stdout)
    harness.run_ids.add(run["run_id"])
    return run


def uploads(harness: DaemonHarness) -> list[str]:
    """Return the files of uploads."""
    directory = harness.state_dir / "uploads"
    return sorted(os.listdir(directory)) if directory.exists() else []


def until_no_upload(harness: DaemonHarness) -> None:
    """Wait until no file of an upload is left."""
    wait_until(lambda: uploads(harness), lambda found: not found, "the upload is removed")


def upload(client: Client, content: bytes, name: str | None = None) -> str:
    """Upload `content` on this connection in one chunk; return the upload's name."""
    name = name or client.call("input.open")["upload"]
    params = {"upload": name, "offset": 0, "data": base64.b64encode(content).decode()}
    assert client.call("input.write", params) == {"size": len(content)}
    return name


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_run_with_stdin_is_exact(harness: DaemonHarness, size: int) -> None:
    """`run --stdin FILE -- cat` prints the file, byte for byte."""
    content = binary(size)
    command = harness.ctl_command("run", "-q", "--stdin", input_file(harness, content), "--", "cat")
    done = subprocess.run(command, env=harness.environment, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, content)
    assert not uploads(harness)


def test_a_piped_input_arrives(harness: DaemonHarness) -> None:
    """`submit --stdin -` reads a pipe to its end; the file has mode 0600, and `show` names its size."""
    content = binary(1_500_000)
    target = harness.home / "out"
    command = harness.ctl_command("-o", "json", "submit", "--stdin", "-", "--", sys.executable, "-c", _CAT)
    done = subprocess.run(
        [*command, str(target)], env=harness.environment, input=content, capture_output=True, check=False,
        cwd=harness.home, timeout=60,
    )  # fmt: skip
    run = run_of(done, harness)
    assert harness.ended(run["run_id"])["outcome"] == "succeeded"
    assert target.read_bytes() == content
    kept = Path(run["run_dir"]) / rundir.STDIN
    assert kept.read_bytes() == content and kept.stat().st_mode & 0o777 == 0o600
    spec = json.loads((Path(run["run_dir"]) / rundir.SPEC).read_text())
    assert spec["stdin"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert run["stdin_bytes"] == len(content)
    shown = harness.ctl("show", run["run_id"]).stdout.splitlines()
    assert [line.split()[1:] for line in shown if line.split()[0] == "input"] == [["1.4", "MiB"]]


def test_a_program_on_stdin_runs_without_a_warning(harness: DaemonHarness) -> None:
    """`run --stdin - -- bash -s` runs the piped program, and no warning says that it is dropped."""
    done = harness.ctl("run", "-q", "--stdin", "-", "--", "bash", "-s", "a", stdin="echo $1; exit 7\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "a\n", "")


def test_a_run_without_stdin_has_an_empty_input(harness: DaemonHarness) -> None:
    """Without an input the run reads the end of /dev/null."""
    run_id = harness.python("import os, sys; print(os.readlink('/proc/self/fd/0'), sys.stdin.read())")
    assert harness.ended(run_id)["stdin_bytes"] is None
    assert harness.stdout(run_id) == b"/dev/null \n"


def test_the_program_cannot_write_to_its_input(harness: DaemonHarness) -> None:
    """Standard input is open for reading only, and blocks like a plain file."""
    code = "import fcntl, os; f = fcntl.fcntl(0, fcntl.F_GETFL); print(f & os.O_ACCMODE, f & os.O_NONBLOCK)"
    with harness.client() as client:
        run = client.call(
            "run.submit",
            {"command": [sys.executable, "-c", code], "cwd": "/", "stdin": upload(client, b"x")},
        )
    assert harness.ended(run["run_id"])["outcome"] == "succeeded"
    assert harness.stdout(run["run_id"]) == b"0 0\n"


def test_each_attempt_reads_from_the_first_byte(harness: DaemonHarness) -> None:
    """An attempt after a fault reads the whole input again."""
    code = "import sys; sys.stdout.write(sys.stdin.read()); sys.exit(3)"
    path = input_file(harness, b"one\ntwo\n")
    command = ("--retries", "1", "--retry-on", "any", "--", sys.executable, "-c", code)
    run = run_of(harness.ctl("-o", "json", "submit", "--stdin", path, *command), harness)
    assert harness.ended(run["run_id"])["attempt"] == 2
    assert [harness.stdout(run["run_id"], number) for number in (1, 2)] == [b"one\ntwo\n"] * 2


def test_retry_gives_the_new_run_the_same_input(harness: DaemonHarness) -> None:
    """`retry` of an ended run has its input and its digest, also after the first run was pruned."""
    first = run_of(
        harness.ctl("-o", "json", "submit", "--stdin", input_file(harness, b"again"), "--", "cat"), harness
    )
    harness.ended(first["run_id"])
    second = run_of(harness.ctl("-o", "json", "retry", first["run_id"]), harness)
    ended = harness.ended(second["run_id"])
    assert (ended["stdin_bytes"], ended["digest"]) == (5, first["digest"])
    harness.wait_until_cleaned_up(first["run_id"], second["run_id"])
    harness.call("run.prune", runs=[first["run_id"]])
    third = run_of(harness.ctl("-o", "json", "retry", second["run_id"]), harness)
    harness.ended(third["run_id"])
    assert [harness.stdout(run["run_id"]) for run in (second, third)] == [b"again"] * 2


@pytest.mark.parametrize("change", ["removed", "shorter", "a link"])
def test_retry_is_refused_if_the_input_was_changed(harness: DaemonHarness, change: str) -> None:
    """If the input of the ended run is not the file that was submitted, `retry` is refused and names it."""
    run = run_of(
        harness.ctl("-o", "json", "submit", "--stdin", input_file(harness, b"again"), "--", "cat"), harness
    )
    harness.ended(run["run_id"])
    path = Path(run["run_dir"]) / rundir.STDIN
    path.unlink()
    if change == "shorter":
        path.write_bytes(b"agai")
    elif change == "a link":
        path.symlink_to(harness.home / "input-5")
    with pytest.raises(Conflict) as refused:
        harness.call("run.retry", run_id=run["run_id"])
    assert refused.value.data["path"] == str(path)
    assert len(harness.call("run.list")["runs"]) == 1


def test_a_missing_input_fails_the_start(harness: DaemonHarness) -> None:
    """If the input is gone when an attempt begins, the attempt fails and names the file."""
    run = run_of(
        harness.ctl("-o", "json", "submit", "--hold", "--stdin", input_file(harness, b"x"), "--", "cat"),
        harness,
    )
    path = Path(run["run_dir"]) / rundir.STDIN
    path.unlink()
    harness.call("run.release", run_id=run["run_id"])
    cause = harness.ended(run["run_id"])["cause"]
    assert cause["kind"] == "spawn_failed" and str(path) in cause["error"]


def test_the_input_is_part_of_the_digest(harness: DaemonHarness) -> None:
    """A submit attaches to a live run only if command and input are the same; its upload is removed."""
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    ids = []
    for content in (b"a", b"a", b"b", None):
        with harness.client() as client:
            params: dict[str, Any] = {"command": slow, "cwd": "/", "dedup": "attach"}
            if content is not None:
                params["stdin"] = upload(client, content)
            ids.append(client.call("run.submit", params)["run_id"])
    assert ids[0] == ids[1] and len(set(ids)) == 3
    assert not uploads(harness) and len(os.listdir(harness.state_dir / "runs")) == 3


def test_the_input_of_a_config_is_part_of_its_digest(harness: DaemonHarness) -> None:
    """The digest of a config has the input, too."""
    path = harness.home / "c.json"
    path.write_text(json.dumps(config(arguments=["-c", "import sys; print(sys.stdin.read())"])))
    given = ("--stdin", input_file(harness, b"for a config"))
    first = run_of(harness.ctl("-o", "json", "submit", "-f", str(path), *given), harness)
    harness.ended(first["run_id"])
    second = run_of(harness.ctl("-o", "json", "submit", "-f", str(path)), harness)
    harness.ended(second["run_id"])
    assert harness.stdout(first["run_id"]) == b"for a config\n" and harness.stdout(second["run_id"]) == b"\n"
    assert first["digest"] != second["digest"]


@pytest.fixture
def small(build: Build) -> DaemonHarness:
    """Return a harness that takes inputs of 1000 bytes, and two uploads of one user."""
    return build(limits={"stdin_bytes": 1000, "uploads_per_user": 2})


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_an_input_above_the_limit_is_refused(small: DaemonHarness, source: str) -> None:
    """An input above [limits] stdin_bytes is refused with the limit, and nothing is left; the limit fits."""
    for size, code in ((1000, 0), (1001, 2)):
        text = "x" * size
        path = input_file(small, text.encode())
        given, stdin = (path, None) if source == "file" else ("-", text)
        done = small.ctl("-o", "name", "submit", "--stdin", given, "--", "cat", stdin=stdin)
        assert done.returncode == code, done.stderr
        small.run_ids.update(done.stdout.split())
    assert "1000" in done.stderr and "stdin_bytes" in done.stderr
    until_no_upload(small)
    assert len(small.call("run.list")["runs"]) == 1


def test_a_killed_client_leaves_nothing(harness: DaemonHarness) -> None:
    """If the client is killed in the middle of its upload, the daemon removes what it had received."""
    command = harness.ctl_command("submit", "--stdin", "-", "--", "cat")
    client = subprocess.Popen(command, env=harness.environment, stdin=subprocess.PIPE, cwd=harness.home)
    assert client.stdin is not None
    with client.stdin:
        client.stdin.write(bytes(600_000))
        client.stdin.flush()
        wait_until(lambda: _bytes_of_uploads(harness), lambda size: size > 500_000, "chunks arrive")
        client.kill()
        client.wait()
    until_no_upload(harness)
    assert not harness.call("run.list")["runs"] and not os.listdir(harness.state_dir / "runs")


def _bytes_of_uploads(harness: DaemonHarness) -> int:
    return sum((harness.state_dir / "uploads" / name).stat().st_size for name in uploads(harness))


def test_a_killed_daemon_leaves_no_upload(harness: DaemonHarness) -> None:
    """An upload without a submit is removed at the next start of the daemon."""
    with harness.client() as client:
        upload(client, b"x" * 1000)
        assert len(uploads(harness)) == 1
        harness.kill()
        assert len(uploads(harness)) == 1
    harness.start()
    assert not uploads(harness) and not os.listdir(harness.state_dir / "runs")


def test_the_client_sends_the_input_again_after_a_restart(harness: DaemonHarness) -> None:
    """If the daemon is restarted in the middle of an upload, also from a pipe, the client begins again."""
    content = binary(900_000)
    target = harness.home / "out"
    command = harness.ctl_command("-o", "json", "submit", "--stdin", "-", "--", sys.executable, "-c", _CAT)
    client = subprocess.Popen(
        [*command, str(target)], env=harness.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=harness.home,
    )  # fmt: skip
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(content[:600_000])
    client.stdin.flush()
    wait_until(lambda: _bytes_of_uploads(harness), lambda size: size > 500_000, "chunks arrive")
    harness.restart()
    client.stdin.write(content[600_000:])
    client.stdin.close()
    run = json.loads(client.stdout.read())
    client.stdout.close()
    assert client.wait() == 0 and not run["duplicate"]
    harness.run_ids.add(run["run_id"])
    assert harness.ended(run["run_id"])["outcome"] == "succeeded" and target.read_bytes() == content
    assert len(harness.call("run.list")["runs"]) == 1


def test_a_waiting_run_keeps_its_input_over_a_restart(harness: DaemonHarness) -> None:
    """A run that was answered has its input after a crash of the daemon."""
    path = input_file(harness, b"durable")
    run = run_of(harness.ctl("-o", "json", "submit", "--hold", "--stdin", path, "--", "cat"), harness)
    harness.restart()
    harness.call("run.release", run_id=run["run_id"])
    harness.ended(run["run_id"])
    assert harness.stdout(run["run_id"]) == b"durable"


def _refused(client: Client, method: str, params: Mapping[str, Any]) -> MosaicError:
    with pytest.raises(MosaicError) as refused:
        client.call(method, dict(params))
    return refused.value


def test_the_rules_of_an_upload(small: DaemonHarness) -> None:
    """Offset and encoding are checked; a refused chunk changes nothing; each upload makes one run."""
    with small.client() as client:
        name = upload(client, b"abc")
        for wrong in ({"offset": 2}, {"offset": 4}, {"data": "a"}, {"data": "\u00e9"}):
            params = {"upload": name, "offset": 3, "data": "ZA==", **wrong}
            assert isinstance(_refused(client, "input.write", params), InvalidParams)
        assert client.call("input.write", {"upload": name, "offset": 3, "data": "ZA=="}) == {"size": 4}
        submit = {"command": ["cat"], "cwd": "/", "stdin": name}
        run = client.call("run.submit", submit)
        small.run_ids.add(run["run_id"])
        assert isinstance(_refused(client, "run.submit", submit), NotFound)
        assert isinstance(
            _refused(client, "input.write", {"upload": name, "offset": 4, "data": ""}), NotFound
        )
    small.ended(run["run_id"])
    assert small.stdout(run["run_id"]) == b"abcd"


def test_an_upload_belongs_to_its_connection(small: DaemonHarness) -> None:
    """Another connection cannot use an upload, and the number of open uploads of a user is limited."""
    with small.client() as one, small.client() as two:
        name = upload(one, b"abc")
        write = {"upload": name, "offset": 3, "data": ""}
        assert isinstance(_refused(two, "input.write", write), NotFound)
        submit = {"command": ["cat"], "cwd": "/", "stdin": name}
        assert isinstance(_refused(two, "run.submit", submit), NotFound)
        two.call("input.open")
        assert isinstance(_refused(two, "input.open", {}), Unavailable)
        over = {"upload": name, "offset": 3, "data": base64.b64encode(bytes(998)).decode()}
        assert isinstance(_refused(one, "input.write", over), TooLarge)
        assert isinstance(_refused(one, "input.write", write), NotFound)
        two.call("input.open")
    until_no_upload(small)


def test_a_refused_submit_removes_its_upload(harness: DaemonHarness) -> None:
    """A submit that is refused ends its upload."""
    with harness.client() as client:
        submit = {"command": ["cat"], "cwd": "relative", "stdin": upload(client, b"abc")}
        assert isinstance(_refused(client, "run.submit", submit), InvalidParams)
        assert not uploads(harness)


def test_mistakes_are_told_before_the_input_is_read(harness: DaemonHarness) -> None:
    """A submit that the daemon refuses reads nothing of the pipe."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"still there")
    command = harness.ctl_command("submit", "--stdin", "-", "-g", "5", "--", "cat")
    done = subprocess.run(
        command, env=harness.environment, stdin=read_end, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 6, done.stderr
    assert os.read(read_end, 100) == b"still there"
    os.close(read_end)
    os.close(write_end)


def test_a_dry_run_sends_nothing(harness: DaemonHarness) -> None:
    """`submit --dry-run --stdin FILE` checks that the file can be opened, and sends nothing."""
    path = input_file(harness, b"abc")
    done = harness.ctl("submit", "--dry-run", "--stdin", path, "--", "cat")
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "INIT"
    assert not (harness.state_dir / "uploads").exists()
    assert harness.ctl("submit", "--dry-run", "--stdin", path + "-", "--", "cat").returncode == 2


def test_prune_frees_the_input(harness: DaemonHarness) -> None:
    """The bytes of the input count for retention, and prune removes them."""
    path = input_file(harness, binary(500_000))
    run = run_of(harness.ctl("-o", "json", "submit", "--stdin", path, "--", "true"), harness)
    harness.ended(run["run_id"])
    harness.wait_until_cleaned_up(run["run_id"])
    pruned = harness.call("run.prune", runs=[run["run_id"]])
    assert pruned["bytes"] >= 500_000 and not Path(run["run_dir"]).exists()
