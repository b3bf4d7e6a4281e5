"""Taking a port from its owner, and the accounts of ownerships."""

from __future__ import annotations

import pytest

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import (
    REVOKED,
)
from lpt_service.protocol.status import Status
from tests.core.harness import LAST_GRANT, MS, Client, Harness, routine

BECAUSE = "administrator: because"


def owner_of(harness: Harness) -> Client | None:
    """Asked anew each time, as mypy sees it."""
    return harness.owner


# Revoking


def test_the_owner_is_told_and_the_longest_waiter_is_next() -> None:
    harness = Harness(safe_data=0xAA)
    owner, first, second = harness.clients(3)
    owner.allocate()
    calls = [first.allocate(), second.allocate()]
    owner.write(0, 1)
    assert harness.driver.revoke(BECAUSE, harness.now_ns) == (owner.state, LAST_GRANT + 1)
    harness.carry_out()
    assert owner.told(REVOKED) == [(REVOKED, (BECAUSE,))]
    assert owner_of(harness) is first
    assert [call.is_pending for call in calls] == [False, True]
    assert harness.port.data == 0xAA
    assert [(each.grant, each.why, each.written) for each in harness.released] == [(LAST_GRANT + 1, BECAUSE, 1)]
    assert harness.driver.ownership.forced_releases == 1


def test_nobody_loses_a_port_that_nobody_owns() -> None:
    harness = Harness()
    assert harness.driver.revoke(BECAUSE, harness.now_ns) is None
    assert harness.driver.take_effects() == []


def test_a_job_is_cut_and_what_waits_behind_it_ends() -> None:
    harness = Harness(safe_data=0xAA)
    owner, other = harness.clients(2)
    owner.allocate()
    pulse = owner.pulse(1, 2, 10_000)
    behind = [owner.read(0), owner.pulse(3, 4, 10_000), owner.free()]
    other.allocate()
    harness.revoke()
    assert [call.status for call in (pulse, *behind)] == [Status.STATUS_ACCESS_DENIED] * 4
    assert pulse.error is not None
    assert BECAUSE in pulse.error.detail
    assert harness.port.written("data") == [1, 2, 0xAA]
    assert not owner.state.pending
    assert owner_of(harness) is other
    assert owner.free().status == Status.STATUS_INVALID_DEVICE_STATE


def test_it_may_allocate_again_at_once() -> None:
    harness = Harness()
    owner = harness.client()
    grant = owner.allocate().value
    harness.revoke()
    assert owner.write(0, 1).status == Status.STATUS_ACCESS_DENIED
    assert owner.allocate().value == grant + 1
    assert owner.write(0, 1, grant=grant).status == Status.STATUS_ACCESS_DENIED


def test_revoked_is_not_sent_after_a_newer_grant() -> None:
    """The answer with the grant is sent before any notice."""
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    harness.revoke()
    owner.allocate()
    assert owner.told(REVOKED) == []
    harness.revoke("administrator: again")
    assert owner.told(REVOKED) == [(REVOKED, ("administrator: again",))]


@pytest.mark.parametrize("after", [0, 1])
def test_a_port_that_goes_meanwhile_is_removed(after: int) -> None:
    """In the second edge of the pulse, or when it is made safe."""
    harness = Harness(safe_data=0xAA)
    owner, other = harness.clients(2)
    owner.allocate()
    pulse = owner.pulse(1, 2, 10_000)
    waiting = other.allocate()
    harness.port.gone_at = harness.port.accesses + 1 + after
    assert harness.revoke() is owner
    assert harness.gone == "unplugged"
    assert waiting.status == Status.STATUS_DELETE_PENDING
    why = BECAUSE if after else "port removed: unplugged"
    assert pulse.status == (Status.STATUS_ACCESS_DENIED if after else Status.STATUS_DELETE_PENDING)
    assert owner.told(REVOKED) == [(REVOKED, (why,))]
    assert [each.why for each in harness.released] == [why]


# Accounts of ownerships


def test_every_ownership_has_one_account() -> None:
    harness = Harness(safe_data=0xAA)
    listener, owner, other = harness.clients(3)
    listener.connect(routine(isr=1))
    harness.interrupt(7)
    owner.allocate()
    began_ns = harness.now_ns
    owner.write(0, 1)
    owner.write(2, 4)
    owner.send(Ioctl.FROB_CONTROL, bytes(2), 1)
    owner.pulse(1, 2, 1000)
    harness.interrupt(3)
    harness.advance(MS)
    owner.free()
    harness.interrupt(5)
    other.try_allocate()
    other.die()
    accounts = [(each.session, each.grant, each.why, each.written, each.interrupts) for each in harness.released]
    assert accounts == [
        (owner.state, LAST_GRANT + 1, "freed", 3, 3),
        (other.state, LAST_GRANT + 2, "session ended", 0, 0),
    ]
    assert [(each.since_ns, each.until_ns) for each in harness.released] == [
        (began_ns, began_ns + MS),
        (began_ns + MS, began_ns + MS),
    ]


def test_a_write_that_fails_is_not_counted() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    harness.port.fail("write_data", after=1)
    owner.pulse(1, 2, 1000)
    harness.advance(MS)
    owner.write(0, 1)
    harness.revoke()
    assert [each.written for each in harness.released] == [1]


@pytest.mark.parametrize(("how", "why"), [("stop", "daemon stopping"), ("remove", "port removed: by hand")])
def test_the_account_says_why_the_port_ended(how: str, why: str) -> None:
    harness = Harness()
    harness.client().allocate()
    if how == "stop":
        harness.driver.stop(harness.now_ns)
    else:
        harness.driver.begin_removal("by hand", harness.now_ns)
    harness.carry_out()
    assert [each.why for each in harness.released] == [why]
