"""Back-off: delays double up to a bound, and start anew after a reset."""

from mosaicd.protocol.backoff import Backoff, delay_s


def test_delays_double_up_to_the_longest() -> None:
    """The first delay is the given one; no delay is longer than the longest."""
    backoff = Backoff(0.2, 1.0)
    assert [backoff.next_s() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_reset_starts_with_the_first_delay() -> None:
    """After a success the next failure waits as briefly as the first one did."""
    backoff = Backoff(0.2, 1.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.2


def test_a_very_long_series_stays_at_the_longest_delay() -> None:
    """Neither the count of tries nor a first delay beyond the longest overflows or exceeds the bound."""
    assert delay_s(10**9, 0.1, 60.0) == 60.0
    assert delay_s(0, 90.0, 60.0) == 60.0
    assert delay_s(5, 0.0, 60.0) == 0.0
