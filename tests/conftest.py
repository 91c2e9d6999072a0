"""What holds for every test: the skip of a test that needs root, and fixtures of several folders."""

import os
import resource
import signal
from collections.abc import Iterator

import pytest

from mosaicctl import environment

#: Variables of a launcher that runs the suite, such as `make`: mosaicctl would name them at every submit.
_OF_A_LAUNCHER = [
    name for name, _, reason in environment.capture(os.environ).left_out if reason == environment.LAUNCHER
]


def pytest_configure() -> None:
    """Remove the variables of a launcher, so that the tests see what they have set themselves."""
    for name in _OF_A_LAUNCHER:
        os.environ.pop(name, None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs root, before its fixtures make anything."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def descriptors_from_1024() -> Iterator[None]:
    """Let every descriptor that the test opens have a number above 1023, which `select` cannot wait for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < 1023:
        opened.append(os.dup(opened[0]))
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def default_hangup() -> Iterator[None]:
    """Give SIGHUP its default effect; a suite that `nohup` started ignores it, and so would its daemons."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
