"""The variables that tell a run its granted CPUs and memory, and how those of the submitter replace them."""

import json
import os
import signal
from typing import Any

import pytest

from mosaicd.core.run_environment import LONGEST_TMPDIR_BYTES
from mosaicd.protocol.errors import CapacityImpossible, InvalidParams
from mosaicd.protocol.rundir import parse_temporary_name
from tests.daemon.test_environment import environment_of_run
from tests.daemon.test_submit import config
from tests.daemon.workshop import workshop
from tests.harness.building import Build
from tests.harness.daemon import DaemonHarness
from tests.harness.waiting import wait_until

_PRINT = "import json, os; print(json.dumps(dict(os.environ)))"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def test_a_run_reads_its_grant_in_its_environment(harness: DaemonHarness) -> None:
    """MOSAIC_CPUS and all thread counts are the granted CPUs, not the requested ones."""
    found = environment_of_run(harness, harness.python(_PRINT, cpus=64))
    assert {found[name] for name in ("MOSAIC_CPUS", *_THREADS)} == {"2"}


def test_an_exported_thread_count_stays(harness: DaemonHarness) -> None:
    """OMP_NUM_THREADS=4 of the caller's shell stays 4, and the other libraries use 4 as well."""
    found = environment_of_run(harness, harness.python(_PRINT, caller_environment={"OMP_NUM_THREADS": "4"}))
    assert {found[name] for name in _THREADS} == {"4"}


def test_without_gpu_slots_the_exported_gpus_reach_the_run(harness: DaemonHarness) -> None:
    """Where no GPUs are managed, CUDA_VISIBLE_DEVICES passes untouched, and is absent if not exported."""
    found = environment_of_run(
        harness, harness.python(_PRINT, caller_environment={"CUDA_VISIBLE_DEVICES": "2"})
    )
    assert found["CUDA_VISIBLE_DEVICES"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in environment_of_run(harness, harness.python(_PRINT))


def test_without_gpu_slots_a_request_for_one_names_the_setting(harness: DaemonHarness) -> None:
    """-g 1 on a machine without managed GPUs is refused, and the error names `[gpus] static`."""
    with pytest.raises(CapacityImpossible, match=r"\[gpus\] static"):
        harness.submit("true", gpus=1)


def test_with_gpu_slots_the_exported_gpus_do_not_count(build: Build) -> None:
    """Where GPUs are managed, a run without a slot sees no GPU, whatever its caller exports."""
    harness = build(gpus={"static": 1})
    caller = {"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0", "ROCR_VISIBLE_DEVICES": "0"}
    found = environment_of_run(harness, harness.python(_PRINT, caller_environment=caller))
    assert {name: found.get(name) for name in caller} == {
        "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": None, "ROCR_VISIBLE_DEVICES": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "MOSAIC_CPUS", "RUN_ID"])
def test_an_explicit_variable_that_the_daemon_decides_is_refused(build: Build, name: str) -> None:
    """-e of a name that the daemon decides is refused with the name, never dropped, and nothing is kept."""
    harness = build(gpus={"static": 1})
    with pytest.raises(InvalidParams) as refused:
        harness.submit("true", environment={name: "1"})
    assert [error["path"] for error in refused.value.data["errors"]] == [f"environment.{name}"]
    with pytest.raises(InvalidParams):
        harness.submit_config(config(), environment={name: "1"})
    ended = harness.ended(harness.submit("true"))["run_id"]
    with pytest.raises(InvalidParams) as refused:
        harness.call("run.retry", run_id=ended, environment={name: "1"})
    assert [error["path"] for error in refused.value.data["errors"]] == [f"environment.{name}"]
    assert [run["run_id"] for run in harness.call("run.list")["runs"]] == [ended]


def test_an_explicit_variable_that_the_daemon_decides_ends_mosaicctl_with_2(harness: DaemonHarness) -> None:
    """`submit -e` and `submit -f -e` of such a name exit with 2."""
    path = harness.home / "c.json"
    path.write_text(json.dumps(config()))
    for program in (("--", "true"), ("-f", str(path))):
        done = harness.ctl("submit", "-e", "MOSAIC_RUN_ID=x", *program)
        assert done.returncode == 2 and "environment.MOSAIC_RUN_ID" in done.stderr, done.stderr


def test_run_ids_in_a_config_are_rewritten_with_a_warning(harness: DaemonHarness) -> None:
    """CLEANRL_RUN_ID of a config has the id of the run; the reply has the name, and mosaicctl warns."""
    path = harness.home / "c.json"
    own = {"CLEANRL_RUN_ID": "ppo-1", "RUN_ID": "ppo-1", "SEED": "1"}
    path.write_text(json.dumps(config(arguments=["-c", _PRINT], environment=own)))
    done = harness.ctl("-o", "json", "submit", "-f", str(path))
    run = json.loads(done.stdout)
    harness.run_ids.add(run["run_id"])
    assert run["overwritten_variables"] == ["CLEANRL_RUN_ID", "RUN_ID"]
    assert "CLEANRL_RUN_ID, RUN_ID" in done.stderr
    found = environment_of_run(harness, run["run_id"])
    assert (found["CLEANRL_RUN_ID"], found["RUN_ID"], found["SEED"]) == (run["run_id"], run["run_id"], "1")
    plain = harness.ctl("-o", "json", "submit", "--dry-run", "--", "true")
    assert "overwritten_variables" not in json.loads(plain.stdout) and "warning" not in plain.stderr


def test_pwd_keeps_symbolic_links(harness: DaemonHarness) -> None:
    """PWD is the directory as submitted: a program in a linked directory sees the path of its user."""
    link = harness.home / "link"
    link.symlink_to("/usr")
    run_id = harness.submit("sh", "-c", "echo $PWD; pwd -P", cwd=str(link))
    harness.ended(run_id)
    assert harness.stdout(run_id).decode().splitlines() == [str(link), "/usr"]


def test_the_output_of_a_killed_python_is_kept(harness: DaemonHarness) -> None:
    """A command has PYTHONUNBUFFERED=1: what it printed is in the log at once, and stays after kill -9."""
    run_id = harness.python("import time; print('epoch 1'); time.sleep(60)")
    wait_until(lambda: harness.attempt(run_id) / "stdout.log", lambda path: path.exists(), "there is a log")
    wait_until(lambda: harness.stdout(run_id), lambda text: text == b"epoch 1\n", "the line is in the log")
    pid = harness.get(run_id)["pid"]
    os.kill(pid, signal.SIGKILL)
    assert harness.ended(run_id)["signal"] == signal.SIGKILL
    assert harness.stdout(run_id) == b"epoch 1\n"


def test_an_empty_pythonunbuffered_of_the_submitter_stays(harness: DaemonHarness) -> None:
    """PYTHONUNBUFFERED set to nothing by the submitter is no mistake: the run buffers."""
    script = (
        "import json, os, sys; print(json.dumps([os.environ['PYTHONUNBUFFERED'], sys.stdout.write_through]))"
    )
    run_id = harness.python(script, environment={"PYTHONUNBUFFERED": ""})
    harness.ended(run_id)
    assert json.loads(harness.stdout(run_id)) == ["", False]


def test_a_worker_has_no_pythonunbuffered(build: Build) -> None:
    """A worker is not unbuffered by a variable: the library buffers lines."""
    harness = workshop(build)
    done = harness.ctl("-o", "name", "submit", "--worker", "idler", "--set", "wait=true")
    run_id = done.stdout.strip()
    harness.run_ids.add(run_id)
    pid = harness.until(run_id, "EXEC")["pid"]
    with open(f"/proc/{pid}/environ", "rb") as file:
        names = {item.partition(b"=")[0] for item in file.read().split(b"\0")}
    assert b"MOSAIC_CPUS" in names and b"PYTHONUNBUFFERED" not in names
    harness.call("run.stop", run_id=run_id, grace_s=0)
    harness.ended(run_id)


def test_a_tmpdir_of_the_caller_that_is_too_long_for_sockets_is_replaced(harness: DaemonHarness) -> None:
    """Ray needs 68 of the 107 bytes of a socket's path below TMPDIR; a short or explicit TMPDIR stays."""
    chosen = harness.home / ("x" * 60)
    chosen.mkdir()
    fitting = "/" + "t" * (LONGEST_TMPDIR_BYTES - 1)

    def tmpdir(**params: Any) -> str:
        return environment_of_run(harness, harness.python(_PRINT, **params))["TMPDIR"]

    assert tmpdir(caller_environment={"TMPDIR": fitting}) == fitting
    replaced = tmpdir(caller_environment={"TMPDIR": fitting + "t"})
    assert parse_temporary_name(replaced.rpartition("/")[2]) and len(replaced) <= LONGEST_TMPDIR_BYTES
    assert tmpdir(environment={"TMPDIR": str(chosen)}) == str(chosen)
