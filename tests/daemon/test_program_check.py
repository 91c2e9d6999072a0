"""submit refuses a program that cannot be executed, and makes no run; with --no-check the run fails."""

from tests.harness.building import Build


def test_program_that_does_not_exist(build: Build) -> None:
    """run exits with 127 for a program that does not exist, with and without --no-check."""
    harness = build()
    assert harness.ctl("run", "--", "no-such-program").returncode == 127
    assert harness.ctl("submit", "--", "no-such-program").returncode == 2
    assert harness.call("run.list")["runs"] == []
    assert harness.ctl("run", "--no-check", "--", "no-such-program").returncode == 127
    [run] = harness.call("run.list")["runs"]
    assert run["cause"]["kind"] == "spawn_failed"


def test_program_is_looked_for_as_the_launch_does(build: Build) -> None:
    """A program in the working directory, named with ./ or by an empty PATH entry, is found by both."""
    harness = build()
    program = harness.home / "job"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    assert harness.ctl("run", "-q", "--", "./job").returncode == 7
    assert harness.ctl("run", "-q", "-e", "PATH=/nowhere:", "--", "job").returncode == 7
    assert harness.ctl("run", "-q", "--env-drop", "PATH", "--", "sh", "-c", "exit 7").returncode == 7


def test_worker_values_that_the_schema_refuses(build: Build) -> None:
    """`--worker tabular --set episode=100` exits with 2 and names the value that is meant."""
    harness = build()
    done = harness.ctl("submit", "--worker", "tabular", "--set", "episode=100")
    assert done.returncode == 2
    assert "episode" in done.stderr and "episodes" in done.stderr
    assert harness.call("run.list")["runs"] == []
