"""Wrong command lines of every verb, and the words that the error message must contain."""

import shlex
from pathlib import Path

#: Command line (TMP: a directory with the file bad.json; '': an empty word) | words of the message.
USAGE_ERRORS = """
submit | -f --worker
submit -f TMP/a.json -- true | -f --worker
submit -f TMP/none.json | TMP/none.json
submit -f TMP | TMP
submit -f TMP/bad.json | TMP/bad.json
submit -f '' | -f
submit --worker '' | --worker
submit --key '' -- true | --key
submit --cwd '' -- true | --cwd
submit -t soon -- true | -t soon
submit -t 0 -- true | -t 0
submit -t 30 -- true | -t 30s 30m
submit -t 1:30 -- true | -t 0:01:30 1:30:00
submit --grace -1 -- true | --grace -1
submit --stall x -- true | --stall x
submit --heartbeat 0 -- true | --heartbeat 0
submit --handshake x -- true | --handshake x
submit --start-timeout x -- true | --start-timeout x
submit -c 0 -- true | -c 0
submit -c many -- true | -c many
submit -g x -- true | -g x
submit -m 4 -- true | -m 4M 4G
submit -m 0G -- true | -m 0G
submit -m much -- true | -m much
submit --max-steps 0 -- true | --max-steps 0
submit --retries 101 -- true | --retries 101
submit -p 1001 -- true | -p 1001
submit -l x -- true | -l x
submit --retry-on x -- true | --retry-on x
submit --dedup x -- true | --dedup x
submit --signal-to x -- true | --signal-to x
submit --signal STOP -- true | --signal STOP
submit --signal 19 -- true | --signal 19
submit -e =x -- true | -e =x
submit -e NO_SUCH_VARIABLE_HERE -- true | -e NO_SUCH_VARIABLE_HERE
submit --set a=1 -- true | --set
submit --worker tabular --set x | --set x
submit --worker tabular -e =x | -e =x
submit --worker tabular -t soon | -t soon
submit --dry-run -t soon -- true | -t soon
submit --dry-run | -f --worker
submit -n my run -- sleep 1 | 'run' --
submit -t 12h hours of work -- sleep 1 | 'hours' 'of' 'work' --
submit -f TMP/a.json x -- true | 'x' --
run git log -- file | 'git' 'log' --
run | -f --worker
run -t soon -- true | -t soon
run -f TMP/none.json | TMP/none.json
run -q | -f --worker
run --worker tabular --set x | --set x
list --state sleeping | --state sleeping
list --state exec,,pause | --state
list --outcome sad | --outcome sad
list -l x | -l x
list -n 0 | -n 0
list -n x | -n x
list --name '' | --name
list --user '' | --user
list run-1 | run-1
show '' | RUN
show a ' ' | RUN
watch '' | RUN
watch --since yesterday | --since yesterday
watch --since -- a | --since
logs '' | RUN
logs a b | b
logs --tail x a | --tail x
logs --tail -1 a | --tail -1
logs --attempt 0 a | --attempt 0
logs --since x a | --since x
logs --since 12:61 a | --since 12:61
logs --stderr --both a | --stderr --both
metrics '' | RUN
metrics --attempt 0 | --attempt 0
metrics --plot --no-plot | --plot --no-plot
metrics a b | b
wait '' | RUN
wait --timeout soon a | --timeout soon
wait --state sleeping | --state sleeping
pause | RUN --all --state -l
pause a --all | RUN --all
pause --mode deep a | --mode deep
pause --state sleeping | --state sleeping
resume | RUN --all --state -l
resume a -l k=v | RUN -l
resume -l x | -l x
resume '' | RUN
stop | RUN --all --state -l
stop --grace soon a | --grace soon
stop --signal SIGSTOP a | --signal SIGSTOP
stop a --state EXEC | RUN --state
stop -l =x | -l =x
stop '' | RUN
retry '' | RUN
retry -e =x a | -e =x
retry -e NO_SUCH_VARIABLE_HERE | -e NO_SUCH_VARIABLE_HERE
hold | RUN --all --state -l
hold a --all | RUN --all
hold --state sleeping | --state sleeping
release | RUN --all --state -l
release a --all | RUN --all
release -l x | -l x
set | RUN
set a | --priority --name -l --unlabel
set -p 5 | RUN
set a -p high | -p high
set a -n '' | -n
set a -l x | -l x
set '' -p 1 | RUN
pin | RUN
pin '' | RUN
unpin | RUN
unpin '' | RUN
prune a --older-than 1d | RUN
prune --older-than soon | --older-than soon
prune --outcome sad | --outcome sad
prune --older-than 1d --name '' | --name
prune --user '' | --user
prune -l x | -l x
prune '' | RUN
why '' | RUN
workers '' | KIND
workers a b | b
health now | now
import | FILE
import TMP/none | TMP/none
import TMP | TMP
daemon | ACTION
daemon restart | restart
submit --stdin TMP/none -- true | --stdin TMP/none
submit --stdin TMP -- true | --stdin TMP directory
submit --stdin '' -- true | --stdin
submit -f - --stdin - | -f --stdin together
run --stdin TMP/none -- true | --stdin TMP/none
doctor --config '' | --config
doctor --state-dir '' | --state-dir
doctor now | now
backup | FILE
backup TMP | TMP
backup TMP/none/x | TMP/none/x
restore | FILE
restore TMP/none | TMP/none
restore TMP | TMP
restore TMP/bad.json --config TMP/none | --config TMP/none
"""

#: The arguments that make a command line of the verb valid.
VALID_ARGUMENTS = {
    **dict.fromkeys("pause resume stop hold release pin unpin".split(), "a"),
    "submit": "-- true", "run": "-- true", "set": "a -p 1", "daemon": "reexec",
    "import": "TMP/bad.json", "restore": "TMP/bad.json", "backup": "TMP/copy",
}  # fmt: skip


def usage_errors() -> list[tuple[str, list[str]]]:
    """Return each command line and the words that its error message must contain."""
    pairs = (row.rpartition(" | ") for row in USAGE_ERRORS.strip().splitlines())
    return [(line.strip(), words.split()) for line, _, words in pairs]


def split_line(line: str, tmp: Path) -> list[str]:
    """Return the words of a command line, with TMP replaced by `tmp`."""
    return [word.replace("TMP", str(tmp)) for word in shlex.split(line)]
