"""mosaicctl starts fast, because it is used interactively and in loops."""

import os
import subprocess
import sys

import pytest

from tests.ctl.scripted import ScriptedDaemon, a_run

HEAVY = (
    "asyncio concurrent.futures dataclasses inspect importlib.metadata logging subprocess tempfile tomllib "
    "msgspec mosaicd.protocol.messages mosaicd.protocol.methods mosaicctl.submission "
    "mosaicctl.follow mosaicctl.plot"
).split()
TRIES = 60


@pytest.mark.parametrize("argv", [["--version"], ["list"], ["-o", "json", "list"]])
def test_no_slow_module_is_imported(argv: list[str], daemon: ScriptedDaemon) -> None:
    """`--version` and `list` load no slow module and no module of another verb."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run()], "cursor": None}
    program = (
        "import sys\nfrom mosaicctl.__main__ import main\n"
        f"try:\n    main({argv!r})\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not [name for name in HEAVY if name in done.stderr.split()]


def test_list_takes_less_than_five_bare_pythons(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`list` takes less than 5 times the processor time of `python -c pass` (best of up to 60 tries, because
    other processes slow down single tries)."""
    daemon.handlers["run.list"] = lambda params, peer: {"runs": [a_run(n) for n in range(20)], "cursor": None}
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # an installed client has compiled modules
    bare: list[float] = []
    listed: list[float] = []
    while len(bare) < 5 or (min(listed) >= 5 * min(bare) and len(bare) < TRIES):
        bare.append(_seconds([sys.executable, "-c", "pass"]))
        listed.append(_seconds([sys.executable, "-m", "mosaicctl", "list"]))
    assert min(listed) < 5 * min(bare), (listed, bare)


def _seconds(argv: list[str]) -> float:
    """Return the processor time of a program that succeeds."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime
