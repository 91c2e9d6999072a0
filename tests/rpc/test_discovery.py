"""Discovery: each interpreter runs in its own process, so a broken one does not affect the others."""

import asyncio
import sys
from pathlib import Path

import pytest

from mosaicd.config import Paths, Settings, Worker
from mosaicd.upkeep.discovery import Discovery

GOOD = '{"python": "p", "workers": [{"kind": "good", "module": "good_worker", "capabilities": {}}]}'


def interpreter(folder: Path, name: str, body: str) -> str:
    """Write a script that stands for an interpreter and counts its calls; return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho calls >> {folder}/{name}.calls\n{body}\n")
    path.chmod(0o755)
    return str(path)


def discovery(tmp_path: Path, discovery_s: float = 30.0, **workers: Worker) -> Discovery:
    from dataclasses import replace

    settings = Settings(paths=Paths(tmp_path, tmp_path / "s"), workers=workers)
    return Discovery(replace(settings, timeouts=replace(settings.timeouts, discovery_s=discovery_s)))


def calls(folder: Path, name: str) -> int:
    path = folder / f"{name}.calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(autouse=True)
def no_own_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the daemon's interpreter with one that has no workers."""
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "own", 'echo "{\\"workers\\": []}"'))


async def test_broken_interpreters_do_not_hide_the_others(tmp_path: Path) -> None:
    """Interpreters that are missing, fail or print no list have an error; the good one has its worker."""

    def make(name: str, body: str) -> Worker:
        return Worker(interpreter(tmp_path, name, body))

    discovered = discovery(
        tmp_path, good=make("py-good", f"echo '{GOOD}'"), missing=Worker(str(tmp_path / "missing")),
        failing=make("py-failing", "echo No module named x >&2; exit 1"), silent=make("py-silent", ""),
        babbling=make("py-babbling", "echo hello"), odd=make("py-odd", "echo '[1, {}, null]'"),
    )  # fmt: skip
    rows = {row["kind"]: row for row in await discovered.list()}
    assert rows.pop("good")["error" if "error" in rows else "module"] == "good_worker"
    assert sorted(rows) == ["babbling", "failing", "missing", "odd", "silent"]
    assert all(row["error"] and row["python"] for row in rows.values())
    assert "No module named x" in rows["failing"]["error"]
    assert (await discovered.lookup("good_worker") or {})["kind"] == "good"
    assert await discovered.lookup("nothing") is None


async def test_a_hanging_interpreter_does_not_hide_the_others(tmp_path: Path) -> None:
    """An interpreter that exceeds the time limit is listed with that error; the other is listed normally."""
    good = interpreter(tmp_path, "py-good", f"echo '{GOOD}'")
    hanging = interpreter(tmp_path, "py-hanging", "exec sleep 60")
    discovered = discovery(tmp_path, 3.0, good=Worker(good), hanging=Worker(hanging))
    rows = {row["kind"]: row for row in await discovered.list()}
    assert rows["good"]["module"] == "good_worker"
    assert "within 3 s" in rows["hanging"]["error"]


async def test_discovery_is_cached_and_shared(tmp_path: Path) -> None:
    """Concurrent calls share one discovery, its result is cached, and `refresh` repeats it."""
    discovered = discovery(tmp_path, good=Worker(interpreter(tmp_path, "py", f"echo '{GOOD}'")))
    await asyncio.gather(*(discovered.list() for _ in range(10)))
    await discovered.list()
    assert (calls(tmp_path, "py"), calls(tmp_path, "own")) == (1, 1)
    await asyncio.gather(discovered.list(refresh=True), discovered.list(refresh=True))
    assert calls(tmp_path, "py") == 2


async def test_a_cancelled_caller_does_not_cancel_the_discovery(tmp_path: Path) -> None:
    """If one caller is cancelled, other callers still get the result."""
    discovered = discovery(tmp_path, good=Worker(interpreter(tmp_path, "py", f"echo '{GOOD}'")))
    first = asyncio.ensure_future(discovered.list())
    second = asyncio.ensure_future(discovered.list())
    await asyncio.sleep(0)
    first.cancel()
    assert [row["kind"] for row in await second] == ["good"]


async def test_a_configured_module_needs_no_entry_point(tmp_path: Path) -> None:
    """A worker with `module` in [workers.X] is listed although its environment does not list it."""
    discovered = discovery(tmp_path, mine=Worker(interpreter(tmp_path, "py", "echo '[]'"), "my.module"))
    (row,) = await discovered.list()
    assert (row["kind"], row["module"], row["error"]) == ("mine", "my.module", None)


async def test_interpreters_do_not_get_the_daemons_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of the daemon, such as those of systemd, are not passed to interpreters."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    worker = Worker(interpreter(tmp_path, "py", f"env > {tmp_path}/env; echo '[]'"))
    await discovery(tmp_path, mine=worker).list()
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
