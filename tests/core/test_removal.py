"""Semantic 9: a port that goes away, at whatever access that is noticed; and a daemon that stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lpt_service.core.function_driver import PortState
from lpt_service.protocol.ioctl import PULSE_WIDTH_MAX_US, Ioctl
from lpt_service.protocol.messages import DISCONNECTED, KIND_EVENT, KIND_STOPPED, REVOKED
from lpt_service.protocol.status import Status
from tests.core.fakes import FakePort
from tests.core.harness import MS, SECOND, Call, Client, Harness, routine

DATA = 0

Step = Callable[[Harness, Client, Client], object]
# Steps whose first access finds that the port is gone, and what is pending then.
STEPS: dict[str, Step] = {
    "write": lambda harness, owner, waiter: owner.write(DATA, 1),
    "read": lambda harness, owner, waiter: waiter.read(DATA),
    "frob": lambda harness, owner, waiter: owner.send(Ioctl.FROB_CONTROL, bytes(2), 1),
    "pulse": lambda harness, owner, waiter: owner.pulse(1, 2, 1000),
    "free": lambda harness, owner, waiter: owner.free(),
    "hand-over": lambda harness, owner, waiter: owner.die(),
    "collect": lambda harness, owner, waiter: harness.driver.collect_interrupts(harness.now_ns),
    "connect": lambda harness, owner, waiter: waiter.connect(routine(isr=9)),
    "disconnect": lambda harness, owner, waiter: waiter.disconnect(routine(isr=1)),
}


@pytest.mark.parametrize("step", STEPS)
def test_semantic_09_a_port_that_goes_away_at_any_access(step: str) -> None:
    """Semantic 9: waiting requests end with DELETE_PENDING, registrations with *stopped*, new requests likewise."""
    harness = Harness(safe_data=0xAA)
    owner, waiter, last = harness.clients(3)
    owner.allocate()
    waiting = [waiter.allocate(timeout_ms=1000), last.allocate()]
    waiter.connect(routine(isr=1))
    harness.interrupt(2)
    harness.port.go()

    call = STEPS[step](harness, owner, waiter)
    harness.carry_out()

    if isinstance(call, Call):
        assert call.status == Status.STATUS_DELETE_PENDING
    assert [each.status for each in waiting] == [Status.STATUS_DELETE_PENDING] * 2
    assert_is_removed(harness)
    assert [(frame[2], frame[5]) for frame in waiter.heard()] == [(2, KIND_EVENT), (0, KIND_STOPPED)]
    assert waiter.passages[0].is_over
    is_told = owner.is_alive and step != "free"
    assert owner.told(REVOKED) == ([(REVOKED, ("port removed: unplugged",))] if is_told else [])
    assert waiter.told() == [(DISCONNECTED, (routine(isr=1), "port removed: unplugged"))]


def assert_is_removed(harness: Harness) -> None:
    """The port is being removed; then it is gone."""
    driver = harness.driver
    assert harness.gone == "unplugged"
    assert driver.state is PortState.REMOVING
    assert harness.owner is None
    assert driver.ownership.waiting == 0
    assert len(driver.registry) == 0
    assert not harness.is_watched
    client = harness.client()
    assert client.allocate().status == Status.STATUS_DELETE_PENDING
    harness.advance(100 * SECOND)
    driver.finish_removal(harness.now_ns)
    assert client.allocate().status == Status.STATUS_DEVICE_NOT_CONNECTED
    assert client.send(0x16FFFC).status == Status.STATUS_INVALID_PARAMETER
    client.die()


@pytest.mark.parametrize("how", ["second edge", "cancel", "die", "begin behind"])
def test_semantic_09_a_port_that_goes_away_in_a_pulse(how: str) -> None:
    """Semantic 9: in a pulse's second edge, at its cut, and at what waited behind it."""
    harness = Harness(safe_data=0xAA)
    owner, waiter = harness.clients(2)
    owner.allocate()
    waiting = waiter.allocate()
    pulse = owner.pulse(1, 2, 1000)
    behind = [owner.write(DATA, 3), owner.pulse(1, 2, PULSE_WIDTH_MAX_US), owner.free()]
    harness.port.go()
    if how == "begin behind":
        assert harness.port.gone_at is not None
        harness.port.gone_at += 1
    if how == "cancel":
        owner.cancel(pulse)
    elif how == "die":
        owner.die()
    else:
        harness.advance(1 * MS)
    ends = [call.status for call in (*behind, waiting)]
    assert ends == [Status.STATUS_DELETE_PENDING] * 4
    assert pulse.status == (0 if how == "begin behind" else Status.STATUS_DELETE_PENDING)
    assert harness.job is None
    assert_is_removed(harness)


def test_semantic_09_a_port_that_goes_away_at_a_deadline() -> None:
    harness = Harness(max_interrupt_rate_hz=1)
    client, owner = harness.clients(2)
    client.connect(routine(isr=1))
    owner.allocate()
    waiting = client.allocate(timeout_ms=60_000)
    harness.interrupt(2)
    harness.port.go()
    harness.advance(SECOND)
    assert waiting.status == Status.STATUS_DELETE_PENDING
    assert_is_removed(harness)


@pytest.mark.parametrize("is_vacant", [False, True])
def test_semantic_09_a_port_that_is_gone_before_anybody_is_granted(is_vacant: bool) -> None:
    harness = Harness(safe_data=0xAA)
    owner = harness.client()
    owner.allocate()
    harness.port.fail("write_data")
    owner.die()
    harness.port.go()
    client = harness.client()
    call = client.try_allocate() if is_vacant else client.allocate()
    assert call.status == Status.STATUS_DELETE_PENDING
    assert harness.owner is None
    assert harness.gone is not None


def test_a_port_is_removed_once() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    for _ in range(2):
        harness.driver.begin_removal("by hand", harness.now_ns)
        harness.carry_out()
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert harness.gone == "by hand"
    assert len(owner.told(REVOKED)) == 1


def test_a_port_that_is_gone_at_the_daemons_end_hinders_nothing() -> None:
    harness = Harness(safe_data=0xAA)
    owner, client = harness.clients(2)
    owner.allocate()
    pulse = owner.pulse(1, 2, 1000)
    client.connect(routine(isr=1))
    harness.port.go()
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert pulse.status == Status.STATUS_CANCELLED
    assert [frame[5] for frame in client.heard()] == [KIND_STOPPED]


def test_a_port_that_is_gone_at_the_daemons_start_is_not_served() -> None:
    harness = Harness()
    harness.port.go()
    harness.driver.attach(harness.port, harness.now_ns)
    assert harness.driver.state is PortState.REMOVING


def test_nobody_asks_a_port_that_is_gone_for_interrupts() -> None:
    harness = Harness()
    harness.port.go()
    harness.client().connect(routine(isr=1))
    accesses = harness.port.accesses
    harness.driver.collect_interrupts(harness.now_ns)
    assert harness.port.accesses == accesses


ISR, CHECK, BOTH = routine(isr=1), routine(deferred=2), routine(isr=3, deferred=4)


@pytest.mark.parametrize("structures", [(ISR,), (CHECK,), (BOTH,), (ISR, CHECK, BOTH)])
def test_semantic_09_every_registration_that_ends_is_told_of(structures: tuple[bytes, ...]) -> None:
    """Semantic 9: whatever routines it has."""
    harness = Harness()
    client, other = harness.clients(2)
    for structure in structures:
        client.connect(structure)
    harness.port.go()
    harness.driver.check_present(harness.now_ns)
    harness.carry_out()
    assert client.told() == [(DISCONNECTED, (structure, "port removed: unplugged")) for structure in structures]
    assert other.told() == []


def test_a_registration_that_was_connected_again_by_then_is_not_told_of() -> None:
    harness = Harness()
    client = harness.client()
    client.connect(CHECK)
    client.connect(ISR)
    harness.port.go()
    harness.driver.check_present(harness.now_ns)
    harness.carry_out()
    harness.driver.finish_removal(harness.now_ns)
    harness.driver.attach(FakePort(), harness.now_ns)
    harness.carry_out()
    assert client.connect(CHECK).status == 0
    assert client.told() == [(DISCONNECTED, (ISR, "port removed: unplugged"))]


def test_nobody_is_told_that_a_registration_has_ended_when_the_daemon_stops() -> None:
    """`closing` says it all."""
    harness = Harness()
    client = harness.client()
    client.connect(CHECK)
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert client.told() == []
    assert len(harness.driver.registry) == 0
