"""Make daemon harnesses for one test, and check each for trouble at its end."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.harness.daemon import DaemonHarness

H = TypeVar("H", bound=DaemonHarness)
H_co = TypeVar("H_co", bound=DaemonHarness, covariant=True)
_SHOWN = 4000  # characters of a daemon's log


class Builder(Protocol[H_co]):
    """A function that makes a harness; each keyword is a section of the settings."""

    def __call__(self, start: bool = True, **settings: Mapping[str, Any]) -> H_co: ...


Build = Builder[DaemonHarness]


@contextmanager
def builder(kind: type[H]) -> Iterator[Builder[H]]:
    """Yield a function that makes harnesses; at the end, close each and fail if one had trouble."""
    harnesses: list[H] = []

    def make(start: bool = True, **settings: Mapping[str, Any]) -> H:
        home = Path(tempfile.mkdtemp(prefix="mosaic-"))
        try:
            harness = kind(home, settings)
        except BaseException:  # for example: the class skips the test on this machine
            shutil.rmtree(home)
            raise
        harnesses.append(harness)
        if start:
            harness.start()
        return harness

    yield make
    trouble = []
    for harness in harnesses:
        try:
            found = harness.close()
            trouble += found
            if found and harness.log.exists():
                trouble.append(harness.log.read_text(errors="replace")[-_SHOWN:])
        finally:
            harness.remove()  # also after trouble: the message has the log
    assert not trouble, "\n".join(trouble)
