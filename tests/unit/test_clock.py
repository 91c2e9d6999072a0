"""The daemon's clock, and the one that tests move by hand."""

import time

import pytest

from mosaicd.clock import Clock
from tests.harness.clock import ManualClock


def test_the_clock_tells_the_machines_time() -> None:
    """Wall time is Unix time; monotonic time goes with the event loop's own clock; a boot has one name."""
    clock = Clock()
    assert abs(clock.wall() - time.time()) < 5
    before = clock.mono()
    assert before <= time.monotonic() <= clock.mono()
    assert clock.boot_id() == Clock().boot_id()
    assert len(clock.boot_id()) == 36


def test_a_manual_clock_moves_when_told() -> None:
    """Time passes by `advance` alone, on both clocks."""
    clock = ManualClock(wall=100.0, mono=10.0)
    assert (clock.wall(), clock.mono()) == (100.0, 10.0)
    clock.advance(2.5)
    assert (clock.wall(), clock.mono()) == (102.5, 12.5)


def test_suspend_stops_the_monotonic_clock() -> None:
    """While the machine sleeps no deadline comes nearer."""
    clock = ManualClock(wall=100.0, mono=10.0)
    clock.suspend(3600)
    assert (clock.wall(), clock.mono()) == (3700.0, 10.0)


def test_setting_the_time_moves_no_deadline() -> None:
    """The wall clock may jump, back too; the monotonic one does not."""
    clock = ManualClock(wall=100.0, mono=10.0)
    clock.set_wall(5.0)
    assert (clock.wall(), clock.mono()) == (5.0, 10.0)


def test_a_reboot_has_another_name() -> None:
    """After a reboot the boot id differs and monotonic times mean nothing any more."""
    clock = ManualClock(mono=500.0)
    first = clock.boot_id()
    clock.reboot("boot-2")
    assert clock.boot_id() != first
    assert clock.mono() < 500.0


def test_time_does_not_run_backwards() -> None:
    """A step back is a mistake in the test that asks for it."""
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().suspend(-1)
