"""A mistake on the command line is reported with exit code 2 before a daemon is asked."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicctl.cli import VERBS
from tests.ctl.scripted import ScriptedDaemon
from tests.ctl.slips import SENSE, rows, words_of

Ctl = Callable[..., tuple[int, str, str]]

#: Work without a daemon.
ALONE = {"doctor", "restore"}

ROWS = [
    *rows(),
    *((f"{verb} --bogus {SENSE.get(verb, '')}", ["--bogus"]) for verb in VERBS),
    *((f"{verb} -o xml {SENSE.get(verb, '')}", ["--output", "xml", "jsonl"]) for verb in VERBS),
    *((f"{verb} --socket '' {SENSE.get(verb, '')}", ["--socket"]) for verb in VERBS),
]


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "bad.json").write_text("{")
    return tmp_path


def test_every_verb_is_here() -> None:
    """A new verb brings its slips along."""
    assert {line.split()[0] for line, _ in rows()} == set(VERBS)


@pytest.mark.parametrize("is_up", [False, True], ids=["no-daemon", "daemon"])
@pytest.mark.parametrize(("line", "named"), ROWS, ids=[row[0] for row in ROWS])
def test_a_slip_is_told_without_asking(
    is_up: bool, line: str, named: list[str],
    daemon: ScriptedDaemon, ctl: Ctl, tmp: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """2, nothing on standard output, a message that names the option and the value, and no connection."""
    if not is_up:
        monkeypatch.setenv("MOSAICD_SOCKET", str(tmp / "missing"))
    code, out, err = ctl(*words_of(line, tmp))
    assert (code, out) == (2, ""), err
    assert all(word.replace("TMP", str(tmp)) in err.splitlines()[0] for word in named), err
    assert err.startswith("mosaicctl: ") and len(err.splitlines()) <= 2
    assert not daemon.connections


@pytest.mark.parametrize("verb", sorted(set(VERBS) - ALONE))
def test_no_daemon_is_69(verb: str, ctl: Ctl, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that makes sense is told where a daemon was looked for, and how to start one."""
    monkeypatch.setenv("MOSAICD_SOCKET", str(tmp / "missing"))
    code, out, err = ctl(*words_of(f"{verb} {SENSE.get(verb, '')}", tmp))
    assert (code, out) == (69, ""), err
    assert str(tmp / "missing") in err and "systemctl --user start mosaicd" in err
