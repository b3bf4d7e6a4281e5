"""Pausing a port, and resuming it."""

from __future__ import annotations

import pytest

from lpt_service.core.function_driver import PortState
from lpt_service.port.absent import AbsentPort
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Ioctl, Role
from lpt_service.protocol.messages import (
    KIND_EVENT,
    KIND_MASKED,
    KIND_STOPPED,
    KIND_UNHEARD,
    KIND_UNMASKED,
    PORT_CHECK,
    QUEUED,
    REVOKED,
    WAITERS,
)
from lpt_service.protocol.status import Status
from tests.core.fakes import FakePort
from tests.core.harness import LAST_GRANT, SECOND, Client, Harness, routine


def owner_of(harness: Harness) -> Client | None:
    """Asked anew each time, as mypy sees it."""
    return harness.owner


def kinds(client: Client) -> list[int]:
    return [frame[5] for frame in client.heard()]


def test_the_owner_loses_it_and_those_who_wait_keep_their_places() -> None:
    harness = Harness(safe_data=0xAA)
    owner, first, second, late = harness.clients(4)
    owner.allocate()
    calls = [first.allocate(), second.allocate()]
    assert harness.pause("a new cable") is False
    assert owner.told(REVOKED) == [(REVOKED, ("port paused: a new cable",))]
    assert [each.why for each in harness.released] == ["port paused: a new cable"]
    assert harness.port.data == 0xAA
    assert owner_of(harness) is None
    calls.append(late.allocate())
    assert owner.try_allocate().output == bytes(16)
    assert owner.allocate(timeout_ms=0).status == Status.STATUS_IO_TIMEOUT
    assert first.allocate().status == Status.STATUS_INVALID_DEVICE_STATE
    harness.settle()
    assert late.told(QUEUED) == [(QUEUED, (calls[2].msgid, 3))]
    assert all(call.is_pending for call in calls)
    assert owner.send(Ioctl.QUERY_NUM_WAITERS, owner.handle, 4).value == 3

    harness.port.data = 1  # somebody has worked at it
    assert harness.resume() is True
    assert owner_of(harness) is first
    assert harness.port.data == 0xAA
    first.free()
    assert owner_of(harness) is second
    harness.advance(SECOND)
    assert second.told(WAITERS) == [(WAITERS, (1,))]


def test_nobody_is_granted_a_free_port_until_it_is_resumed() -> None:
    harness = Harness()
    client = harness.client()
    harness.pause()
    call = client.allocate(timeout_ms=1000)
    again = harness.client().allocate()
    harness.advance(SECOND)
    assert call.status == Status.STATUS_IO_TIMEOUT
    harness.resume()
    assert again.value == LAST_GRANT + 1


def test_pausing_and_resuming_twice_is_once() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    assert [harness.pause("one"), harness.pause("two")] == [False, True]
    assert harness.driver.paused == "two"
    assert owner.told(REVOKED) == [(REVOKED, ("port paused: one",))]
    assert [harness.resume(), harness.resume()] == [True, False]
    assert harness.driver.paused is None


@pytest.mark.parametrize("code", [Ioctl.READ_PORT_UCHAR, Ioctl.WRITE_PORT_UCHAR, Ioctl.FROB_CONTROL, Ioctl.PULSE])
def test_what_needs_the_device_is_refused(code: Ioctl) -> None:
    harness = Harness()
    owner, watcher = harness.clients(2)
    grant = owner.allocate().value
    harness.pause("a new cable")
    accesses = harness.port.accesses
    for call in (owner.send(code, bytes(6), 16, grant=grant), watcher.send(code, bytes(6), 16)):
        assert call.status == Status.STATUS_DEVICE_NOT_READY
        assert call.error is not None
        assert call.error.detail == "port LPT1 is paused: a new cable"
    assert owner.send(code, b"", 16).status == Status.STATUS_BUFFER_TOO_SMALL
    watcher.state.role = Role.OBSERVE
    if code != Ioctl.READ_PORT_UCHAR:
        assert watcher.send(code, bytes(6), 16).status == Status.STATUS_ACCESS_DENIED
    assert harness.port.accesses == accesses
    harness.resume()
    assert watcher.read(0).status == 0


def test_what_does_not_need_the_device_goes_on() -> None:
    harness = Harness()
    client = harness.client()
    harness.pause()
    assert client.send(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56).status == 0
    assert client.free().status == Status.STATUS_INVALID_DEVICE_STATE
    client.cancel(call := client.allocate())
    assert call.status == Status.STATUS_CANCELLED


def test_the_device_is_quiet_while_it_is_paused_and_registrations_stay() -> None:
    harness = Harness()
    listener = harness.client()
    listener.connect(routine(isr=1))
    harness.interrupt(2)
    harness.port.raise_interrupts(3)  # not collected yet
    harness.pause()
    assert not harness.is_listening()
    harness.interrupt(50)
    harness.port.latched = 4  # raised by a device that was being worked at
    harness.resume()
    assert harness.log.end == 5
    assert harness.is_listening()
    harness.interrupt(1)
    frames = [(frame[2], frame[5]) for frame in listener.heard()]
    assert frames == [(2, KIND_EVENT), (3, KIND_EVENT), (0, KIND_STOPPED), (0, KIND_UNHEARD), (1, KIND_EVENT)]
    assert harness.driver.registry.strays == 4
    assert len(listener.passages) == 1


def test_interrupts_of_the_cut_job_are_heard() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    owner.connect(routine(isr=1))
    owner.pulse(1, 2, 1000)
    harness.port.raise_interrupts(1)
    harness.pause()
    assert kinds(owner) == [KIND_EVENT, KIND_STOPPED]


def test_connecting_takes_effect_when_the_port_is_resumed() -> None:
    harness = Harness()
    client, other = harness.clients(2)
    harness.pause()
    assert client.connect(routine(isr=1)).status == 0
    assert other.connect(routine(isr=1)).status == 0
    assert not harness.is_listening()
    assert not harness.driver.registry.is_heard
    harness.interrupt(3)
    assert harness.log.end == 1, "nothing but the pause"
    fence = other.disconnect(routine(isr=1))
    other.hear()
    assert fence.value == 0
    harness.resume()
    assert harness.is_listening()
    harness.interrupt(2)
    assert kinds(client) == [KIND_UNHEARD, KIND_EVENT]


def test_who_disconnects_or_vanishes_while_it_is_paused() -> None:
    harness = Harness(interrupt_linger_ns=SECOND)
    one, two = harness.clients(2)
    one.connect(routine(isr=1))
    harness.pause()
    one.disconnect(routine(isr=1))
    harness.resume()
    assert not harness.is_listening()
    two.connect(routine(isr=1))
    harness.pause()
    two.die()
    assert harness.driver.registry.is_lingering
    harness.resume()
    assert harness.is_listening()
    harness.pause()
    harness.advance(SECOND)
    harness.resume()
    assert not harness.is_listening()


@pytest.mark.parametrize("pause_s", [0.5, 2])
def test_a_storm_and_a_pause(pause_s: float) -> None:
    """The storm guard's pause goes on; it does not enable what is paused."""
    harness = Harness(max_interrupt_rate_hz=10)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt(11)
    assert harness.driver.registry.is_masked
    harness.pause()
    harness.advance(int(pause_s * SECOND))
    assert not harness.is_listening()
    assert harness.driver.registry.is_masked is (pause_s < 1)
    harness.resume()
    assert harness.is_listening() is (pause_s > 1)
    harness.advance(SECOND)
    assert harness.is_listening()
    resumed = [KIND_MASKED, KIND_UNMASKED] if pause_s < 1 else [KIND_UNHEARD]
    assert kinds(client) == [KIND_EVENT, KIND_MASKED, KIND_STOPPED, *resumed]


def test_a_deferred_port_check_that_fell_due_runs_when_it_is_resumed() -> None:
    harness = Harness()
    owner, listener = harness.clients(2)
    listener.connect(routine(deferred=5))
    owner.allocate()
    harness.pause()
    assert listener.told(PORT_CHECK) == []
    harness.resume()
    assert listener.told(PORT_CHECK) == [(PORT_CHECK, (5, 0))]
    harness.pause()
    harness.resume()
    assert listener.told(PORT_CHECK) == [], "nobody has owned it since"


def test_no_deferred_port_check_when_somebody_gets_it() -> None:
    harness = Harness()
    owner, listener = harness.clients(2)
    listener.connect(routine(deferred=5))
    owner.allocate()
    harness.pause()
    owner.allocate()
    harness.resume()
    assert owner_of(harness) is owner
    assert listener.told(PORT_CHECK) == []
    owner.free()
    assert listener.told(PORT_CHECK) == [(PORT_CHECK, (5, 0))]
    harness.pause()
    harness.resume()
    assert listener.told(PORT_CHECK) == [], "the one that fell due before has had its time"


def test_draining_and_pausing_both_have_to_end() -> None:
    harness = Harness()
    client, admin = harness.clients(2)
    harness.pause()
    harness.driver.drain(admin.state, harness.now_ns, is_on=True)
    client.allocate()
    harness.resume()
    assert owner_of(harness) is None
    harness.pause()
    admin.die()
    assert owner_of(harness) is None
    harness.resume()
    assert owner_of(harness) is client


def test_a_port_that_cannot_be_made_safe_keeps_its_waiters_until_it_is_resumed() -> None:
    harness = Harness(safe_data=0xAA)
    owner, waiter = harness.clients(2)
    owner.allocate()
    call = waiter.allocate()
    harness.port.fail("write_data")
    harness.pause()
    assert call.is_pending
    harness.resume()
    assert call.status == Status.STATUS_IO_DEVICE_ERROR


def test_a_paused_device_is_left_alone_whoever_dies() -> None:
    harness = Harness(safe_data=0xAA)
    owner, waiter, admin = harness.clients(3)
    owner.allocate()
    harness.port.fail("write_data")
    harness.pause()
    harness.port.recover()
    waiter.allocate()
    harness.driver.drain(admin.state, harness.now_ns, is_on=True)
    accesses = harness.port.accesses
    admin.die()
    owner.die()
    assert harness.port.accesses == accesses
    harness.resume()
    assert owner_of(harness) is waiter


def test_a_port_whose_interrupt_cannot_be_enabled_stays_paused() -> None:
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    harness.pause()
    client.allocate()
    harness.port.fail("set_interrupt_enable")
    with pytest.raises(RequestError, match="could not be resumed") as caught:
        harness.resume()
    assert caught.value.status == Status.STATUS_IO_DEVICE_ERROR
    assert harness.driver.paused is not None
    assert owner_of(harness) is None
    assert not harness.is_watched
    harness.port.recover()
    harness.resume()
    assert owner_of(harness) is client
    assert harness.is_listening()


# Pausing, and the port's coming and going


def test_a_port_that_goes_while_it_is_paused_and_comes_back_is_paused() -> None:
    harness = Harness(safe_data=0xAA)
    client, late = harness.clients(2)
    client.connect(routine(isr=1))
    harness.pause()
    call = client.allocate()
    harness.driver.begin_removal("unplugged", harness.now_ns)
    harness.carry_out()
    assert call.status == Status.STATUS_DELETE_PENDING
    harness.driver.finish_removal(harness.now_ns)
    assert client.allocate().status == Status.STATUS_DEVICE_NOT_CONNECTED
    harness.driver.attach(harness.port, harness.now_ns)
    harness.carry_out()
    assert harness.driver.state is PortState.READY
    assert harness.driver.paused is not None
    late.connect(routine(isr=1))
    call = late.allocate()
    assert call.is_pending
    assert not harness.is_listening()
    harness.resume()
    assert owner_of(harness) is late
    assert harness.is_listening()


def test_pausing_and_resuming_a_port_that_is_not_there() -> None:
    harness = Harness(served=AbsentPort("fake", "not plugged in"))
    harness.pause()
    harness.driver.attach(harness.port, harness.now_ns)
    client = harness.client()
    assert client.allocate().is_pending
    harness.resume()
    assert owner_of(harness) is client

    harness = Harness(served=AbsentPort("fake", "not plugged in"))
    harness.pause()
    assert harness.resume() is True
    harness.driver.attach(harness.port, harness.now_ns)
    assert harness.client().allocate().value == LAST_GRANT + 1


@pytest.mark.parametrize("when", ["removing", "absent"])
def test_pausing_a_port_that_has_gone(when: str) -> None:
    harness = Harness()
    harness.driver.begin_removal("unplugged", harness.now_ns)
    harness.carry_out()
    if when == "removing":
        harness.pause()
    harness.driver.finish_removal(harness.now_ns)
    harness.pause()
    harness.driver.attach(harness.port, harness.now_ns)
    harness.carry_out()
    client = harness.client()
    client.connect(routine(isr=1))
    assert client.allocate().is_pending
    assert not harness.is_listening()
    harness.resume()
    assert harness.is_listening()
    assert owner_of(harness) is client


@pytest.mark.parametrize("when", ["pause", "resume"])
def test_a_port_that_goes_in_that_moment_is_removed(when: str) -> None:
    harness = Harness(safe_data=0xAA)
    owner, waiter = harness.clients(2)
    owner.connect(routine(isr=1))
    owner.allocate()
    call = waiter.allocate()
    if when == "resume":
        harness.pause()
    harness.port.go()
    if when == "pause":
        harness.pause()
    else:
        assert harness.resume()
    assert harness.gone == "unplugged"
    assert call.status == Status.STATUS_DELETE_PENDING
    assert len(harness.driver.registry) == 0
    assert harness.log.end == (2 if when == "pause" else 3), "unheard, stopped by the pause, stopped"
    assert harness.driver.paused == ("a new cable" if when == "pause" else None)


def test_the_daemon_stops_while_the_port_is_paused() -> None:
    harness = Harness(FakePort(), safe_data=0xAA)
    client = harness.client()
    client.connect(routine(isr=1))
    harness.pause()
    call = client.allocate()
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert call.status == Status.STATUS_CANCELLED
    assert kinds(client) == [KIND_STOPPED, KIND_STOPPED]
    assert client.passages[0].is_over
    assert not harness.is_listening()
