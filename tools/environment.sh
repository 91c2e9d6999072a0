#!/bin/sh
# Make .venv fit to run (environment.sh run) or to develop (environment.sh dev), one quiet line a step.
# The Makefile calls this only when a pyproject.toml or constraints.txt is newer than the last success;
# what pip had to say is kept in .venv/log and shown only when a step fails.
#
# PYTHON=... chooses the interpreter; otherwise the first of python3, python3.14 ... python3.11 that is new enough.
set -eu
profile=${1:?run or dev}
cd "$(dirname "$0")/.."

say() { printf '  %s\n' "$*"; }
fail() { printf '\n%s\n' "$*" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON does not run, or is older than 3.11."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "No Python 3.11 or newer was found (tried python3, python3.14 ... python3.11, python).
Install one (Debian 12, Ubuntu 24.04: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3"
}

run_logged() { # run_logged LOG COMMAND...: silent when it works, its last 40 lines when it does not
    log=$1
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        fail "That did not work; the whole output is in $log.
The first installation needs the network (or PIP_INDEX_URL / PIP_FIND_LINKS for a mirror)."
    fi
}

# An environment of another checkout, or one whose interpreter is gone, cannot be repaired: make a new one.
if [ -d .venv ] && { [ "$(cat .venv/home 2>/dev/null)" != "$PWD" ] || ! is_new_enough .venv/bin/python; }; then
    say "removing .venv: it was made elsewhere, or by a Python that is gone"
    rm -rf .venv
fi

if [ ! -d .venv ]; then
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv or ensurepip module.
Debian and Ubuntu ship them apart: apt install python3-venv"
    say "making .venv with $("$python" -V 2>&1)"
    mkdir -p .make
    run_logged .make/venv.log "$python" -m venv .venv
    printf '%s\n' "$PWD" >.venv/home
fi

targets="-e . -e workers/sdk -e workers/tabular"
what="mosaicd, its worker SDK and the tabular worker"
if [ "$profile" = dev ]; then
    targets="-e .[dev] -e workers/sdk -e workers/tabular"
    what="the test tools"
fi
mkdir -p .venv/log
say "installing $what (the first time takes about a minute)"
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# shellcheck disable=SC2086 # the list is ours, and is meant to be split
run_logged ".venv/log/$profile.log" .venv/bin/python -m pip install $targets
