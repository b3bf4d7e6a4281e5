"""Leases: who keeps the port too long is warned, and loses it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from lpt_service.core.port_report import status_report
from lpt_service.core.requests import SessionState
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import LEASE, REVOKED
from lpt_service.protocol.status import Status
from tests.core.harness import MS, SECOND, Client, Harness

HELD = "lease: held for 60 s while others wait"
IDLE = "lease: idle for 300 s"


def held_lease(**settings: Any) -> Harness:
    return Harness(max_hold_ns=60 * SECOND, hold_warning_ns=5 * SECOND, safe_data=0xAA, **settings)


def idle_lease(**settings: Any) -> Harness:
    return Harness(idle_hold_ns=300 * SECOND, hold_warning_ns=5 * SECOND, safe_data=0xAA, **settings)


def owner_of(harness: Harness) -> Client | None:
    """Asked anew each time, as mypy sees it."""
    return harness.owner


def warnings(harness: Harness) -> list[int]:
    """When somebody was warned."""
    return [now_ns for now_ns, _, key in harness.notified if key[0] == LEASE]


def expires_ns(harness: Harness) -> int | None:
    lease = status_report(harness.driver, harness.now_ns)["lease"]
    expires = lease["expires_ns"]
    assert expires is None or isinstance(expires, int)
    return expires


# Held too long


def test_who_holds_the_port_too_long_loses_it_to_the_longest_waiter() -> None:
    harness = held_lease()
    owner, first, second = harness.clients(3)
    owner.allocate()
    granted_ns = harness.now_ns
    calls = [first.allocate(), second.allocate()]
    owner.write(0, 1)
    assert expires_ns(harness) == granted_ns + 60 * SECOND

    harness.advance(55 * SECOND - 1)
    assert owner.told(LEASE) == []
    harness.advance(1)
    assert owner.told(LEASE) == [(LEASE, ("held", 5000))]
    assert expires_ns(harness) == granted_ns + 60 * SECOND
    harness.advance(5 * SECOND - 1)
    assert owner_of(harness) is owner
    harness.advance(1)
    assert owner_of(harness) is first
    assert [call.is_pending for call in calls] == [False, True]
    assert harness.port.data == 0xAA
    assert owner.told() == [(REVOKED, (HELD,))]
    assert len(warnings(harness)) == 1
    assert [(each.why, each.until_ns) for each in harness.released] == [(HELD, granted_ns + 60 * SECOND)]


def test_who_holds_the_port_keeps_it_while_nobody_waits() -> None:
    harness = held_lease()
    owner = harness.client()
    owner.allocate()
    assert expires_ns(harness) is None
    harness.advance(3600 * SECOND)
    assert owner_of(harness) is owner
    assert harness.notified == []
    assert len(harness.driver.deadlines) == 0


def test_a_waiter_that_comes_late_waits_for_the_length_of_the_warning() -> None:
    harness = held_lease()
    owner, late = harness.clients(2)
    owner.allocate()
    harness.advance(100 * SECOND)
    late.allocate()
    assert owner.told(LEASE) == [(LEASE, ("held", 5000))]
    assert expires_ns(harness) == harness.now_ns + 5 * SECOND
    harness.advance(5 * SECOND - 1)
    assert owner_of(harness) is owner
    harness.advance(1)
    assert owner_of(harness) is late


def test_a_waiter_that_goes_averts_it_and_the_next_one_brings_a_new_warning() -> None:
    harness = held_lease()
    owner, one, two = harness.clients(3)
    owner.allocate()
    call = one.allocate()
    harness.advance(57 * SECOND)
    one.cancel(call)
    assert owner.told(LEASE) == [], "stale"
    harness.advance(100 * SECOND)
    assert owner_of(harness) is owner
    two.allocate()
    assert owner.told(LEASE) == [(LEASE, ("held", 5000))]
    harness.advance(5 * SECOND)
    assert owner_of(harness) is two
    assert len(warnings(harness)) == 2


def test_waiters_that_take_turns_avert_nothing() -> None:
    harness = held_lease()
    owner, *others = harness.clients(200)
    owner.allocate()
    call = others[0].allocate()
    for other, following in pairwise(others):
        if owner_of(harness) is not owner:
            break
        following_call = following.allocate()
        other.cancel(call)
        call = following_call
        harness.advance(SECOND)
    assert [each.until_ns - each.since_ns for each in harness.released] == [60 * SECOND]
    assert len(warnings(harness)) == 1


def test_the_next_owner_has_its_own_time() -> None:
    harness = held_lease()
    owner, first, second = harness.clients(3)
    for client in (owner, first, second):
        client.allocate()
    harness.advance(60 * SECOND)
    assert owner_of(harness) is first
    harness.advance(60 * SECOND - 1)
    assert owner_of(harness) is first
    harness.advance(1)
    assert owner_of(harness) is second
    harness.advance(3600 * SECOND)
    assert owner_of(harness) is second


def test_a_warning_is_for_the_owner_it_was_meant_for() -> None:
    harness = held_lease()
    owner, other = harness.clients(2)
    owner.allocate()
    other.allocate()
    harness.advance(56 * SECOND)
    notices = dict(owner.notices)
    owner.free()
    third = harness.client()
    third.allocate()
    assert owner.told(LEASE) == []
    harness.advance(56 * SECOND)
    owner.notices.update(notices)
    assert owner.told(LEASE) == [], "it is not the one that is near now"
    assert other.told(LEASE) == [(LEASE, ("held", 5000))]


def test_a_lease_that_is_shorter_than_its_warning_lasts_as_long_as_that() -> None:
    harness = Harness(max_hold_ns=2 * SECOND, hold_warning_ns=5 * SECOND)
    owner, other = harness.clients(2)
    owner.allocate()
    other.allocate()
    assert owner.told(LEASE) == [(LEASE, ("held", 5000))]
    harness.advance(5 * SECOND - 1)
    assert owner_of(harness) is owner
    harness.advance(1)
    assert owner_of(harness) is other


def test_without_a_warning_the_port_is_taken_in_a_step_of_its_own() -> None:
    """The waiter that comes too late for the owner is answered as any other."""
    harness = Harness(max_hold_ns=2 * SECOND, hold_warning_ns=0)
    owner, other = harness.clients(2)
    owner.allocate()
    harness.advance(3 * SECOND)
    call = other.allocate()
    assert call.is_pending
    harness.settle()
    assert owner_of(harness) is other
    assert call.output is not None
    assert warnings(harness) == []
    assert owner.told(REVOKED) == [(REVOKED, ("lease: held for 2 s while others wait",))]


# Idle


def test_who_does_nothing_loses_the_port_though_nobody_waits() -> None:
    harness = idle_lease()
    owner = harness.client()
    owner.allocate()
    harness.advance(295 * SECOND)
    assert owner.told(LEASE) == [(LEASE, ("idle", 5000))]
    assert expires_ns(harness) == harness.now_ns + 5 * SECOND
    harness.advance(5 * SECOND - 1)
    assert owner_of(harness) is owner
    harness.advance(1)
    assert owner_of(harness) is None
    assert owner.told() == [(REVOKED, (IDLE,))]
    assert harness.port.data == 0xAA


@pytest.mark.parametrize("code", [Ioctl.WRITE_PORT_UCHAR, Ioctl.READ_PORT_UCHAR, 0xBAD], ids=hex)
def test_any_control_request_of_the_owner_is_a_sign_of_life(code: int) -> None:
    """Also one that is refused."""
    harness = idle_lease()
    owner = harness.client()
    owner.allocate()
    for _ in range(10):
        harness.advance(294 * SECOND)
        owner.send(code, bytes(2), 1)
    assert warnings(harness) == []
    harness.advance(297 * SECOND)
    owner.send(code, bytes(2), 1)
    assert owner.told(LEASE) == [], "averted"
    assert expires_ns(harness) == harness.now_ns + 300 * SECOND
    harness.advance(300 * SECOND - 1)
    assert owner_of(harness) is owner
    assert owner.told(LEASE) == [(LEASE, ("idle", 5000))]
    harness.advance(1)
    assert owner_of(harness) is None
    assert len(warnings(harness)) == 2


def test_nobody_s_requests_are_noted_but_the_owner_s() -> None:
    harness = idle_lease()
    owner = harness.client()

    def watched(harness: Harness) -> SessionState | None:
        return harness.driver.leases.watched

    assert watched(harness) is None
    owner.allocate()
    assert watched(harness) is owner.state
    owner.free()
    assert watched(harness) is None
    harness = held_lease()
    harness.client().allocate()
    assert watched(harness) is None


def test_what_others_do_is_none() -> None:
    harness = idle_lease()
    owner, other = harness.clients(2)
    owner.allocate()
    for _ in range(300):
        harness.advance(SECOND)
        other.read(0)
    assert owner_of(harness) is None


def test_a_job_is_activity_until_its_end() -> None:
    harness = Harness(idle_hold_ns=4 * SECOND, hold_warning_ns=SECOND)
    owner = harness.client()
    owner.allocate()
    owner.pulse(1, 2, 10_000_000)
    harness.advance(9 * SECOND)
    assert expires_ns(harness) == harness.now_ns + 4 * SECOND
    harness.advance(1 * SECOND)
    assert harness.job is None
    assert warnings(harness) == []
    harness.advance(4 * SECOND - 1)
    assert len(warnings(harness)) == 1
    assert owner_of(harness) is owner
    harness.advance(1)
    assert owner_of(harness) is None


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_job_that_was_over_before_anybody_looked_is_activity_too(is_cut: bool) -> None:
    harness = Harness(idle_hold_ns=4 * SECOND, hold_warning_ns=SECOND)
    owner = harness.client()
    owner.allocate()
    pulse = owner.pulse(1, 2, 2_000_000 if not is_cut else 2_500_000)
    harness.advance(2 * SECOND)
    if is_cut:
        owner.cancel(pulse)
    ended_ns = harness.now_ns
    harness.advance(3 * SECOND - 1)
    assert warnings(harness) == []
    harness.advance(1 * SECOND + 1)
    assert [each.until_ns for each in harness.released] == [ended_ns + 4 * SECOND]


def test_the_warning_is_at_most_half_of_the_idle_time() -> None:
    harness = Harness(idle_hold_ns=4 * SECOND, hold_warning_ns=5 * SECOND)
    owner = harness.client()
    owner.allocate()
    harness.advance(2 * SECOND - 1)
    assert warnings(harness) == []
    harness.advance(1)
    assert owner.told(LEASE) == [(LEASE, ("idle", 2000))]


def test_a_busy_owner_costs_no_deadline_each_time() -> None:
    harness = idle_lease(max_hold_ns=600 * SECOND)
    owner, other = harness.clients(2)
    for _ in range(100):
        owner.allocate()
        other.allocate()
        owner.write(0, 1)
        owner.free()
        other.free()
        harness.advance(MS)
    harness.advance(SECOND)
    assert len(harness.driver.deadlines) <= 2


def test_with_both_leases_there_is_a_warning_for_each() -> None:
    harness = idle_lease(max_hold_ns=299 * SECOND)
    owner, other = harness.clients(2)
    owner.allocate()
    other.allocate()
    harness.advance(298 * SECOND)
    assert sorted(owner.told(LEASE)) == [(LEASE, ("held", 5000)), (LEASE, ("idle", 5000))]
    assert expires_ns(harness) == harness.now_ns + SECOND
    harness.advance(SECOND)
    assert owner_of(harness) is other


# How it is taken


def test_the_job_is_cut_properly_and_what_waits_behind_it_is_refused() -> None:
    harness = held_lease()
    owner, other = harness.clients(2)
    owner.allocate()
    other.allocate()
    harness.advance(59 * SECOND)
    pulse = owner.pulse(1, 2, 10_000_000)
    behind = [owner.write(0, 3), owner.pulse(4, 5, 10_000_000), owner.read(0), owner.free()]
    harness.advance(SECOND)
    assert [call.status for call in (pulse, *behind)] == [Status.STATUS_ACCESS_DENIED] * 5
    assert pulse.error is not None
    assert HELD in pulse.error.detail
    assert harness.port.written("data") == [1, 2, 0xAA]
    assert owner_of(harness) is other
    assert harness.job is None
    assert [(each.written, each.why) for each in harness.released] == [(2, HELD)]


def test_late_writes_of_a_former_owner_are_refused() -> None:
    """With the option `grant` also when it meanwhile owns again."""
    harness = held_lease()
    owner, other = harness.clients(2)
    grant = owner.allocate().value
    other.allocate()
    harness.advance(60 * SECOND)
    assert owner.write(0, 1).status == Status.STATUS_ACCESS_DENIED
    assert owner.write(0, 1, grant=grant).status == Status.STATUS_ACCESS_DENIED
    other.free()
    again = owner.allocate().value
    assert owner.write(0, 1, grant=grant).status == Status.STATUS_ACCESS_DENIED
    assert harness.port.data == 0xAA
    assert owner.write(0, 1, grant=again).status == 0


def test_a_port_that_goes_when_a_lease_ends_is_removed() -> None:
    harness = held_lease()
    owner, other = harness.clients(2)
    owner.allocate()
    call = other.allocate()
    harness.port.go()
    harness.advance(60 * SECOND)
    assert harness.gone == "unplugged"
    assert call.status == Status.STATUS_DELETE_PENDING
    assert [each.why for each in harness.released] == [HELD]
