"""Notices are state, not a queue: what is sent is the latest, seldom enough, and a stale one is not sent."""

from __future__ import annotations

from itertools import pairwise

from lpt_service.core.arbiter import NOTICE_INTERVAL_NS
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import PORT_CHECK, QUEUED, REVOKED, WAITERS
from tests.core.harness import MS, SECOND, Harness, routine


def test_queued_shows_the_latest_place_and_not_a_grant_that_has_come() -> None:
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    one.allocate()
    call = two.allocate()
    harness.advance(SECOND)
    one.die()
    harness.advance(SECOND)
    assert two.told() == [(QUEUED, (call.msgid, 1))]

    again = one.harness.client()
    again.allocate()
    owner.free()
    assert harness.owner is two
    assert two.told(QUEUED) == []


def test_queued_is_stale_once_the_request_is_cancelled() -> None:
    harness = Harness()
    owner, one = harness.clients(2)
    owner.allocate()
    one.cancel(one.allocate())
    assert one.told() == []


def test_a_request_has_one_queued_notice_and_another_request_its_own() -> None:
    harness = Harness()
    owner, one = harness.clients(2)
    owner.allocate()
    first = one.allocate()
    one.cancel(first)
    second = one.allocate()
    assert list(one.notices) == [(QUEUED, first.msgid), (QUEUED, second.msgid)]
    assert one.told() == [(QUEUED, (second.msgid, 1))]


def test_waiters_shows_the_latest_number_and_is_for_the_owner_it_was_meant_for() -> None:
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    one.allocate()
    harness.settle()
    two.allocate()
    assert owner.told() == [(WAITERS, (2,))]
    harness.advance(SECOND)
    owner.free()
    assert owner.told() == []


def test_waiters_is_told_again_if_the_number_is_not_what_was_told() -> None:
    """What counts is the number that was sent, which may be later than the round that asked for it."""
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    one.allocate()
    harness.settle()
    two.allocate(timeout_ms=1)
    assert owner.told() == [(WAITERS, (2,))]
    harness.advance(SECOND)
    assert owner.told() == [(WAITERS, (1,))]


def test_waiters_is_stale_once_the_number_is_what_was_told() -> None:
    harness = Harness()
    owner, one = harness.clients(2)
    owner.allocate()
    one.allocate()
    harness.settle()
    one.die()
    assert owner.told() == []


def test_waiters_is_stale_even_if_the_same_session_owns_again() -> None:
    harness = Harness()
    owner, one = harness.clients(2)
    owner.allocate()
    one.allocate()
    harness.settle()
    owner.free()
    one.free()
    owner.allocate()
    assert owner.told() == []


def test_port_check_is_one_a_registration() -> None:
    harness = Harness()
    client, owner = harness.clients(2)
    client.connect(routine(deferred=1))
    client.connect(routine(deferred=1, deferred_context=2))
    for _ in range(3):
        owner.allocate()
        owner.free()
    assert client.told() == [(PORT_CHECK, (1, 0)), (PORT_CHECK, (1, 2))]


def test_revoked_is_never_stale() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    harness.driver.begin_removal("unplugged", harness.now_ns)
    harness.carry_out()
    assert owner.told() == [(REVOKED, ("port removed: unplugged",))]


# What the queue tells


def test_a_waiter_is_told_its_place_at_once_and_the_owner_how_many_wait() -> None:
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    calls = [one.allocate(), two.allocate()]
    assert one.told() == [(QUEUED, (calls[0].msgid, 1))]
    assert two.told() == [(QUEUED, (calls[1].msgid, 2))]
    harness.settle()
    assert owner.told() == [(WAITERS, (2,))]
    assert harness.wakes > 0
    harness.advance(SECOND)
    assert owner.told() == one.told() == two.told() == [], "nothing has changed"


def test_a_place_that_changes_is_told_at_most_ten_times_a_second() -> None:
    harness = Harness()
    owner, *waiters = harness.clients(8)
    owner.allocate()
    last = [waiter.allocate() for waiter in waiters][-1]
    harness.settle()
    places: list[tuple[int, int]] = []
    for waiter in waiters[:-1]:
        waiter.die()
        harness.advance(30 * MS)
        places += [(harness.now_ns, params[1]) for _, params in waiters[-1].told(QUEUED) if params[0] == last.msgid]
    harness.advance(SECOND)
    places += [(harness.now_ns, params[1]) for _, params in waiters[-1].told(QUEUED)]

    times = [at for at, client, key in harness.notified if client is waiters[-1]]
    assert all(later - earlier >= NOTICE_INTERVAL_NS for earlier, later in pairwise(times))
    assert [place for _, place in places] == sorted({place for _, place in places}, reverse=True)
    assert places[-1][1] == 1
    assert 3 <= len(places) <= 4


def test_the_owner_hears_of_waiters_at_most_ten_times_a_second() -> None:
    harness = Harness()
    owner, *others = harness.clients(30)
    owner.allocate()
    for other in others:
        other.allocate()
        harness.advance(20 * MS)
    times = [at for at, client, _ in harness.notified if client is owner]
    assert 5 <= len(times) <= 7
    assert all(later - earlier >= NOTICE_INTERVAL_NS for earlier, later in pairwise(times))
    harness.advance(SECOND)
    assert owner.told() == [(WAITERS, (29,))]


def test_a_new_owner_is_told_of_those_that_wait_and_not_of_none() -> None:
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    one.allocate()
    two.allocate()
    harness.settle()
    owner.free()
    harness.advance(SECOND)
    assert one.told(WAITERS) == [(WAITERS, (1,))]
    one.free()
    harness.advance(SECOND)
    assert two.told() == []
    assert owner.told() == []


def test_a_port_alone_tells_nothing() -> None:
    harness = Harness()
    client = harness.client()
    for _ in range(3):
        client.allocate()
        client.free()
    harness.advance(SECOND)
    assert client.told() == []
    assert client.send(Ioctl.QUERY_NUM_WAITERS, client.handle, 4).value == 0


def test_a_dead_session_is_not_thought_of_any_more() -> None:
    harness = Harness()
    owner, waiter = harness.clients(2)
    owner.allocate()
    waiter.allocate()
    waiter.die()
    owner.die()
    harness.advance(10 * SECOND)
    assert len(harness.driver.deadlines) == 0


def test_who_was_told_its_first_place_just_now_waits_for_the_next_round() -> None:
    harness = Harness()
    owner, first, second = harness.clients(3)
    owner.allocate()
    first.allocate()
    harness.settle()
    harness.advance(50 * MS)
    began_ns = harness.now_ns
    call = second.allocate()
    first.die()
    assert second.told() == [(QUEUED, (call.msgid, 2))]
    harness.advance(50 * MS)  # a round, in which it is told nothing
    assert second.told() == []
    harness.advance(SECOND)
    assert second.told() == [(QUEUED, (call.msgid, 1))]
    assert [at for at, client, key in harness.notified if client is second] == [began_ns, began_ns + 150 * MS]
