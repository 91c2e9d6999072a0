"""A slip on the command line is 2 and a sentence that helps, daemon or no daemon: nobody is asked."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from mosaicctl.cli import VERBS
from tests.ctl.scripted import ScriptedDaemon

Ctl = Callable[..., tuple[int, str, str]]

#: Command line (TMP: a directory with a bad.json in it, '' an empty word) | words of what is told.
SLIPS = """
submit | submit what? Give one of -- COMMAND, -f FILE or --worker KIND
submit -f TMP/a.json -- true | Give one of
submit -f TMP/none.json | none.json: No such file or directory
submit -f TMP | : Is a directory
submit -f TMP/bad.json | bad.json: not JSON
submit -f '' | an empty text means nothing here
submit --worker '' | an empty text means nothing here
submit --key '' -- true | an empty text means nothing here
submit --cwd '' -- true | an empty text means nothing here
submit -t soon -- true | -t/--time: 'soon' is not a duration; write 90, 90s
submit -t 0 -- true | must be more than 0
submit --grace -1 -- true | --grace: '-1' is not a duration
submit --stall x -- true | --stall: 'x' is not a duration; write 90, 90s
submit --heartbeat 0 -- true | --heartbeat: 0 is no time at all
submit --handshake x -- true | is not a duration; write 90, 90s
submit --start-timeout x -- true | is not a duration; write 90, 90s
submit -c 0 -- true | -c/--cpus: '0' will not do; give a whole number, 1 or more
submit -c many -- true | 'many' will not do
submit -g x -- true | 'x' will not do; give a whole number,
submit --max-steps 0 -- true | '0' will not do
submit --retries 101 -- true | 0 to 100
submit -p 1001 -- true | -1000 to 1000
submit -l x -- true | 'x' is no label; write it as K=V
submit --retry-on x -- true | 'x' is not a cause; use one of any, infrastructure, exit_code
submit --dedup x -- true | choose from
submit -e =x -- true | -e =x: write it as K=V
submit -e NO_SUCH_VARIABLE_HERE -- true | you have no such variable
submit --set a=1 -- true | it goes with --worker or -f
submit --worker tabular --set x | write it as KEY=VALUE
submit --worker tabular -e =x | -e =x: write it as K=V
submit --worker tabular -t soon | is not a duration; write 90, 90s
submit --dry-run -t soon -- true | is not a duration; write 90, 90s
submit --dry-run | submit what?
run | run what?
run -t soon -- true | is not a duration; write 90, 90s
run -f TMP/none.json | No such file
run -q | run what?
run --worker tabular --set x | write it as KEY=VALUE
list --state sleeping | 'sleeping' is not a state; use one of INIT, HSHK, RDY
list --state exec,,pause | '' is not a state
list --outcome sad | 'sad' is not an outcome; use one of succeeded, failed
list -l x | 'x' is no label; write it as K=V
list -n 0 | 1 or more
list -n x | 'x' will not do; give a whole number,
list --name '' | an empty text means nothing here
list --user '' | an empty text means nothing here
list run-1 | unrecognized arguments: run-1
show '' | an empty text names no run
show a ' ' | an empty text names no run
watch '' | an empty text names no run
watch --since yesterday | is not a time; write how long ago
watch --since -- a | expected one argument
logs '' | an empty text names no run
logs a b | unrecognized arguments: b
logs --tail x a | 'x' will not do; give a whole number,
logs --tail -1 a | 0 or more
logs --attempt 0 a | 1 or more
logs --since x a | is not a time; write how long ago
logs --stderr --both a | not allowed with
metrics '' | an empty text names no run
metrics --attempt 0 | 1 or more
metrics --plot --no-plot | not allowed with
metrics a b | unrecognized
wait '' | an empty text names no run
wait --timeout soon a | --timeout: 'soon' is not a duration; write 90, 90s
wait --state sleeping | 'sleeping' is not a state; use one of INIT, HSHK, RDY
pause | pause which runs?
pause a --all | not both
pause --mode deep a | choose from
pause --state sleeping | 'sleeping' is not a state; use one of INIT, HSHK, RDY
resume | resume which runs?
resume a -l k=v | not both
resume -l x | 'x' is no label; write it as K=V
resume '' | an empty text names no run
stop | stop which runs? Name some (@: your last one)
stop --grace soon a | is not a duration; write 90, 90s
stop a --state EXEC | not both
stop -l =x | write it as K=V
stop '' | an empty text names no run
retry '' | an empty text names no run
retry -e =x a | write it as K=V
retry -e NO_SUCH_VARIABLE_HERE | you have no such variable
hold | hold which runs?
hold a --all | not both
hold --state sleeping | 'sleeping' is not a state; use one of INIT, HSHK, RDY
release | release which runs?
release a --all | not both
release -l x | 'x' is no label; write it as K=V
set | set what of which runs?
set a | set what? Give --priority, --name, -l K=V or --unlabel K
set -p 5 | of which runs?
set a -p high | 'high' will not do
set a -n '' | an empty text means nothing here
set a -l x | 'x' is no label; write it as K=V
set '' -p 1 | an empty text names no run
pin | pin which runs?
pin '' | an empty text names no run
unpin | unpin which runs?
unpin '' | an empty text names no run
prune a --older-than 1d | not both
prune --older-than soon | is not a duration; write 90, 90s
prune --outcome sad | 'sad' is not an outcome; use one of succeeded, failed
prune --older-than 1d --name '' | an empty text means nothing here
prune --user '' | an empty text means nothing here
prune -l x | 'x' is no label; write it as K=V
prune '' | an empty text names no run
why '' | an empty text names no run
workers '' | an empty text means nothing here
workers a b | unrecognized arguments: b
health now | unrecognized arguments: now
import | the following arguments are required: FILE
import TMP/none | TMP/none is no file
import TMP | TMP is no file
daemon | the following arguments are required: ACTION
daemon restart | choose from
doctor --config '' | an empty text means nothing here
doctor --state-dir '' | an empty text means nothing here
doctor now | unrecognized
backup | the following arguments are required: FILE
backup TMP | name a file in it
backup TMP/none/x | there is no directory TMP/none
restore | the following arguments are required: FILE
restore TMP/none | none: No such file or directory
restore TMP | Is a directory
restore TMP/bad.json --config TMP/none | none: No such file or directory
"""

#: Enough for a verb to make sense; what then remains to be said is that there is no daemon.
SENSE = {
    **dict.fromkeys("pause resume stop hold release pin unpin".split(), "a"),
    "submit": "-- true", "run": "-- true", "set": "a -p 1", "daemon": "reexec",
    "import": "TMP/bad.json", "restore": "TMP/bad.json", "backup": "TMP/copy",
}  # fmt: skip
#: Work without a daemon.
ALONE = {"doctor", "restore"}

ROWS = [
    *([part.strip() for part in row.split("|")] for row in SLIPS.strip().splitlines()),
    *([f"{verb} --bogus {SENSE.get(verb, '')}", "unrecognized arguments: --bogus"] for verb in VERBS),
    *([f"{verb} -o xml {SENSE.get(verb, '')}", "-o/--output: invalid choice"] for verb in VERBS),
    *([f"{verb} --socket '' {SENSE.get(verb, '')}", "an empty text means nothing here"] for verb in VERBS),
]


def words_of(line: str, tmp: Path) -> list[str]:
    return [word.replace("TMP", str(tmp)) for word in shlex.split(line)]


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "bad.json").write_text("{")
    return tmp_path


def test_every_verb_is_here() -> None:
    """A new verb brings its slips along."""
    assert {row.split()[0] for row in SLIPS.strip().splitlines()} == set(VERBS)


@pytest.mark.parametrize("is_up", [False, True], ids=["no-daemon", "daemon"])
@pytest.mark.parametrize(("line", "told"), ROWS, ids=[row[0] for row in ROWS])
def test_a_slip_is_told_without_asking(
    is_up: bool, line: str, told: str,
    daemon: ScriptedDaemon, ctl: Ctl, tmp: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """2, nothing on standard output, a sentence that says what would do, and no connection made."""
    if not is_up:
        monkeypatch.setenv("MOSAICD_SOCKET", str(tmp / "nobody"))
    code, out, err = ctl(*words_of(line, tmp))
    assert (code, out) == (2, ""), err
    assert told.replace("TMP", str(tmp)) in err
    assert err.startswith("mosaicctl: ") and len(err.splitlines()) <= 2
    assert not daemon.connections


@pytest.mark.parametrize("verb", sorted(set(VERBS) - ALONE))
def test_no_daemon_is_69(verb: str, ctl: Ctl, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that makes sense is told where a daemon was looked for, and how to start one."""
    monkeypatch.setenv("MOSAICD_SOCKET", str(tmp / "nobody"))
    code, out, err = ctl(*words_of(f"{verb} {SENSE.get(verb, '')}", tmp))
    assert (code, out) == (69, ""), err
    assert str(tmp / "nobody") in err and "start one with" in err
