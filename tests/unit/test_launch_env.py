"""The launch order and the teardown order: environment, config and limits of a worker."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.digest import GPU_NAMES, SET_BY_LAUNCH
from mosaicd.core.launch import (
    Budget,
    LaunchSettings,
    Placement,
    base_environment,
    grace_s,
    launch_order,
    teardown_order,
    worker_config,
    worker_environment,
)
from mosaicd.core.program import Defaults, WorkerProgram
from mosaicd.core.run_environment import THREAD_COUNTS
from mosaicd.core.spec import Spec
from mosaicd.core.submit import make_spec
from mosaicd.protocol.errors import InvalidParams
from mosaicd.protocol.messages import Submit
from mosaicd.protocol.records.orders import Limits

RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
AT = Placement(RUN_ID, 2, f"/state/runs/{RUN_ID}", (1, 3), 2)
BASE = base_environment("ada", "/home/ada", "/bin/bash", "C.UTF-8")
WORKERS = {
    "able": WorkerProgram("able", supports_pause=True, supports_checkpoint=True),
    "plain": WorkerProgram("plain"),
}


def spec_of(**params: Any) -> Spec:
    return make_spec(Submit(**params), Defaults("/opt/python", "/home/ada", WORKERS))


def command(**environment: str) -> Spec:
    return spec_of(command=["true"], caller_environment=environment)


def worker(module: str = "able", environment: dict[str, str] | None = None, **params: Any) -> Spec:
    config = {
        "run_name": "taxi",
        "entry_point": "python",
        "arguments": [],
        "environment": environment or {},
        "resources": {"cpus": 2, "memory_mb": 512, "gpus": {"requested": 0}},
        "artifacts": {},
        "metadata": {"worker": {"module": module, "config": {"run_id": "placeholder", "seed": 7}}},
    }
    return spec_of(config=config, **params)


def environment_of(base: dict[str, str], spec: Spec, at: Placement, **settings: Any) -> dict[str, str]:
    return worker_environment(base, spec, at, LaunchSettings(**settings))


def test_the_complete_environment_of_a_worker() -> None:
    """A worker has the base environment, the submitted variables and those of the launch, and no others."""
    files = f"/state/runs/{RUN_ID}/files"
    assert environment_of(BASE, worker(environment={"SEED": "1"}), AT) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/home/ada",
        "USER": "ada",
        "LOGNAME": "ada",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "SEED": "1",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "NUMEXPR_NUM_THREADS": "2",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "MOSAIC_ATTEMPT": "2",
        "MOSAIC_CPUS": "2",
        "MOSAIC_MEMORY_MB": "512",
        "MOSAIC_RUN_ID": RUN_ID,
        "MOSAIC_RUN_DIR": files,
        "MOSAIC_STACKS_FILE": f"/state/runs/{RUN_ID}/attempt-2/python-stacks.txt",
        "MOSAIC_CHECKPOINT_DIR": f"{files}/checkpoints",
        "MOSAIC_CONFIG_FILE": f"/state/runs/{RUN_ID}/attempt-2/worker-config.json",
        "PWD": files,
        "RUN_ID": RUN_ID,
        "WORKER_ID": "able",
    }


@given(
    st.dictionaries(
        st.sampled_from(sorted(SET_BY_LAUNCH | GPU_NAMES)),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_submitted_variables_never_override_those_of_the_launch(environment: dict[str, str]) -> None:
    """Submitted variables with names of the launch have no effect."""
    assert environment_of(BASE, command(**environment), AT) == environment_of(BASE, command(), AT)


def test_a_run_without_gpus_sees_none() -> None:
    """Without a granted slot, an empty CUDA_VISIBLE_DEVICES hides every GPU."""
    at = Placement(RUN_ID, 1, "/r")
    assert environment_of(BASE, command(CUDA_VISIBLE_DEVICES="0"), at)["CUDA_VISIBLE_DEVICES"] == ""


def test_where_no_gpus_are_managed_the_submitters_choice_of_gpus_passes() -> None:
    """Without GPU slots, CUDA_VISIBLE_DEVICES, its kin and their absence reach the run unchanged."""
    given = dict.fromkeys(GPU_NAMES, "1")
    at = Placement(RUN_ID, 1, "/r")
    found = environment_of(BASE, command(**given), at, manages_gpus=False)
    assert {name: found.get(name) for name in GPU_NAMES} == given
    assert not GPU_NAMES & environment_of(BASE, command(), at, manages_gpus=False).keys()


def test_slots_of_a_run_count_when_the_setting_is_gone() -> None:
    """A run that holds slots sees them, and only them, after `[gpus] static` was set to 0."""
    found = environment_of(BASE, command(HIP_VISIBLE_DEVICES="0"), AT, manages_gpus=False)
    assert found["CUDA_VISIBLE_DEVICES"] == "1,3" and "HIP_VISIBLE_DEVICES" not in found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["2", "2", "2", "2"]),
        ({"OMP_NUM_THREADS": "4"}, ["4", "4", "4", "4"]),
        ({"MKL_NUM_THREADS": "8"}, ["8", "8", "8", "8"]),
        ({"NUMEXPR_NUM_THREADS": "3", "OMP_NUM_THREADS": "1"}, ["1", "1", "1", "3"]),
        ({"OMP_NUM_THREADS": "4,2"}, ["4,2", "4", "4", "4"]),
        ({"OMP_NUM_THREADS": ""}, ["", None, None, None]),
    ],
)
def test_thread_counts_go_together(given: dict[str, str], expected: list[str | None]) -> None:
    """Where the submitter gives one thread count, the others follow; without any, the granted CPUs decide."""
    environment = environment_of(BASE, command(**given), AT)
    assert [environment.get(name) for name in THREAD_COUNTS] == expected


def test_a_chosen_thread_count_replaces_those_of_the_shell() -> None:
    """-e OMP_NUM_THREADS=1 counts for every library, also if the shell exports MKL_NUM_THREADS."""
    shell = {"MKL_NUM_THREADS": "8", "OMP_NUM_THREADS": "8"}
    spec = spec_of(command=["true"], caller_environment=shell, environment={"OMP_NUM_THREADS": "1"})
    environment = environment_of(BASE, spec, AT)
    assert [environment[name] for name in THREAD_COUNTS] == ["1"] * 4


def test_a_run_is_told_its_grant() -> None:
    """MOSAIC_CPUS has the granted CPUs; MOSAIC_MEMORY_MB the memory limit, absent without an enforced one."""
    limited = spec_of(command=["true"], memory_mb=100)
    assert environment_of(BASE, limited, AT)["MOSAIC_CPUS"] == "2"
    assert environment_of(BASE, limited, AT)["MOSAIC_MEMORY_MB"] == "100"
    assert "MOSAIC_MEMORY_MB" not in environment_of(BASE, command(), AT)
    assert "MOSAIC_MEMORY_MB" not in environment_of(BASE, limited, AT, memory="off")


def test_commands_are_unbuffered_unless_the_submitter_decides() -> None:
    """A command has PYTHONUNBUFFERED=1, a submitted value (also an empty one) wins; a worker has none."""
    assert environment_of(BASE, command(), AT)["PYTHONUNBUFFERED"] == "1"
    assert environment_of(BASE, command(PYTHONUNBUFFERED=""), AT)["PYTHONUNBUFFERED"] == ""
    assert "PYTHONUNBUFFERED" not in environment_of(BASE, worker(), AT)


@pytest.mark.parametrize(
    "name", ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"]
)
def test_systemds_variables_never_reach_a_worker(name: str) -> None:
    """A worker must not send notifications to systemd, so neither daemon nor submitter can pass these."""
    assert name not in environment_of(BASE | {name: "x"}, command(**{name: "x"}), AT)


def test_only_known_variables_of_the_base_are_passed() -> None:
    """Other variables of the daemon's environment do not reach a worker."""
    assert "SECRET" not in environment_of(BASE | {"SECRET": "x"}, command(), AT)


def test_mosaic_variables_of_existing_workers_are_passed() -> None:
    """Variables such as MOSAIC_ROOT belong to existing workers and are passed unchanged."""
    given = {"MOSAIC_ROOT": "/m", "MOSAIC_FASTLANE_ENABLED": "0", "MOSAICD_SOCKET": "/s"}
    environment = environment_of(BASE, command(**given), AT)
    assert {name: environment[name] for name in given} == given


def test_submitted_path_and_lang_win_over_the_base() -> None:
    """If PATH is submitted, the worker gets it instead of the base value."""
    assert environment_of(BASE, command(PATH="/v/bin", LANG="C"), AT)["PATH"] == "/v/bin"


@pytest.mark.parametrize("name", ["CLEANRL_RUN_ID", "XUANCE_RUN_ID"])
def test_older_run_id_variables_are_rewritten_if_submitted(name: str) -> None:
    """If submitted, the variable gets the run id; otherwise it is absent."""
    assert environment_of(BASE, worker(environment={name: "old"}), AT)[name] == RUN_ID
    assert name not in environment_of(BASE, worker(), AT)


def test_a_command_without_a_config_has_no_config_file_variable() -> None:
    """MOSAIC_CONFIG_FILE of an outer run is removed, because it names another config."""
    assert "MOSAIC_CONFIG_FILE" not in environment_of(BASE, command(MOSAIC_CONFIG_FILE="/old"), AT)


@pytest.mark.parametrize("name", [*sorted(SET_BY_LAUNCH), "NOTIFY_SOCKET", "LISTEN_FDS"])
def test_a_chosen_variable_that_the_launch_decides_is_refused(name: str) -> None:
    """`environment` must not have a name that would be overwritten or dropped."""
    with pytest.raises(InvalidParams) as refused:
        spec_of(command=["true"], environment={name: "1"})
    assert [error["path"] for error in refused.value.data["errors"]] == [f"environment.{name}"]


def test_pwd_is_the_directory_as_submitted() -> None:
    """PWD is the submitted directory, so that symbolic links in its path are kept."""
    spec = spec_of(command=["true"], cwd="/data/link", caller_environment={"PWD": "/elsewhere"})
    assert environment_of(BASE, spec, AT)["PWD"] == "/data/link"


def test_the_workers_config_has_the_id_of_the_run() -> None:
    """run_id is overwritten, worker_id gets a default, the other keys and the spec stay unchanged."""
    spec = worker()
    assert worker_config(spec, RUN_ID) == {"run_id": RUN_ID, "seed": 7, "worker_id": "able"}
    assert spec.worker_config == {"run_id": "placeholder", "seed": 7}
    assert worker_config(command(), RUN_ID) is None


def order_of(spec: Spec, **changes: Any) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "base": BASE, "nonce": "n", "secret": "s", "socket": "/s.sock", "uid": 1000,
        "settings": LaunchSettings(),
    }  # fmt: skip
    return launch_order(spec, AT, **fixed | changes).to_json()


def test_the_order_is_complete_and_json_safe() -> None:
    """The order has everything that the shim needs."""
    order = order_of(worker())
    assert json.loads(json.dumps(order, allow_nan=False)) == order
    run_dir = f"/state/runs/{RUN_ID}"
    environment, limits = order.pop("environment"), order.pop("limits")
    assert environment == environment_of(BASE, worker(), AT)
    assert order == {
        "stdin": None,
        "order": "launch", "run_id": RUN_ID, "attempt": 2, "nonce": "n", "secret": "s", "socket": "/s.sock",
        "run_dir": run_dir, "attempt_dir": f"{run_dir}/attempt-2", "files_dir": f"{run_dir}/files",
        "kind": "worker", "argv": ["/opt/python", "-m", "able"], "cwd": f"{run_dir}/files",
        "worker_id": "able", "worker_kind": "able", "supports_checkpoint": True,
        "worker_config": {"run_id": RUN_ID, "seed": 7, "worker_id": "able"}, "config_flag": True,
        "cooperative": True, "slots": [1, 3], "cpus": 2, "uid": 1000, "signal_to": None, "signal": None,
        "containment": {"memory_bytes": 512 << 20, "required": False, "tasks": None},
        "process": {"umask": None, "nice": None, "limits": None, "affinity": None},
    }  # fmt: skip
    assert limits == {
        "time_limit_s": None, "max_steps": None, "grace_s": 30.0, "handshake_timeout_s": 30.0,
        "pause_ack_timeout_s": 10.0, "stdout_limit_bytes": 1 << 30, "stderr_limit_bytes": 1 << 30,
        "telemetry_limit_bytes": 1 << 32, "post_mortem_s": 2.0, "steps_before": 0,
    }  # fmt: skip


def test_the_order_has_the_attributes_of_the_submitters_process() -> None:
    """umask, nice, limits (-1 for unlimited) and affinity are in the order as they were submitted."""
    process = {"umask": 63, "nice": 2, "limits": {"core": "unlimited", "nofile": 9}, "affinity": [1]}
    assert order_of(spec_of(command=["true"], process=process))["process"] == {
        "umask": 63, "nice": 2, "limits": {"core": -1, "nofile": 9}, "affinity": [1],
    }  # fmt: skip


def test_the_order_of_a_plain_command() -> None:
    """A plain command runs in the directory of its submit and is not cooperative."""
    order = order_of(spec_of(command=["true"], cwd="/data", grace_s=0, handshake_timeout_s=1.5))
    assert (order["kind"], order["cwd"], order["cooperative"]) == ("command", "/data", False)
    assert (order["worker_id"], order["worker_kind"], order["worker_config"]) == ("command", "command", None)
    assert (order["limits"]["grace_s"], order["limits"]["handshake_timeout_s"]) == (0, 1.5)


def test_the_grace_period_of_a_run_wins_over_the_setting() -> None:
    """Commands and workers, with or without checkpoints, have one default grace period."""
    settings = LaunchSettings(Limits(grace_s=1))
    assert grace_s(spec_of(command=["true"]), settings) == 1
    assert grace_s(worker("plain"), settings) == 1
    assert grace_s(worker("able"), settings) == 1
    assert grace_s(worker("able", grace_s=0), settings) == 0


def test_the_order_has_the_receivers_of_signals() -> None:
    """`signal_to` and `signal` of the spec are in the launch order and change no digest."""
    spec = spec_of(command=["true"], signal_to="tree", signal="USR1")
    assert (order_of(spec)["signal_to"], order_of(spec)["signal"]) == ("tree", "USR1")
    assert spec.digest == spec_of(command=["true"]).digest


def test_the_signal_kill_means_no_grace_period() -> None:
    """A submit with the signal KILL has a grace period of 0."""
    order = order_of(spec_of(command=["true"], signal="KILL"))
    assert (order["limits"]["grace_s"], order["signal"]) == (0, None)


def test_the_order_has_the_remaining_limits() -> None:
    """Used time is subtracted from the time limit; used steps are sent as steps_before."""
    spec = spec_of(command=["true"], time_limit_s=10, max_steps=100)
    limits = order_of(spec, used=Budget(4.5, 30))["limits"]
    assert (limits["time_limit_s"], limits["max_steps"], limits["steps_before"]) == (5.5, 100, 30)
    assert order_of(spec, used=Budget(11, 101))["limits"]["time_limit_s"] == 0


def test_the_teardown_order() -> None:
    """A teardown order has the attempt, the identity of its leader and the grace period."""
    order = teardown_order(
        AT, nonce="n", grace_s=5, signal_to="tree", signal="INT", pid=9, start_ticks=77
    )  # fmt: skip
    assert order.to_json() == {
        "order": "teardown", "run_id": RUN_ID, "attempt": 2, "nonce": "n",
        "attempt_dir": f"/state/runs/{RUN_ID}/attempt-2", "given_up_shim": None, "limits": {"grace_s": 5},
        "signal_to": "tree", "signal": "INT", "pid": 9, "start_ticks": 77,
    }  # fmt: skip
