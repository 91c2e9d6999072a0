"""Back-off: delays double up to a bound; a reset starts again with the first delay."""

from mosaicd.protocol.backoff import Backoff, delay_s


def test_delays_double_up_to_the_longest() -> None:
    """The first delay is the configured one; no delay exceeds the configured maximum."""
    backoff = Backoff(0.2, 1.0)
    assert [backoff.next_s() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_reset_starts_with_the_first_delay() -> None:
    """After a reset, the next delay is the first delay."""
    backoff = Backoff(0.2, 1.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.2


def test_a_very_long_series_stays_at_the_longest_delay() -> None:
    """No count of tries and no first delay makes the delay overflow or exceed the maximum."""
    assert delay_s(10**9, 0.1, 60.0) == 60.0
    assert delay_s(0, 90.0, 60.0) == 60.0
    assert delay_s(5, 0.0, 60.0) == 0.0
