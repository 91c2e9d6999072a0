"""Errors: mistakes on the command line, no daemon, a daemon that goes away, refusals of the daemon."""

import os
import socket
from collections.abc import Callable
from typing import Any
from unittest import mock

from mosaicctl.timed_look import NoAnswer
from mosaicd.protocol.errors import ERRORS, Conflict, InvalidParams, NotFound, TimedOut
from tests.ctl.scripted import Hangup, Peer, a_run, an_ended_run
from tests.ctl.usage_errors import usage_errors
from tests.golden.stage import Stage

WORKER = {"kind": "tabular", "module": "m", "python": "/w/bin/python", "capabilities": {}}
BROKEN = {"kind": "broken", "error": "the interpreter /b/bin/python does not exist"}


def mistakes(stage: Stage) -> None:
    """Mistakes on the command line: every verb, and the options that all verbs have."""
    stage.title("Mistakes on the command line: reported before a daemon is asked")
    (stage.directory / "bad.json").write_text("{")
    for line in ("lits", "xyzzy", "list --bogus", "list -o xml", "--socket '' list", "list --gra", "-o"):
        stage.ctl(line)
    for line, _ in usage_errors():
        stage.ctl(line.replace("TMP", str(stage.directory)))


def files(stage: Stage) -> None:
    """Configs and workers that cannot be used."""
    stage.title("Configs, workers, working directory")
    workers = {"worker.list": {"workers": [WORKER, BROKEN]}}
    for name, content in (
        ("a.toml", b"a = "), ("list.json", b"[1]"), ("bytes.json", b"\xff{}"),
        ("worker.json", b'{"metadata": 1}'),
    ):  # fmt: skip
        (stage.directory / name).write_bytes(content)
    for name in ("a.toml", "list.json", "bytes.json"):
        stage.ctl(f"submit -f {stage.directory / name}")
    for name, line in (("a.env", "A = 1"), ("b.env", "# b\nA='x"), ("c.env", 'A="x" y')):
        (stage.directory / name).write_text(line)
        stage.ctl(f"submit --env-file {stage.directory / name} -- true")
    stage.ctl(f"submit --env-file {stage.directory / 'none.env'} -- true")
    stage.ctl(f"submit -f {stage.directory / 'worker.json'} --set a=1")
    stage.ctl("submit --worker tabular --set a=1 --set a.b=1", workers)
    stage.ctl("submit --worker broken", workers)
    stage.ctl("submit --worker tabluar", workers)
    stage.ctl("submit --worker tabular", {"worker.list": {"workers": []}})
    gone = FileNotFoundError(2, "No such file or directory")
    with mock.patch("os.getcwd", side_effect=gone), mock.patch.dict(os.environ, {"PWD": ""}):
        stage.ctl("submit -- true")


def programs(stage: Stage) -> None:
    """Programs, directories and values of workers that cannot be used."""
    stage.title("Programs: reported before the submit is sent")
    bin_ = stage.directory / "bin"
    bin_.mkdir()
    for name, content, mode in (
        ("plain.txt", "", 0o644), ("no_shebang", "echo", 0o755), ("crlf.sh", "#!/bin/sh\r\n", 0o755),
        ("gone.py", "#!/no/python\n", 0o755), ("bad.sh", f"#!{bin_}/plain.txt\n", 0o755),
        ("job.sh", "#!/bin/sh", 0o755),
    ):  # fmt: skip
        (bin_ / name).write_text(content)
        (bin_ / name).chmod(mode)
    (bin_ / "dead").symlink_to("nowhere")
    (bin_ / "loop").symlink_to("loop")
    os.mkfifo(bin_ / "fifo")
    names = "plain.txt no_shebang crlf.sh gone.py bad.sh dead loop fifo none".split()
    for command in (
        "nosuch", "FOO=1 cmd x", "'python train.py && ls'", "cd /tmp", "source activate", "job.sh a",
        "plain.txt", "'~/x'", bin_, *(f"./{name}" for name in names),
    ):  # fmt: skip
        stage.ctl(f"submit --cwd {bin_} -- {command}")
    stage.ctl(f"run --cwd {bin_} -- ./none")
    stage.ctl(f"run --cwd {bin_} -- ./no_shebang")
    stage.ctl(f"submit --cwd {bin_}/none -- true")
    stage.ctl(f"submit --cwd {bin_}/job.sh -- true")
    with mock.patch("mosaicctl.submit_check.timed_look", side_effect=NoAnswer):
        stage.ctl(f"submit --cwd {bin_} -- true", {"run.submit": a_run(state="INIT")})
    properties = {"episodes": {"type": "integer", "minimum": 1}, "algo": {"enum": ["q", "sarsa"]}}
    schema = {"properties": properties, "additionalProperties": False}
    workers = {"worker.list": {"workers": [{**WORKER, "config_schema": schema}]}}
    for line in ("--set episode=100", "--set episodes=0", "--set algo=x --set episodes=many"):
        stage.ctl(f"submit --worker tabular {line}", workers)


def no_daemon(stage: Stage) -> None:
    """No daemon answers, for each reason; and `submit --dry-run`, which works without one."""
    stage.title("No daemon answers")
    none = stage.directory / "none"
    stage.ctl(f"list --socket {none}")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stage.directory / "dead"))
    stage.ctl(f"list --socket {stage.directory / 'dead'}")
    stage.ctl(f"list --socket /{'x' * 120}")
    with mock.patch("socket.socket.connect", side_effect=PermissionError(13, "Permission denied")):
        stage.ctl("list")
    system = mock.patch("mosaicctl.client.SYSTEM_SOCKET", str(stage.directory / "system"))
    with system, mock.patch.dict(os.environ, {"MOSAICD_SOCKET": ""}):
        stage.ctl("list")
    here = mock.patch("mosaicctl.submission._working_directory", lambda: "/here")
    with here, mock.patch.dict(os.environ, {"PATH": "/bin"}):
        stage.ctl(f"submit --dry-run --no-check --socket {none} -- true")


def lost(stage: Stage) -> None:
    """A daemon that ends the connection, does not answer in time, or is another program."""
    stage.title("The connection is lost")
    stage.ctl("list", {"run.list": Hangup()})
    stage.ctl("list", {"run.list": _raw(b"HTTP/1.1 400 Bad Request\n")})
    with mock.patch("mosaicctl.client.REPLY_LIMIT_BYTES", 1 << 20):
        stage.ctl("list", {"run.list": _raw(b"x" * ((1 << 20) + 2))})
    with mock.patch("mosaicctl.client.Client._wait_for_data", lambda *_: False):
        asked = len(stage.daemon.requests("run.list"))
        stage.ctl("list", {"run.list": {"runs": [], "cursor": None}})
        stage.daemon.wait_for(lambda: len(stage.daemon.requests("run.list")) > asked)
    with mock.patch("mosaicctl.verbs.daemon.REEXEC_TIMEOUT_S", 0.05):
        stage.ctl("daemon reexec", {"daemon.reexec": {"version": "0.1.0"}})


def refusals(stage: Stage) -> None:
    """Every error of the daemon with the message of its class, and the lines that its data adds."""
    stage.title("Errors of the daemon: the message of each class, if the daemon gives no other")
    for kind in ERRORS.values():
        stage.note(f"{kind.name} ({kind.code})")
        stage.ctl("show a", {"run.get": kind})
    stage.title("Errors of the daemon: the lines that follow the message")
    faults = [{"path": "resources.cpus", "rule": "must be at least 1"}, {"path": "", "rule": "is empty"}]
    first = "resources.cpus: must be at least 1 (and 1 more)"
    stage.ctl("submit -- true", {"run.submit": InvalidParams(first, errors=faults)})
    stage.ctl("submit -- true", {"run.submit": InvalidParams("path: is not a file", errors=[
        {"path": "path", "rule": "is not a file"}])})  # fmt: skip
    stage.ctl("show 01", {"run.get": Conflict("'01' is ambiguous", candidates=[
        {"run_id": "01A", "name": "one"}, {"run_id": "01B", "name": None}])})  # fmt: skip
    stage.ctl("show a", {"run.get": Conflict("the run is pinned", help="mosaicctl unpin a")})
    ended = Conflict("run a has ended", state="TERM")
    for verb in ("pause", "resume", "stop", "hold", "release"):
        stage.ctl(f"{verb} a b", {f"run.{verb}": _first(ended, a_run(2))})
    stage.ctl("stop --wait a", {"run.stop": a_run(want="stop"), "run.wait": TimedOut()})
    stage.ctl("set a -p 1", {"run.get": a_run(), "run.set": ended})
    stage.ctl("pin a b", {"run.pin": _first(NotFound("there is no run 'a'"), an_ended_run(2))})
    stage.ctl("retry a", {"run.retry": Conflict("run a has not ended")})
    stage.ctl("wait --state PAUSE a", {"run.wait": Conflict("run a has ended and cannot be PAUSE")})
    stage.ctl("wait --timeout 1s a", {"run.wait": TimedOut("run a is not TERM after 1 s")})


def selections(stage: Stage) -> None:
    """Selections that match no run, or too many."""
    stage.title("Selections")
    nothing: dict[str, Any] = {"run.list": {"runs": [], "cursor": None}}
    for line in ("show", "show 'taxi-*'", "stop --all", "list", "list --mine"):
        stage.ctl(line, nothing)
    stage.ctl("list", nothing, on_terminal=True)
    stage.ctl("list --mine", nothing, on_terminal=True)
    for verb in ("logs", "metrics"):
        stage.ctl(f"{verb} 'run-*'", {"run.list": {"runs": [a_run(1), a_run(2)], "cursor": None}})


def _raw(data: bytes) -> Callable[[dict[str, Any], Peer], Any]:
    def answer(params: dict[str, Any], peer: Peer) -> Any:
        peer.link.sendall(data)
        raise Hangup

    return answer


def _first(error: Exception, other: dict[str, Any]) -> Callable[[dict[str, Any], Peer], Any]:
    """An answer that refuses run `a` and accepts any other."""

    def answer(params: dict[str, Any], peer: Peer) -> Any:
        if params["run_id"] == "a":
            raise error
        return other

    return answer


SECTIONS = (mistakes, files, programs, no_daemon, lost, refusals, selections)
