"""The spec of a submit: program, defaults, digest, and the refusal of a bad submit with all faults."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.params import MAX_WORD_BYTES
from mosaicd.core.program import Defaults, WorkerProgram, command_name
from mosaicd.core.spec import Limits, Resources, Spec
from mosaicd.core.submit import make_spec
from mosaicd.protocol.errors import InvalidParams
from mosaicd.protocol.messages import Submit
from mosaicd.protocol.states import Dedup, RunKind

DEFAULTS = Defaults(
    python="/opt/mosaicd/bin/python",
    home="/home/ada",
    workers={
        "tabular": WorkerProgram("tabular_worker", supports_pause=True, supports_checkpoint=True),
        "balrog": WorkerProgram("balrog_worker.cli", "/envs/balrog/bin/python", takes_worker_id=True),
        "script": WorkerProgram(),
    },
)
RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def config(worker: Any = None, **changes: Any) -> dict[str, Any]:
    """Return a config in the format of the existing submit form."""
    base: dict[str, Any] = {
        "run_name": "ppo-cartpole-20260310",
        "entry_point": "python",
        "arguments": ["-m", "learner.cli"],
        "environment": {"CLEANRL_RUN_ID": "ppo-cartpole-20260310", "MOSAIC_FASTLANE_ENABLED": "0"},
        "resources": {"cpus": 4, "memory_mb": 4096, "gpus": {"requested": 0, "mandatory": False}},
        "artifacts": {"output_prefix": "runs/ppo-cartpole", "persist_logs": True, "keep_checkpoints": False},
        "metadata": {
            "ui": {"worker_id": "learner", "fastlane_slot": 0},
            "artifacts": {"wandb": {"enabled": False, "run_path": None}, "notes": None},
        },
    }
    if worker is not None:
        base["metadata"]["worker"] = worker
    return base | changes


def form_worker(**changes: Any) -> dict[str, Any]:
    return {
        "worker_id": "learner_1",
        "module": "learner.cli",
        "use_grpc": True,
        "grpc_target": "127.0.0.1:50055",
        "arguments": ["--dry-run"],
        "config": {"run_id": "ppo-cartpole-20260310", "algo": "ppo", "extras": {"cuda": True}},
    } | changes


def spec_of(**params: Any) -> Spec:
    return make_spec(Submit(**params), DEFAULTS)


def faults_of(**params: Any) -> dict[str, str]:
    with pytest.raises(InvalidParams) as caught:
        spec_of(**params)
    return {fault["path"]: fault["rule"] for fault in caught.value.data["errors"]}


def test_an_existing_config_is_accepted_unchanged() -> None:
    """A config of the existing submit form runs as it is, without its --grpc options."""
    given = config(form_worker())
    before = copy.deepcopy(given)
    spec = spec_of(config=given)
    assert given == before
    assert spec.kind is RunKind.WORKER
    assert spec.argv == ("/opt/mosaicd/bin/python", "-m", "learner.cli", "--dry-run")
    assert (spec.worker_kind, spec.worker_id, spec.config_flag) == ("learner", "learner_1", True)
    assert spec.worker_config == given["metadata"]["worker"]["config"]
    assert spec.resources == Resources(4, 4096, 0, False)
    assert spec.limits == Limits()
    assert (spec.name, spec.dedup, spec.cwd, spec.run_id) == (
        "ppo-cartpole-20260310",
        Dedup.ATTACH,
        None,
        None,
    )
    assert spec.env_names == ["CLEANRL_RUN_ID", "MOSAIC_FASTLANE_ENABLED"]
    assert spec.metadata == given["metadata"] and spec.artifacts == given["artifacts"]


@pytest.mark.parametrize(
    ("worker", "params", "interpreter"),
    [
        ({"python": "/envs/mine/bin/python", "module": "balrog_worker.cli"}, {}, "/envs/mine/bin/python"),
        ({"module": "balrog_worker.cli"}, {}, "/envs/balrog/bin/python"),
        ({"module": "other"}, {"entry_point": "/usr/bin/python3.12"}, "/usr/bin/python3.12"),
        ({"module": "other"}, {"entry_point": "train.sh"}, "/opt/mosaicd/bin/python"),
        ({"module": "other"}, {"entry_point": "python3"}, "/opt/mosaicd/bin/python"),
        ({"module": "other"}, {"entry_point": "python3", "environment": {"PATH": "/v/bin"}}, "python3"),
    ],
)
def test_the_interpreter_of_a_module(worker: Any, params: Any, interpreter: str) -> None:
    """Order: the config's python, the configured worker's, a Python as entry_point, the daemon's."""
    assert spec_of(config=config(worker, **params)).argv[0] == interpreter


def test_a_bare_python_is_found_on_the_submitters_path() -> None:
    """A submit from an activated virtual environment uses the python of that environment."""
    spec = spec_of(config=config({"module": "other"}), environment={"PATH": "/home/ada/v/bin:/usr/bin"})
    assert spec.argv == ("python", "-m", "other")


def test_a_script_is_executed_directly() -> None:
    """metadata.worker.script is the program, followed by the worker's arguments."""
    spec = spec_of(config=config({"script": "/opt/run me.sh", "arguments": ["--fast"], "config": {}}))
    assert spec.argv == ("/opt/run me.sh", "--fast")
    assert (spec.kind, spec.worker_kind, spec.config_flag) == (RunKind.WORKER, "run me", True)


@pytest.mark.parametrize("worker", [None, "a note", [1], {}, {"module": None}, {"use_grpc": True}])
def test_a_config_without_module_or_script_is_a_plain_command(worker: Any) -> None:
    """entry_point and arguments run; a metadata.worker that is no object is no fault."""
    spec = spec_of(config=config(worker))
    assert spec.kind is RunKind.COMMAND
    assert spec.argv == ("python", "-m", "learner.cli")
    assert (spec.config_flag, spec.worker_config, spec.cwd) == (False, None, "/home/ada")


def test_a_worker_config_is_passed_to_an_entry_point() -> None:
    """If metadata.worker has a config, --config is appended, also to an entry_point."""
    spec = spec_of(config=config({"config": {"run_id": "placeholder"}}))
    assert (spec.kind, spec.config_flag) == (RunKind.COMMAND, True)
    assert spec.worker_config == {"run_id": "placeholder"}


@pytest.mark.parametrize("arguments", [["--config", "/my.json"], ["--config=/my.json"]])
def test_a_submitted_config_flag_is_not_repeated(arguments: list[str]) -> None:
    """--config is appended only if the arguments do not have it."""
    assert spec_of(config=config(form_worker(arguments=arguments))).config_flag is False
    assert spec_of(config=config({"config": {}}, arguments=arguments)).config_flag is False


def test_worker_id_is_passed_only_to_workers_that_declare_it() -> None:
    """--worker-id is passed once, and only to a worker that declares it."""
    declared = spec_of(config=config({"module": "balrog_worker.cli", "worker_id": "b7"}))
    assert declared.argv[3:] == ("--worker-id", "b7")
    own = spec_of(config=config({"module": "balrog_worker.cli", "arguments": ["--worker-id=me"]}))
    assert own.argv[3:] == ("--worker-id=me",)
    assert "--worker-id" not in spec_of(config=config(form_worker())).argv


def test_an_installed_worker_is_found_by_its_kind_alone() -> None:
    """`--worker KIND` takes module and capabilities of the installed worker."""
    spec = spec_of(config=config({"kind": "tabular", "config": {"seed": 1}}))
    assert spec.argv[1:] == ("-m", "tabular_worker")
    assert (spec.worker_kind, spec.worker_id) == ("tabular", "tabular")
    assert spec.supports_pause and spec.supports_checkpoint
    assert spec_of(config=config({"module": "tabular_worker.cli"})).worker_kind == "tabular"


@pytest.mark.parametrize("kind", ["nosuch", "script"])
def test_an_unknown_worker_kind_is_refused_with_the_known_kinds(kind: str) -> None:
    """The fault has the unknown kind and the installed kinds."""
    faults = faults_of(config=config({"kind": kind}))
    assert list(faults) == ["metadata.worker.kind"]
    assert (
        repr(kind) in faults["metadata.worker.kind"] and "balrog, tabular" in faults["metadata.worker.kind"]
    )


def test_a_ulid_in_the_workers_config_becomes_the_run_id() -> None:
    """The case of a ULID does not matter; another run_id is no fault and is overwritten at launch."""
    assert spec_of(config=config(form_worker(config={"run_id": RUN_ID.lower()}))).run_id == RUN_ID
    for other in ("taxi-1", 5, None, "8" + RUN_ID[1:]):
        assert spec_of(config=config(form_worker(config={"run_id": other}))).run_id is None


def test_parameters_win_over_the_config() -> None:
    """Name, directory, resources, limits and variables of the submit win over those of the config."""
    spec = spec_of(
        config=config(form_worker(), schedule={"max_duration_seconds": 10, "max_steps": 5}),
        name="mine", cpus=2, gpus=1, time_limit_s=90.5, max_steps=7, cwd="/data",
        environment={"MOSAIC_FASTLANE_ENABLED": "1", "SEED": "2"},
    )  # fmt: skip
    assert (spec.name, spec.cwd) == ("mine", "/data")
    assert spec.resources == Resources(2, 4096, 1, False)
    assert (spec.limits.time_limit_s, spec.limits.max_steps) == (90.5, 7)
    assert spec.environment["MOSAIC_FASTLANE_ENABLED"] == "1" and spec.environment["SEED"] == "2"


def test_the_schedule_sets_time_limit_and_max_steps() -> None:
    """Without parameters, schedule.max_duration_seconds and max_steps are the limits."""
    spec = spec_of(config=config(schedule={"max_duration_seconds": 10.0, "max_steps": 5}))
    assert (spec.limits.time_limit_s, spec.limits.max_steps) == (10.0, 5)


def test_the_configs_environment_wins_over_shell_variables() -> None:
    """Variables of the submitter's shell come first, then the config's environment, then -e."""
    spec = spec_of(
        config=config(environment={"HOME": "/data", "A": "2"}),
        caller_environment={"HOME": "/home/ada", "TZ": "UTC", "A": "1", "B": "1"},
        environment={"A": "3"},
    )
    assert spec.environment == {"HOME": "/data", "TZ": "UTC", "A": "3", "B": "1"}
    given = {"caller_environment": {"A": "1", "B": "1"}, "environment": {"A": "3"}}
    assert spec_of(command=["true"], **given).environment == {"A": "3", "B": "1"}


def test_the_callers_environment_is_outside_of_the_digest() -> None:
    """`environment` counts for the digest, whatever the names; `caller_environment` never does."""
    for program in ({"command": ["true"]}, {"config": config()}):
        bare = spec_of(**program)
        assert spec_of(**program, caller_environment={"A": "1", "PATH": "/a"}).digest == bare.digest
        for name in ("A", "PATH", "LANG"):
            assert spec_of(**program, environment={name: "1"}).digest != bare.digest


def test_the_same_config_from_two_terminals_has_one_digest() -> None:
    """Run id, shell and defaults do not change the digest; variables, resources and limits do."""
    first = spec_of(config=config(form_worker()), caller_environment={"PATH": "/a"}, priority=5)
    other_id = form_worker(config=form_worker()["config"] | {"run_id": RUN_ID})
    second = spec_of(config=config(other_id), caller_environment={"LANG": "C"}, retries=3, labels={"a": "b"})
    assert first.digest == second.digest
    for changed in ({"environment": {"SEED": "1"}}, {"cpus": 3}, {"time_limit_s": 5}, {"cwd": "/"}):
        assert spec_of(config=config(form_worker()), **changed).digest != first.digest
    config_without_defaults = config(form_worker())
    del (
        config_without_defaults["resources"]["gpus"]["mandatory"],
        config_without_defaults["artifacts"]["persist_logs"],
    )
    config_without_defaults["schedule"] = {}
    config_without_defaults["resources"]["cpus"] = 4.0
    assert spec_of(config=config_without_defaults).digest == first.digest


def test_a_limit_as_parameter_or_in_the_config_gives_the_same_digest() -> None:
    """`-t 10s` equals max_duration_seconds: 10."""
    in_config = spec_of(config=config(schedule={"max_duration_seconds": 10}))
    assert spec_of(config=config(), time_limit_s=10.0).digest == in_config.digest


def test_the_defaults_of_a_command() -> None:
    """A command runs in the owner's home with one CPU and no GPU, as a new run each time."""
    spec = spec_of(command=["sh", "-c", "exit 7"])
    assert (spec.kind, spec.argv, spec.name) == (RunKind.COMMAND, ("sh", "-c", "exit 7"), "sh")
    assert (spec.cwd, spec.dedup, spec.config, spec.worker_config) == ("/home/ada", Dedup.NEW, None, None)
    assert spec.resources == Resources(1, None, 0, False)
    assert (spec.metadata, spec.artifacts, spec.worker_kind) == ({}, {}, None)


def test_gpus_of_a_command_are_mandatory() -> None:
    """`-g 2` requests exactly two GPUs."""
    assert spec_of(command=["true"], gpus=2).resources == Resources(1, None, 2, True)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("/usr/bin/env",), "env"),
        (("python", "train.py", "--lr"), "train.py"),
        (("/v/bin/python3.11", "-u", "-X", "dev", "/src/train.py"), "train.py"),
        (("python", "-um", "x"), "x"),
        (("python3", "-m", "pkg.train"), "pkg.train"),
        (("python3", "-c", "print()"), "python3"),
        (("python",), "python"),
        (("/",), "command"),
        (("x" * 300,), "x" * 120),
    ],
)
def test_the_name_of_a_command(argv: tuple[str, ...], name: str) -> None:
    """A command has the name of its program, or of the script or module that python runs."""
    assert command_name(argv) == name


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"priority": 1001}, "priority"), ({"priority": -1001}, "priority"),
        ({"retries": -1}, "retries"), ({"retries": 101}, "retries"),
        ({"cpus": 0}, "cpus"), ({"gpus": -1}, "gpus"), ({"cpus": 2**60}, "cpus"),
        ({"time_limit_s": 0}, "time_limit_s"), ({"time_limit_s": float("nan")}, "time_limit_s"),
        ({"grace_s": -0.1}, "grace_s"), ({"grace_s": float("inf")}, "grace_s"),
        ({"max_steps": 0}, "max_steps"), ({"heartbeat_timeout_s": 0}, "heartbeat_timeout_s"),
        ({"name": ""}, "name"), ({"name": "n" * 121}, "name"), ({"name": "a\0"}, "name"),
        ({"key": ""}, "key"), ({"retry_on": ["oom", "by_user"]}, "retry_on[1]"),
        ({"labels": {"": "x"}}, 'labels[""]'), ({"labels": {"a": "b\n"}}, "labels.a"),
        ({"labels": {str(n): "" for n in range(65)}}, "labels"),
        ({"environment": {"": "x"}}, 'environment[""]'),
        ({"environment": {"A=B": "x"}}, 'environment["A=B"]'),
        ({"environment": {"A": "\0"}}, "environment.A"),
        ({"caller_environment": {"A=B": "x"}}, 'caller_environment["A=B"]'),
        ({"environment": {"PWD": "/"}}, "environment.PWD"),
        ({"cwd": "here"}, "cwd"), ({"cwd": "/a\0"}, "cwd"), ({"cwd": "/" * 4096}, "cwd"),
        ({"command": []}, "command"), ({"command": [""]}, "command[0]"),
        ({"command": ["a", "\0"]}, "command[1]"), ({"command": ["\udc80"]}, "command[0]"),
        ({"command": ["a", "b" * (MAX_WORD_BYTES + 1)]}, "command[1]"),
        ({"command": ["a", *["b" * 1000] * 270]}, "command"),
        ({"command": ["a", "\x01" * 60_000]}, "command"),
        ({"config": config()}, ""), ({"command": None}, ""),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused(params: Any, path: str) -> None:
    """The fault has the path of the parameter."""
    assert list(faults_of(**{"command": ["true"]} | params)) == [path]


@pytest.mark.parametrize(
    "params",
    [
        {"priority": -1000}, {"priority": 1000}, {"retries": 100}, {"grace_s": 0}, {"gpus": 9},
        {"environment": {"A.b-c": ""}}, {"labels": {"a.b/c": "d e"}}, {"command": ["x", "", "a\nb"]},
        {"retry_on": ["exit_code", "oom"]}, {"environment": {"CUDA_VISIBLE_DEVICES": "3"}},
    ],
)  # fmt: skip
def test_limit_values_are_allowed(params: Any) -> None:
    """The lowest and highest values, an empty argument and an unusual variable name are allowed."""
    spec_of(**{"command": ["true"]} | params)


@pytest.mark.parametrize(
    ("worker", "path"),
    [
        ({"module": 3}, "metadata.worker.module"),
        ({"script": ""}, "metadata.worker.script"),
        ({"module": "m", "arguments": "x"}, "metadata.worker.arguments"),
        ({"module": "m", "arguments": ["x", 1]}, "metadata.worker.arguments[1]"),
        ({"module": "m", "config": []}, "metadata.worker.config"),
        ({"module": "m", "python": False}, "metadata.worker.python"),
        ({"module": "m\0"}, "metadata.worker.module"),
        ({"module": "m", "config": {"lr": float("nan")}}, "metadata.worker.config.lr"),
    ],
)
def test_an_invalid_worker_is_refused(worker: Any, path: str) -> None:
    """If metadata.worker has a program, its values are checked."""
    assert list(faults_of(config=config(worker))) == [path]


def test_all_faults_of_a_submit_are_reported_together() -> None:
    """One error has the faults of schema, worker and parameters, each with its path."""
    bad = config(
        {"module": 1}, run_name="", resources={"cpus": 0, "memory_mb": 1, "gpus": {"requested": 9}}, x=1
    )
    assert faults_of(config=bad, priority=5000, cwd="here").keys() == {
        "priority", "cwd", "run_name", "resources.cpus", "resources.memory_mb", "resources.gpus.requested",
        "x", "metadata.worker.module",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"environment": {"A=B": ""}}, 'environment["A=B"]'),
        ({"arguments": ["\0"]}, "arguments[0]"),
        ({"entry_point": "a\0b"}, "entry_point"),
        ({"schedule": {"max_steps": 2**53}}, "schedule.max_steps"),
        ({"resources": {"cpus": 10**30, "memory_mb": 256, "gpus": {"requested": 0}}}, "resources.cpus"),
    ],
)
def test_config_values_that_cannot_be_executed_or_stored_are_refused(changes: Any, path: str) -> None:
    """Besides the schema, values are refused that the kernel or the database cannot represent."""
    assert list(faults_of(config=config(**changes))) == [path]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SUBMITS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT.filter(bool), "cpus": st.integers(1, 64), "gpus": st.integers(0, 8),
        "time_limit_s": st.floats(0.001, 1e6), "max_steps": st.integers(1, 10**9),
        "priority": st.integers(-1000, 1000), "retries": st.integers(0, 100), "grace_s": st.floats(0, 100),
        "retry_on": st.lists(st.sampled_from(["oom", "exit_code"])), "dedup": st.sampled_from([*Dedup]),
        "key": TEXT.filter(bool), "hold": st.booleans(), "signal_to": st.sampled_from(("leader", "tree")),
        "signal": st.sampled_from(("INT", "TERM", "USR1")),
        "labels": st.dictionaries(st.just("team"), st.just("a b")),
        "environment": st.dictionaries(st.sampled_from(["A", "PATH"]), TEXT),
        "caller_environment": st.dictionaries(st.sampled_from(["A", "PATH", "RUN_ID"]), TEXT),
    },
)  # fmt: skip
PROGRAMS = st.sampled_from(
    [{"command": ["python", "x.py", "ü"]}, {"config": config()}, {"config": config(form_worker())}]
)


@given(PROGRAMS, SUBMITS)
def test_spec_json_restores_the_spec_without_values_of_variables(program: Any, params: Any) -> None:
    """spec.json restores the spec after a restart; it has only the names of variables."""
    spec = spec_of(**program, **params)
    written = json.dumps(spec.to_dict(), allow_nan=False)
    restored = Spec.from_dict(json.loads(written))
    assert restored == replace(spec, environment={}, given_names=frozenset())
    assert json.loads(written)["env_names"] == sorted(spec.environment)


def test_spec_json_has_no_secret() -> None:
    """The value of a variable is nowhere in spec.json."""
    spec = spec_of(config=config(environment={"TOKEN": "s3cret-1"}), environment={"OTHER": "s3cret-2"})
    assert "s3cret" not in json.dumps(spec.to_dict())
