"""Back-off: growing, bounded, never quite the same."""

from __future__ import annotations

from lpt_client.backoff import FIRST_DELAY_S, MAX_DELAY_S, Backoff


def test_delays_grow_up_to_a_limit() -> None:
    longest = [Backoff(lambda: 1.0)] * 8
    delays = [each.next_delay_s() for each in longest]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, MAX_DELAY_S, MAX_DELAY_S]


def test_half_of_a_delay_is_random() -> None:
    assert Backoff(lambda: 0.0).next_delay_s() == FIRST_DELAY_S / 2
    assert len({Backoff().next_delay_s() for _ in range(20)}) > 1


def test_reset() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == FIRST_DELAY_S
