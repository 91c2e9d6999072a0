"""The fixtures of the daemon's tests, for harnesses that a fault test makes."""

from tests.daemon.conftest import build, harness

__all__ = ["build", "harness"]
