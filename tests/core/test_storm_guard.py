"""The storm guard: when it masks, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lpt_service.core.storm_guard import ENTRIES_MAX, FIRST_PAUSE_NS, LONGEST_PAUSE_NS, StormGuard

SECOND = 1_000_000_000
START_NS = 5 * SECOND
_RAISED = st.lists(st.tuples(st.integers(0, SECOND // 2), st.integers(1, 15)), max_size=30)


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


def test_any_span_of_a_second_counts_wherever_it_begins() -> None:
    guard = StormGuard(100)
    assert not guard.count(1, START_NS)
    assert not guard.count(95, START_NS + 850_000_000)
    assert guard.count(95, START_NS + 1_020_000_000)


def test_what_came_a_whole_second_ago_counts_no_more() -> None:
    guard = StormGuard(100)
    assert not guard.count(40, START_NS)
    assert not guard.count(60, START_NS + SECOND - 1)
    assert not guard.count(40, START_NS + SECOND)
    assert guard.count(1, START_NS + SECOND)


def test_a_new_limit_counts_what_has_come_already() -> None:
    guard = StormGuard(100)
    assert not guard.count(90, START_NS)
    guard.max_rate_hz = 50
    assert guard.count(1, START_NS + SECOND - 1)
    guard.unmask(START_NS + SECOND)
    guard.max_rate_hz = 200
    assert not guard.count(200, START_NS + SECOND)


def test_a_huge_count_masks_at_once() -> None:
    assert StormGuard(10_000_000).count(1 << 40, START_NS)


def _more_than(limit: int, span_ns: int, past: list[tuple[int, int]]) -> bool:
    """Brute force: whether more than `limit` came within `span_ns` up to the last of them."""
    now_ns = past[-1][0]
    return sum(count for at_ns, count in past if now_ns - at_ns < span_ns) > limit


@given(_RAISED, st.lists(st.integers(10, 40), min_size=30, max_size=30))
def test_it_masks_exactly_what_is_more_than_the_rate_in_some_second(
    raised: list[tuple[int, int]], limits: list[int]
) -> None:
    guard, now_ns, past = StormGuard(limits[0]), START_NS, []
    for (pause_ns, count), guard.max_rate_hz in zip(raised, limits, strict=False):
        now_ns += pause_ns
        past.append((now_ns, count))
        is_storm = guard.count(count, now_ns)
        assert is_storm == _more_than(guard.max_rate_hz, SECOND, past)
        if is_storm:
            guard.unmask(now_ns)
            past.clear()


@given(st.lists(st.tuples(st.one_of(st.integers(0, 40_000), st.just(SECOND // 2)), st.integers(1, 200)), max_size=60))
def test_a_limit_beyond_the_bound_of_its_memory_never_masks_too_late(raised: list[tuple[int, int]]) -> None:
    grain_ns = SECOND // ENTRIES_MAX + 1
    limit = ENTRIES_MAX + 1_000
    guard, now_ns, past = StormGuard(limit), START_NS, [(START_NS, ENTRIES_MAX)]
    guard.count(ENTRIES_MAX, START_NS)
    for pause_ns, count in raised:
        now_ns += pause_ns
        past.append((now_ns, count))
        if guard.count(count, now_ns):
            assert _more_than(limit, SECOND + grain_ns, past)
            guard.unmask(now_ns)
            past.clear()
        else:
            assert not _more_than(limit, SECOND, past)


def test_its_memory_is_bounded_by_the_limit_and_by_its_own() -> None:
    for limit in (100, 10_000_000):
        guard = StormGuard(limit)
        for number in range(200_000):
            if guard.count(1, START_NS + number * 3_000):
                guard.unmask(START_NS)
            assert guard.entries <= min(limit, ENTRIES_MAX) + 1
