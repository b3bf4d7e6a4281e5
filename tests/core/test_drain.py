"""Draining: nobody new is granted, nothing that is held or waits is lost."""

from __future__ import annotations

from lpt_service.core.function_driver import PortState
from lpt_service.protocol.messages import PORT_CHECK
from lpt_service.protocol.status import Status
from tests.core.harness import Client, Harness, routine


def owner_of(harness: Harness) -> Client | None:
    """Asked anew each time, as mypy sees it."""
    return harness.owner


def test_the_owner_goes_on_and_those_who_wait_keep_their_places() -> None:
    harness = Harness()
    owner, first, second, admin = harness.clients(4)
    owner.allocate()
    one = first.allocate()
    harness.drain(admin, is_on=True)
    two = second.allocate()
    owner.write(0, 5)
    owner.free()
    assert owner_of(harness) is None
    assert one.is_pending
    assert two.is_pending
    assert (owner.try_allocate().output or b"\xff")[0] == 0
    assert owner.allocate(timeout_ms=0).status == Status.STATUS_IO_TIMEOUT
    harness.drain(admin, is_on=False)
    assert owner_of(harness) is first
    assert two.is_pending


def test_a_free_port_is_granted_to_nobody() -> None:
    harness = Harness()
    client, admin = harness.clients(2)
    harness.drain(admin, is_on=True)
    waiting = client.allocate()
    assert waiting.is_pending
    harness.drain(admin, is_on=False)
    assert owner_of(harness) is client


def test_it_ends_with_its_session_and_lasts_as_long_as_the_last_one() -> None:
    harness = Harness()
    client, one, two = harness.clients(3)
    harness.drain(one, is_on=True)
    harness.drain(two, is_on=True)
    client.allocate()
    one.die()
    assert owner_of(harness) is None
    two.die()
    assert owner_of(harness) is client


def test_an_owner_that_dies_leaves_a_safe_port() -> None:
    harness = Harness(safe_data=0xAA)
    owner, waiter, admin = harness.clients(3)
    owner.allocate()
    owner.write(0, 1)
    waiter.allocate()
    harness.drain(admin, is_on=True)
    owner.die()
    assert owner_of(harness) is None
    assert harness.port.data == 0xAA


def test_no_deferred_check_while_somebody_waits() -> None:
    """A port that is being drained is vacant, not idle."""
    harness = Harness()
    owner, waiter, listener, admin = harness.clients(4)
    listener.connect(routine(deferred=1))
    owner.allocate()
    waiter.allocate()
    harness.drain(admin, is_on=True)
    owner.free()
    assert [key for _, _, key in harness.notified if key[0] == PORT_CHECK] == []


def test_a_port_that_goes_when_draining_ends_is_removed() -> None:
    harness = Harness(safe_data=1)
    owner, waiter, admin = harness.clients(3)
    owner.allocate()
    call = waiter.allocate()
    harness.drain(admin, is_on=True)
    owner.free()
    harness.driver.arbiter.is_safe = False
    harness.port.go()
    harness.drain(admin, is_on=False)
    assert harness.driver.state is PortState.REMOVING
    assert call.status == Status.STATUS_DELETE_PENDING
