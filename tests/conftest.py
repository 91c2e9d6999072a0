"""What holds for every test: a test that is marked `root` is skipped for other users."""

import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs root, before its fixtures make anything."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
