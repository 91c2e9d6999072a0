"""A scripted daemon at a short path, and the environment of a caller that finds it and nothing else."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosaicctl.__main__ import main
from tests.ctl.scripted import ScriptedDaemon


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    """A daemon that knows no method yet, at $MOSAICD_SOCKET."""
    with tempfile.TemporaryDirectory() as directory, ScriptedDaemon(Path(directory) / "s") as scripted:
        monkeypatch.setenv("MOSAICD_SOCKET", str(scripted.path))
        yield scripted


@pytest.fixture
def ctl(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, str, str]]:
    """Run one command line; returns exit code, standard output and standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(list(argv))
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = capfdbinary.readouterr()
        return code, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape")

    return run
