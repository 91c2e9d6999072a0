"""The shared environments: one file for each content, whatever happens to it."""

import json
import os
import threading
from pathlib import Path
from unittest import mock

import pytest

from mosaicd.core.environment_parts import parts_of
from mosaicd.protocol.secrets import SECRET_WORDS
from mosaicd.rundirs.environments import SharedEnvironments

VALUES = {"B": "2", "A": "ä"}


@pytest.fixture
def shared(tmp_path: Path) -> SharedEnvironments:
    return SharedEnvironments(tmp_path / "environments", 1 << 20)


def files(shared: SharedEnvironments) -> list[Path]:
    return list(shared.directory.iterdir()) if shared.directory.exists() else []


def test_equal_contents_are_one_file(shared: SharedEnvironments, tmp_path: Path) -> None:
    """The order of variables does not matter; other values are another file."""
    shared.create(tmp_path / "1", VALUES)
    shared.create(tmp_path / "2", dict(reversed(VALUES.items())))
    shared.create(tmp_path / "3", {**VALUES, "A": "a"})
    assert (tmp_path / "1").samefile(tmp_path / "2") and not (tmp_path / "1").samefile(tmp_path / "3")
    assert len(files(shared)) == 2
    assert json.loads((tmp_path / "2").read_text()) == VALUES
    with pytest.raises(FileExistsError):
        shared.create(tmp_path / "1", {})


def test_a_damaged_file_is_not_given_to_another_run(shared: SharedEnvironments, tmp_path: Path) -> None:
    """If a program has written to the file of its run, the next run has the right content, shared again."""
    shared.create(tmp_path / "1", VALUES)
    (tmp_path / "1").write_text("{}")
    for name in "23":
        shared.create(tmp_path / name, VALUES)
    assert json.loads((tmp_path / "2").read_text()) == VALUES
    assert (tmp_path / "2").samefile(tmp_path / "3") and len(files(shared)) == 1


@pytest.mark.parametrize("failing", ["link", "mkdir"])
def test_without_links_each_run_has_a_copy(shared: SharedEnvironments, tmp_path: Path, failing: str) -> None:
    """If a file system has no links, or no directory can be made, each run has a file of its own."""
    with mock.patch(f"os.{failing}", side_effect=PermissionError(1, "Operation not permitted")):
        shared.create(tmp_path / "1", VALUES)
        shared.create(tmp_path / "2", VALUES)
    assert json.loads((tmp_path / "2").read_text()) == VALUES and not files(shared)
    assert not (tmp_path / "1").samefile(tmp_path / "2")


def test_a_file_with_all_the_links_that_it_can_have_is_replaced(
    shared: SharedEnvironments, tmp_path: Path
) -> None:
    """If the shared file can have no further link (EMLINK), the next run begins another shared file."""
    shared.create(tmp_path / "1", VALUES)
    link, answers = os.link, [OSError(31, "Too many links")]

    def full_once(*arguments: object, **options: object) -> None:
        if answers:
            raise answers.pop()
        link(*arguments, **options)  # type: ignore[arg-type]

    with mock.patch("os.link", full_once):
        shared.create(tmp_path / "2", VALUES)
    shared.create(tmp_path / "3", VALUES)
    assert (tmp_path / "2").samefile(tmp_path / "3") and not (tmp_path / "1").samefile(tmp_path / "3")


def test_only_a_file_that_no_run_has_is_removed(shared: SharedEnvironments, tmp_path: Path) -> None:
    """`drop` removes the file after the last run, `sweep` every file without a run."""
    for name in "12":
        shared.create(tmp_path / name, VALUES)
    assert shared.shared_file(tmp_path / "1") is None, "run 2 has it, too"
    (tmp_path / "1").unlink()
    last = shared.shared_file(tmp_path / "2")
    shared.drop(last)
    shared.sweep()
    assert files(shared) == [last], "run 2 has it"
    (tmp_path / "2").unlink()
    shared.drop(last)
    assert not files(shared)
    shared.create(tmp_path / "4", VALUES)
    (tmp_path / "4").unlink()
    shared.sweep()
    assert not files(shared) and shared.shared_file(tmp_path / "none") is None


def test_runs_that_come_and_go_at_once_have_their_variables(
    shared: SharedEnvironments, tmp_path: Path
) -> None:
    """While files are created, removed and swept in several threads, each run has its variables."""
    wrong: list[str] = []

    def come_and_go(thread: int) -> None:
        for number in range(150):
            path = tmp_path / f"{thread}-{number}"
            shared.create(path, VALUES)
            if json.loads(path.read_text()) != VALUES:
                wrong.append(path.name)
            last = shared.shared_file(path)
            path.unlink()
            shared.drop(last)
            shared.sweep()

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.sweep()
    assert not wrong and not files(shared)


def test_parts_of_an_environment() -> None:
    """Secrets are apart; the other variables are those of the submit, and those of the shell."""
    environment = {"LR": "1", "SEED": "2", "HF_TOKEN": "0123456789", "API_KEY": "0123456789", "KEY": "short"}
    parts = parts_of(environment, {"SEED", "API_KEY"}, SECRET_WORDS)
    assert parts.caller == {"LR": "1", "KEY": "short"} and parts.given == {"SEED": "2"}
    assert parts.secret == {"HF_TOKEN": "0123456789", "API_KEY": "0123456789"}
    assert parts.all == environment and parts.kept == parts.caller | parts.given
