"""A wrong command line is reported with exit code 2 and without a connection to a daemon."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicctl.cli import VERBS
from tests.ctl.scripted import ScriptedDaemon
from tests.ctl.usage_errors import VALID_ARGUMENTS, split_line, usage_errors

Ctl = Callable[..., tuple[int, str, str]]

#: The verbs that work without a daemon.
WITHOUT_DAEMON = {"doctor", "restore"}

ROWS = [
    *usage_errors(),
    *((f"{verb} --bogus {VALID_ARGUMENTS.get(verb, '')}", ["--bogus"]) for verb in VERBS),
    *((f"{verb} -o xml {VALID_ARGUMENTS.get(verb, '')}", ["--output", "xml", "jsonl"]) for verb in VERBS),
    *((f"{verb} --socket '' {VALID_ARGUMENTS.get(verb, '')}", ["--socket"]) for verb in VERBS),
]


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "bad.json").write_text("{")
    return tmp_path


def test_every_verb_has_wrong_command_lines() -> None:
    """tests/ctl/usage_errors.py has wrong command lines for every verb."""
    assert {line.split()[0] for line, _ in usage_errors()} == set(VERBS)


@pytest.mark.parametrize("has_daemon", [False, True], ids=["no-daemon", "daemon"])
@pytest.mark.parametrize(("line", "named"), ROWS, ids=[row[0] for row in ROWS])
def test_wrong_command_line_exits_2_without_a_connection(
    has_daemon: bool, line: str, named: list[str],
    daemon: ScriptedDaemon, ctl: Ctl, tmp: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A wrong command line exits with 2, a message with option and value, no output and no connection."""
    if not has_daemon:
        monkeypatch.setenv("MOSAICD_SOCKET", str(tmp / "missing"))
    code, out, err = ctl(*split_line(line, tmp))
    assert (code, out) == (2, ""), err
    assert all(word.replace("TMP", str(tmp)) in err.splitlines()[0] for word in named), err
    assert err.startswith("mosaicctl: ") and len(err.splitlines()) <= 2
    assert not daemon.connections


@pytest.mark.parametrize("verb", sorted(set(VERBS) - WITHOUT_DAEMON))
def test_verb_without_a_daemon_exits_69(
    verb: str, ctl: Ctl, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a daemon, each verb exits with 69, the socket path and the command that starts a daemon."""
    monkeypatch.setenv("MOSAICD_SOCKET", str(tmp / "missing"))
    code, out, err = ctl(*split_line(f"{verb} {VALID_ARGUMENTS.get(verb, '')}", tmp))
    assert (code, out) == (69, ""), err
    assert str(tmp / "missing") in err and "systemctl --user start mosaicd" in err
