"""A submit, made whole or refused with every fault."""

import copy
import json
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
    """A config as the forms of the original write them."""
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


def test_a_config_of_the_original_is_accepted_unchanged() -> None:
    """A config written for the original runs here as it is: module, arguments, --config, and never --grpc."""
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
def test_which_interpreter_runs_a_module(worker: Any, params: Any, interpreter: str) -> None:
    """The config's own word, the configured one, a Python as entry_point, ours; a bare one needs a PATH."""
    assert spec_of(config=config(worker, **params)).argv[0] == interpreter


def test_a_bare_python_is_the_one_on_the_submitters_path() -> None:
    """A submit from an activated environment uses that environment's python."""
    spec = spec_of(config=config({"module": "other"}), environment={"PATH": "/home/ada/v/bin:/usr/bin"})
    assert spec.argv == ("python", "-m", "other")


def test_a_script_is_executed_itself() -> None:
    """metadata.worker.script is exec'd as the program, followed by the worker's arguments."""
    spec = spec_of(config=config({"script": "/opt/run me.sh", "arguments": ["--fast"], "config": {}}))
    assert spec.argv == ("/opt/run me.sh", "--fast")
    assert (spec.kind, spec.worker_kind, spec.config_flag) == (RunKind.WORKER, "run me", True)


@pytest.mark.parametrize("worker", [None, "a note", [1], {}, {"module": None}, {"use_grpc": True}])
def test_without_module_or_script_it_is_a_plain_command(worker: Any) -> None:
    """Else entry_point and arguments run; metadata is free, so a worker that is no object is no fault."""
    spec = spec_of(config=config(worker))
    assert spec.kind is RunKind.COMMAND
    assert spec.argv == ("python", "-m", "learner.cli")
    assert (spec.config_flag, spec.worker_config, spec.cwd) == (False, None, "/home/ada")


def test_a_config_alone_is_still_handed_over() -> None:
    """--config is appended when there is a config, also to an entry_point."""
    spec = spec_of(config=config({"config": {"run_id": "placeholder"}}))
    assert (spec.kind, spec.config_flag) == (RunKind.COMMAND, True)
    assert spec.worker_config == {"run_id": "placeholder"}


@pytest.mark.parametrize("arguments", [["--config", "/my.json"], ["--config=/my.json"]])
def test_the_submitters_own_config_flag_stays_the_only_one(arguments: list[str]) -> None:
    """--config is appended only when the arguments have none."""
    assert spec_of(config=config(form_worker(arguments=arguments))).config_flag is False
    assert spec_of(config=config({"config": {}}, arguments=arguments)).config_flag is False


def test_worker_id_is_passed_only_where_the_worker_declares_it() -> None:
    """--worker-id goes to workers that take it, and not twice."""
    taken = spec_of(config=config({"module": "balrog_worker.cli", "worker_id": "b7"}))
    assert taken.argv[3:] == ("--worker-id", "b7")
    own = spec_of(config=config({"module": "balrog_worker.cli", "arguments": ["--worker-id=me"]}))
    assert own.argv[3:] == ("--worker-id=me",)
    assert "--worker-id" not in spec_of(config=config(form_worker())).argv


def test_an_installed_worker_is_found_by_its_kind_alone() -> None:
    """`--worker KIND` needs no module: the installed worker's is taken, with what it can do."""
    spec = spec_of(config=config({"kind": "tabular", "config": {"seed": 1}}))
    assert spec.argv[1:] == ("-m", "tabular_worker")
    assert (spec.worker_kind, spec.worker_id) == ("tabular", "tabular")
    assert spec.supports_pause and spec.supports_checkpoint
    assert spec_of(config=config({"module": "tabular_worker.cli"})).worker_kind == "tabular"


@pytest.mark.parametrize("kind", ["nosuch", "script"])
def test_a_worker_that_is_not_installed_is_refused_with_those_that_are(kind: str) -> None:
    """An unknown kind is a fault that names the known ones."""
    faults = faults_of(config=config({"kind": kind}))
    assert list(faults) == ["metadata.worker.kind"]
    assert (
        repr(kind) in faults["metadata.worker.kind"] and "balrog, tabular" in faults["metadata.worker.kind"]
    )


def test_a_ulid_in_the_workers_config_becomes_the_runs_id() -> None:
    """Case is folded; anything else that stands there is overwritten at launch and no fault."""
    assert spec_of(config=config(form_worker(config={"run_id": RUN_ID.lower()}))).run_id == RUN_ID
    for other in ("taxi-1", 5, None, "8" + RUN_ID[1:]):
        assert spec_of(config=config(form_worker(config={"run_id": other}))).run_id is None


def test_parameters_win_over_the_config() -> None:
    """The command line is the later word: name, cpus, gpus, limits, steps, and explicit variables."""
    spec = spec_of(
        config=config(form_worker(), schedule={"max_duration_seconds": 10, "max_steps": 5}),
        name="mine", cpus=2, gpus=1, time_limit_s=90.5, max_steps=7, cwd="/data",
        environment={"MOSAIC_FASTLANE_ENABLED": "1", "SEED": "2"},
    )  # fmt: skip
    assert (spec.name, spec.cwd) == ("mine", "/data")
    assert spec.resources == Resources(2, 4096, 1, False)
    assert (spec.limits.time_limit_s, spec.limits.max_steps) == (90.5, 7)
    assert spec.environment["MOSAIC_FASTLANE_ENABLED"] == "1" and spec.environment["SEED"] == "2"


def test_the_schedule_is_taken_where_nothing_is_said_beside_it() -> None:
    """schedule.max_duration_seconds and max_steps are enforced here."""
    spec = spec_of(config=config(schedule={"max_duration_seconds": 10.0, "max_steps": 5}))
    assert (spec.limits.time_limit_s, spec.limits.max_steps) == (10.0, 5)


def test_the_shells_own_variables_yield_to_the_configs() -> None:
    """Order: the submitter's allow-list, then the config's environment."""
    spec = spec_of(
        config=config(environment={"HOME": "/data"}), environment={"HOME": "/home/ada", "TZ": "UTC"}
    )
    assert spec.environment == {"HOME": "/data", "TZ": "UTC"}


def test_the_same_config_from_two_terminals_is_one_run() -> None:
    """The run's name for itself and the shell it came from do not count; what changes the work does."""
    first = spec_of(config=config(form_worker()), environment={"PATH": "/a", "TERM": "xterm"}, priority=5)
    other_id = form_worker(config=form_worker()["config"] | {"run_id": RUN_ID})
    second = spec_of(config=config(other_id), environment={"LANG": "C"}, retries=3, labels={"a": "b"})
    assert first.digest == second.digest
    for changed in ({"environment": {"SEED": "1"}}, {"cpus": 3}, {"time_limit_s": 5}, {"cwd": "/"}):
        assert spec_of(config=config(form_worker()), **changed).digest != first.digest
    half = config(form_worker())
    del half["resources"]["gpus"]["mandatory"], half["artifacts"]["persist_logs"]
    half["schedule"] = {}
    half["resources"]["cpus"] = 4.0
    assert spec_of(config=half).digest == first.digest


def test_a_limit_given_beside_the_config_is_the_same_as_in_it() -> None:
    """`-t 10` and max_duration_seconds: 10 ask for the same work."""
    inside = spec_of(config=config(schedule={"max_duration_seconds": 10}))
    assert spec_of(config=config(), time_limit_s=10.0).digest == inside.digest


def test_a_command_alone_suffices() -> None:
    """`command` alone: the owner's home, one CPU, no GPU, a new run each time."""
    spec = spec_of(command=["sh", "-c", "exit 7"])
    assert (spec.kind, spec.argv, spec.name) == (RunKind.COMMAND, ("sh", "-c", "exit 7"), "sh")
    assert (spec.cwd, spec.dedup, spec.config, spec.worker_config) == ("/home/ada", Dedup.NEW, None, None)
    assert spec.resources == Resources(1, None, 0, False)
    assert (spec.metadata, spec.artifacts, spec.worker_kind) == ({}, {}, None)


def test_gpus_of_a_command_are_mandatory() -> None:
    """`-g 2` says two, not up to two."""
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
def test_a_command_is_named_after_what_it_runs(argv: tuple[str, ...], name: str) -> None:
    """`python train.py` is train.py."""
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
        ({"cwd": "here"}, "cwd"), ({"cwd": "/a\0"}, "cwd"), ({"cwd": "/" * 4096}, "cwd"),
        ({"command": []}, "command"), ({"command": [""]}, "command[0]"),
        ({"command": ["a", "\0"]}, "command[1]"), ({"command": ["\udc80"]}, "command[0]"),
        ({"command": ["a", "b" * (MAX_WORD_BYTES + 1)]}, "command[1]"),
        ({"command": ["a", *["b" * 1000] * 270]}, "command"),
        ({"command": ["a", "\x01" * 60_000]}, "command"),
        ({"config": config()}, ""), ({"command": None}, ""),
    ],
)  # fmt: skip
def test_each_parameter_has_its_range(params: Any, path: str) -> None:
    """A value out of range is refused, with its name."""
    assert list(faults_of(**{"command": ["true"]} | params)) == [path]


@pytest.mark.parametrize(
    "params",
    [
        {"priority": -1000}, {"priority": 1000}, {"retries": 100}, {"grace_s": 0}, {"gpus": 9},
        {"environment": {"A.b-c": ""}}, {"labels": {"a.b/c": "d e"}}, {"command": ["x", "", "a\nb"]},
        {"retry_on": ["exit_code", "oom"]}, {"environment": {"CUDA_VISIBLE_DEVICES": "3"}},
    ],
)  # fmt: skip
def test_the_edges_are_allowed(params: Any) -> None:
    """Grace 0, an empty argument, an odd variable name: all legal."""
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
def test_a_worker_that_could_not_be_started_is_refused(worker: Any, path: str) -> None:
    """Where metadata names a program, what it says must be usable."""
    assert list(faults_of(config=config(worker))) == [path]


def test_all_faults_come_at_once() -> None:
    """Schema, worker and parameters are told together, each with its path."""
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
def test_a_config_that_nobody_could_run_is_refused(changes: Any, path: str) -> None:
    """Beyond the schema only what no kernel or database takes is refused."""
    assert list(faults_of(config=config(**changes))) == [path]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SUBMITS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT.filter(bool), "cpus": st.integers(1, 64), "gpus": st.integers(0, 8),
        "time_limit_s": st.floats(0.001, 1e6), "max_steps": st.integers(1, 10**9),
        "priority": st.integers(-1000, 1000), "retries": st.integers(0, 100), "grace_s": st.floats(0, 100),
        "retry_on": st.lists(st.sampled_from(["oom", "exit_code"])), "dedup": st.sampled_from([*Dedup]),
        "key": TEXT.filter(bool), "hold": st.booleans(),
        "labels": st.dictionaries(st.just("team"), st.just("a b")),
        "environment": st.dictionaries(st.sampled_from(["A", "PATH", "RUN_ID"]), TEXT),
    },
)  # fmt: skip
PROGRAMS = st.sampled_from(
    [{"command": ["python", "x.py", "ü"]}, {"config": config()}, {"config": config(form_worker())}]
)


@given(PROGRAMS, SUBMITS)
def test_spec_json_round_trips_and_holds_no_value_of_a_variable(program: Any, params: Any) -> None:
    """The daemon reads spec.json again after a restart; variables are there by name only."""
    spec = spec_of(**program, **params)
    written = json.dumps(spec.to_dict(), allow_nan=False)
    assert Spec.from_dict(json.loads(written), spec.environment) == spec
    assert json.loads(written)["env_names"] == sorted(spec.environment)
    bare = Spec.from_dict(json.loads(written))
    assert bare.environment == {} and bare.digest == spec.digest


def test_spec_json_keeps_no_secret() -> None:
    """Environment by name only: a token is nowhere in spec.json."""
    spec = spec_of(config=config(environment={"TOKEN": "s3cret-1"}), environment={"OTHER": "s3cret-2"})
    assert "s3cret" not in json.dumps(spec.to_dict())


@pytest.mark.parametrize("change", [{"version": 2}, {"kind": "daemon"}, {"surprise": 1}, {"limits": {}}])
def test_a_foreign_spec_json_is_refused(change: Any) -> None:
    """Unknown words and fields are refused, never mapped to a default."""
    written = spec_of(command=["true"]).to_dict() | change
    with pytest.raises((ValueError, TypeError, KeyError)):
        Spec.from_dict(written)
