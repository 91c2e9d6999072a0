"""The same work without mosaicd, as the reference for each figure."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Prints the time of its own first instructions: seconds and nanoseconds of the wall clock.
STAMP = ("date", "+%s.%N")
#: A pause before a timed step, so that the end of the previous step does not count.
SETTLE_S = 0.01


def stamp() -> float:
    """Start a program and return the time stamp that it prints first."""
    return float(subprocess.run(STAMP, stdout=subprocess.PIPE, check=True).stdout)


def runs_per_s(count: int, at_once: int) -> float:
    """Start and reap `count` processes of `true`, `at_once` at a time; return the number per second."""
    began = time.monotonic()
    living: deque[subprocess.Popen[bytes]] = deque()
    for _ in range(count):
        if len(living) == at_once:
            living.popleft().wait()
        living.append(subprocess.Popen(["true"], stdin=subprocess.DEVNULL))
    while living:
        living.popleft().wait()
    return count / (time.monotonic() - began)


def cat_s(source: Path, target: Path) -> float:
    """Return the seconds for `cat SOURCE | cat > TARGET`: the same bytes through a pipe to a file."""
    began = time.monotonic()
    with open(target, "wb") as file:
        first = subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE)
        with subprocess.Popen(["cat"], stdin=first.stdout, stdout=file) as second:
            assert first.stdout is not None
            first.stdout.close()
            second.wait()
        first.wait()
    took = time.monotonic() - began
    os.unlink(target)
    return took


def python_pass_s() -> float:
    """Return the seconds for `python -c pass`."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic() - began


@contextmanager
def sleeping_python() -> Iterator[int]:
    """Yield the pid of a Python process that only sleeps; it ends with the block."""
    code = "import time; print(flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()
