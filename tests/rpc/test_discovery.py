"""Discovery: each interpreter runs in its own process, and a broken one does not affect the others."""

import asyncio
import sys
from pathlib import Path

import pytest

from mosaicd.config import Paths, Settings, Worker
from mosaicd.upkeep.discovery import Discovery

GOOD = '{"python": "p", "workers": [{"kind": "good", "module": "good_worker", "capabilities": {}}]}'


def interpreter(folder: Path, name: str, body: str) -> str:
    """A program that stands for an interpreter, and counts how often it was asked."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho asked >> {folder}/{name}.asked\n{body}\n")
    path.chmod(0o755)
    return str(path)


def discovery(tmp_path: Path, discovery_s: float = 30.0, **workers: Worker) -> Discovery:
    from dataclasses import replace

    settings = Settings(paths=Paths(tmp_path, tmp_path / "s"), workers=workers)
    return Discovery(replace(settings, timeouts=replace(settings.timeouts, discovery_s=discovery_s)))


def asked(folder: Path, name: str) -> int:
    path = folder / f"{name}.asked"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own environment has no workers here."""
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "own", 'echo "{\\"workers\\": []}"'))


async def test_one_broken_interpreter_hides_nobody(tmp_path: Path) -> None:
    """Missing, failing, silent and babbling ones are listed with their error; the good one too."""

    def make(name: str, body: str) -> Worker:
        return Worker(interpreter(tmp_path, name, body))

    found = discovery(
        tmp_path, good=make("py-good", f"echo '{GOOD}'"), missing=Worker(str(tmp_path / "missing")),
        failing=make("py-failing", "echo No module named x >&2; exit 1"), silent=make("py-silent", ""),
        babbling=make("py-babbling", "echo hello"), odd=make("py-odd", "echo '[1, {}, null]'"),
    )  # fmt: skip
    rows = {row["kind"]: row for row in await found.list()}
    assert rows.pop("good")["error" if "error" in rows else "module"] == "good_worker"
    assert sorted(rows) == ["babbling", "failing", "missing", "odd", "silent"]
    assert all(row["error"] and row["python"] for row in rows.values())
    assert "No module named x" in rows["failing"]["error"]
    assert (await found.lookup("good_worker") or {})["kind"] == "good"
    assert await found.lookup("nothing") is None


async def test_a_hanging_interpreter_hides_nobody(tmp_path: Path) -> None:
    """One that does not answer in its time is listed with that; who answered before is there."""
    good = interpreter(tmp_path, "py-good", f"echo '{GOOD}'")
    hanging = interpreter(tmp_path, "py-hanging", "exec sleep 60")
    found = discovery(tmp_path, 3.0, good=Worker(good), hanging=Worker(hanging))
    rows = {row["kind"]: row for row in await found.list()}
    assert rows["good"]["module"] == "good_worker"
    assert "within 3 s" in rows["hanging"]["error"]


async def test_answers_are_remembered_and_shared(tmp_path: Path) -> None:
    """Many who ask at once are one question; `refresh` asks again."""
    found = discovery(tmp_path, good=Worker(interpreter(tmp_path, "py", f"echo '{GOOD}'")))
    await asyncio.gather(*(found.list() for _ in range(10)))
    await found.list()
    assert (asked(tmp_path, "py"), asked(tmp_path, "own")) == (1, 1)
    await asyncio.gather(found.list(refresh=True), found.list(refresh=True))
    assert asked(tmp_path, "py") == 2


async def test_who_leaves_does_not_take_the_answer_along(tmp_path: Path) -> None:
    """A caller that gives up does not end the question that others wait for."""
    found = discovery(tmp_path, good=Worker(interpreter(tmp_path, "py", f"echo '{GOOD}'")))
    first = asyncio.ensure_future(found.list())
    second = asyncio.ensure_future(found.list())
    await asyncio.sleep(0)
    first.cancel()
    assert [row["kind"] for row in await second] == ["good"]


async def test_a_configured_module_needs_no_entry_point(tmp_path: Path) -> None:
    """[workers.X] module = ... can be run although its environment tells nothing of it."""
    found = discovery(tmp_path, mine=Worker(interpreter(tmp_path, "py", "echo '[]'"), "my.module"))
    (row,) = await found.list()
    assert (row["kind"], row["module"], row["error"]) == ("mine", "my.module", None)


async def test_interpreters_get_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's environment (systemd's variables, secrets) is not passed on."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    worker = Worker(interpreter(tmp_path, "py", f"env > {tmp_path}/env; echo '[]'"))
    await discovery(tmp_path, mine=worker).list()
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
