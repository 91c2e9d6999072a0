"""The fixtures of the daemon's tests, for houses that a fault test makes."""

from tests.daemon.conftest import build, house

__all__ = ["build", "house"]
