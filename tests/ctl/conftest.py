"""Fixtures: a scripted daemon at $MOSAICD_SOCKET, and `ctl`, which runs mosaicctl in this process."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosaicctl.__main__ import main
from tests.ctl.scripted import ScriptedDaemon


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    """Yield a scripted daemon at $MOSAICD_SOCKET that answers only daemon.hello."""
    with tempfile.TemporaryDirectory() as directory, ScriptedDaemon(Path(directory) / "s") as scripted:
        monkeypatch.setenv("MOSAICD_SOCKET", str(scripted.path))
        yield scripted


@pytest.fixture
def ctl(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command line and returns exit code, standard output, standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(list(argv))
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = capfdbinary.readouterr()
        return code, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape")

    return run
