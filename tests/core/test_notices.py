"""Notices are state, not a queue: what is sent is the latest, and a stale one is not sent."""

from __future__ import annotations

from lpt_service.protocol.messages import PORT_CHECK, QUEUED, REVOKED, WAITERS
from tests.core.harness import SECOND, Harness, routine


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
