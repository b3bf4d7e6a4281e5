"""The interrupt source: storms, ports that fail, and routines that live in the daemon."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lpt_service.core.requests import SessionState
from lpt_service.protocol.messages import KIND_EVENT, KIND_MASKED, KIND_STOPPED, KIND_UNMASKED
from lpt_service.protocol.status import Status
from tests.core.fakes import FakePort
from tests.core.harness import SECOND, Client, Harness, routine


def kinds(client: Client) -> list[tuple[int, int]]:
    """What the client heard: (kind, count) of each frame."""
    return [(frame[5], frame[2]) for frame in client.heard()]


# Semantic 8


def test_semantic_08_a_storm_masks_the_device_and_connecting_does_not_unmask() -> None:
    """Semantic 8: masked with a mark, for a pause that doubles; connecting does not unmask."""
    harness = Harness(max_interrupt_rate_hz=100)
    client, late = harness.clients(2)
    client.connect(routine(isr=1))
    harness.interrupt(101)
    assert not harness.is_listening()
    late.connect(routine(isr=1))
    assert not harness.is_listening()

    harness.advance(SECOND - 1)
    assert not harness.is_listening()
    harness.advance(1)
    assert harness.is_listening()
    harness.interrupt(101)
    harness.advance(2 * SECOND - 1)
    assert not harness.is_listening()
    harness.advance(1)

    first = [(KIND_EVENT, 101), (KIND_MASKED, 0)]
    assert kinds(client) == [*first, (KIND_UNMASKED, 0), *first, (KIND_UNMASKED, 0)]
    assert kinds(late) == [(KIND_UNMASKED, 0), *first, (KIND_UNMASKED, 0)]


def test_semantic_08_connecting_anew_does_not_unmask() -> None:
    harness = Harness(max_interrupt_rate_hz=10)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt(11)
    client.disconnect(routine(isr=1))
    client.connect(routine(isr=1))
    assert not harness.is_listening()
    harness.advance(SECOND)
    assert harness.is_listening()
    assert kinds(client) == [(KIND_UNMASKED, 0)]


def test_semantic_08_what_comes_while_masked_is_not_generated() -> None:
    harness = Harness(FakePort(can_disable_interrupt=False), max_interrupt_rate_hz=100)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt(101)
    harness.interrupt(1000)
    harness.advance(SECOND)
    harness.interrupt(1)
    assert harness.log.next_seq == 102
    assert harness.driver.registry.strays == 1000
    assert kinds(client) == [(KIND_EVENT, 101), (KIND_MASKED, 0), (KIND_UNMASKED, 0), (KIND_EVENT, 1)]


def test_semantic_08_turning_the_gate_off_leaves_existing_registrations() -> None:
    """Semantic 8: turning the gate off (3) leaves existing registrations."""
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    harness.driver.reconfigure(replace(harness.driver.settings, enable_connect_interrupt=False))
    harness.interrupt(2)
    assert kinds(client) == [(KIND_EVENT, 2)]


@pytest.mark.parametrize("is_collected", [True, False])
def test_nothing_follows_the_mark_stopped_when_a_masked_port_stops(is_collected: bool) -> None:
    harness = Harness(max_interrupt_rate_hz=10)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.port.raise_interrupts(11)
    if is_collected:
        harness.collect()
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    harness.advance(10 * SECOND)
    assert kinds(client) == [(KIND_EVENT, 11), (KIND_MASKED, 0), (KIND_STOPPED, 0)]
    assert harness.log.end == 4


def test_a_pause_ends_though_nobody_listens_and_the_device_stays_quiet() -> None:
    harness = Harness(max_interrupt_rate_hz=10)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt(11)
    client.disconnect(routine(isr=1))
    harness.advance(SECOND)
    assert not harness.driver.registry.is_masked
    assert not harness.is_listening()


# Ports that fail


def test_a_failing_device_is_not_connected_and_can_be_later() -> None:
    """If the device's interrupt cannot be enabled, nothing is connected, watched or written down."""
    harness = Harness()
    client = harness.client()
    harness.port.fail("set_interrupt_enable")
    assert client.connect(routine(isr=1)).status == Status.STATUS_IO_DEVICE_ERROR
    assert not harness.is_listening()
    assert len(harness.driver.registry) == 0
    assert harness.log.end == 0
    harness.port.recover()
    assert client.connect(routine(isr=1)).status == 0
    assert harness.is_listening()


def test_a_device_that_cannot_be_quieted_is_not_listened_to_any_more() -> None:
    """IoDisconnectInterrupt returns nothing: it cannot fail."""
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt(2)
    harness.port.fail("set_interrupt_enable")
    harness.port.fail("take_interrupts", after=1)
    fence = client.disconnect(routine(isr=1))
    client.hear()
    assert fence.value == 2
    assert not harness.is_watched
    assert not harness.driver.registry.is_heard


def test_a_failing_linger_end_hurts_nobody() -> None:
    harness = Harness(interrupt_linger_ns=SECOND)
    client = harness.client()
    client.connect(routine(isr=1))
    client.die()
    harness.port.fail("set_interrupt_enable", "take_interrupts")
    harness.advance(SECOND)
    assert not harness.is_watched
    assert harness.gone is None


def test_registers_that_cannot_be_read_do_not_cost_an_interrupt() -> None:
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    harness.port.fail("read_status")
    harness.interrupt(3)
    assert client.heard() == [(0, harness.now_ns, 3, 0, 0, KIND_EVENT)]


def test_an_entry_carries_time_and_registers() -> None:
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    harness.advance(5)
    harness.port.status = 0x5F
    harness.interrupt(3)
    assert client.heard() == [(0, harness.now_ns, 3, 0x5F, 0x1C, KIND_EVENT)]


@pytest.mark.parametrize("failing", ["take_interrupts", "set_interrupt_enable"])
def test_a_port_whose_interrupts_cannot_be_taken_is_removed(failing: str) -> None:
    """Where no request could end with the error, the invariant could not be kept otherwise."""
    harness = Harness(max_interrupt_rate_hz=10)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt(11)
    harness.port.fail(failing)
    harness.advance(SECOND)  # the end of the pause
    assert harness.gone is not None
    assert kinds(client)[-1] == (KIND_STOPPED, 0)


# Routines that live in the daemon


def test_a_resident_routine_is_called_with_the_time_in_the_order_of_connection() -> None:
    harness = Harness()
    registry, calls = harness.driver.registry, list[tuple[int, int]]()
    session = SessionState(99, context=99)

    def connect(number: int) -> None:
        structure = routine(isr=(1 << 63) + number)
        registry.connect(session, structure, harness.now_ns, lambda now_ns: calls.append((number, now_ns)))

    connect(1)
    connect(2)
    harness.carry_out()
    harness.interrupt(3)
    assert calls == [(1, harness.now_ns), (2, harness.now_ns)]
    registry.disconnect(session, routine(isr=(1 << 63) + 1), harness.now_ns)
    harness.interrupt()
    assert calls[2:] == [(2, harness.now_ns)]


def test_a_resident_routine_that_an_earlier_one_disconnects_is_not_called() -> None:
    harness = Harness()
    registry, calls = harness.driver.registry, list[int]()
    session = SessionState(99, context=99)
    first, second = routine(isr=(1 << 63) + 1), routine(isr=(1 << 63) + 2)

    def disconnect_second(now_ns: int) -> None:
        registry.disconnect(session, second, now_ns)

    registry.connect(session, first, harness.now_ns, disconnect_second)
    registry.connect(session, second, harness.now_ns, calls.append)
    harness.carry_out()
    harness.interrupt()
    assert calls == []


def test_an_interrupt_that_comes_during_a_routine_is_taken_after_it() -> None:
    """An interrupt routine never runs beside itself."""
    harness = Harness()
    registry, calls = harness.driver.registry, list[bool]()

    def isr(now_ns: int) -> None:
        calls.append(registry.is_offering)
        if len(calls) == 1:
            harness.port.raise_interrupts(1)
            registry.collect(now_ns)

    registry.connect(SessionState(99, context=99), routine(isr=1 << 63), harness.now_ns, isr)
    harness.carry_out()
    harness.interrupt()
    assert calls == [True]
    harness.collect()
    assert calls == [True, True]
    assert harness.log.next_seq == 2
