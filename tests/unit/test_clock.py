"""The daemon's clock, and the manual clock of the tests."""

import time

import pytest

from mosaicd.clock import Clock
from tests.harness.clock import ManualClock


def test_clock_returns_the_time_and_boot_id_of_the_machine() -> None:
    """Wall time is Unix time, monotonic time is the event loop's clock, and the boot id is constant."""
    clock = Clock()
    assert abs(clock.wall() - time.time()) < 5
    before = clock.mono()
    assert before <= time.monotonic() <= clock.mono()
    assert clock.boot_id() == Clock().boot_id()
    assert len(clock.boot_id()) == 36


def test_manual_clock_moves_only_by_advance() -> None:
    """`advance` moves wall time and monotonic time."""
    clock = ManualClock(wall=100.0, mono=10.0)
    assert (clock.wall(), clock.mono()) == (100.0, 10.0)
    clock.advance(2.5)
    assert (clock.wall(), clock.mono()) == (102.5, 12.5)


def test_suspend_stops_the_monotonic_clock() -> None:
    """During a suspend only wall time moves."""
    clock = ManualClock(wall=100.0, mono=10.0)
    clock.suspend(3600)
    assert (clock.wall(), clock.mono()) == (3700.0, 10.0)


def test_setting_the_wall_clock_does_not_change_monotonic_time() -> None:
    """The wall clock may jump, also backwards; the monotonic clock does not."""
    clock = ManualClock(wall=100.0, mono=10.0)
    clock.set_wall(5.0)
    assert (clock.wall(), clock.mono()) == (5.0, 10.0)


def test_a_reboot_changes_the_boot_id() -> None:
    """After a reboot the boot id differs and monotonic time starts again."""
    clock = ManualClock(mono=500.0)
    first = clock.boot_id()
    clock.reboot("boot-2")
    assert clock.boot_id() != first
    assert clock.mono() < 500.0


def test_manual_clock_refuses_to_move_backwards() -> None:
    """A negative step raises ValueError."""
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().suspend(-1)
