"""The storm guard: when it masks, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lpt_service.core.storm_guard import FIRST_PAUSE_NS, LONGEST_PAUSE_NS, StormGuard

SECOND = 1_000_000_000
START_NS = 5 * SECOND


def test_the_rate_itself_is_no_storm_one_more_is() -> None:
    guard = StormGuard(100)
    assert not guard.count(100, START_NS)
    assert guard.count(1, START_NS + SECOND - 1)


def test_after_a_second_the_count_begins_anew() -> None:
    guard = StormGuard(100)
    assert not guard.count(100, START_NS)
    assert not guard.count(100, START_NS + SECOND)


def test_unmasking_begins_a_new_count() -> None:
    guard = StormGuard(100)
    assert guard.count(101, START_NS)
    guard.unmask(START_NS + 1)
    assert not guard.count(100, START_NS + 2)
    assert guard.count(1, START_NS + 3)


def test_semantic_08_the_pause_doubles_each_time_up_to_a_limit() -> None:
    """Semantic 8: unmasked after a pause that doubles each time, up to a limit."""
    guard, now_ns, pauses = StormGuard(1), START_NS, []
    for _ in range(9):
        until_ns = guard.mask(now_ns)
        pauses.append(until_ns - now_ns)
        now_ns = until_ns
        guard.unmask(now_ns)

    assert pauses == [FIRST_PAUSE_NS * factor for factor in (1, 2, 4, 8, 16, 32, 60, 60, 60)]
    assert guard.masks == 9


def test_a_port_that_behaved_for_long_enough_begins_with_the_first_pause_again() -> None:
    guard = StormGuard(1)
    guard.unmask(guard.mask(START_NS))
    until_ns = guard.mask(START_NS + FIRST_PAUSE_NS)
    guard.unmask(until_ns)

    almost = until_ns + LONGEST_PAUSE_NS - 1
    assert guard.mask(almost) - almost == 4 * FIRST_PAUSE_NS
    guard.unmask(almost + 4 * FIRST_PAUSE_NS)
    later = almost + 4 * FIRST_PAUSE_NS + LONGEST_PAUSE_NS
    assert guard.mask(later) - later == FIRST_PAUSE_NS


@given(st.lists(st.tuples(st.integers(0, SECOND // 2), st.integers(1, 15)), max_size=30))
def test_it_masks_only_what_is_more_than_the_rate_in_a_second(raised: list[tuple[int, int]]) -> None:
    guard, now_ns, past = StormGuard(20), START_NS, []
    for pause_ns, count in raised:
        now_ns += pause_ns
        past.append((now_ns, count))
        last_second = sum(each for at_ns, each in past if now_ns - at_ns < SECOND)
        if guard.count(count, now_ns):
            assert last_second > 20
            guard.unmask(now_ns)
        else:
            assert count <= 20
