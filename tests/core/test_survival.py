"""What outlives the daemon: stopping one driver, and giving its sessions' holdings to the next."""

from __future__ import annotations

from typing import Any

import pytest

from lpt_service.core.requests import SessionState
from lpt_service.core.survival import Kept, KeptRequest
from lpt_service.port.absent import AbsentPort
from lpt_service.port.base import ParallelPort
from lpt_service.protocol.messages import KIND_EVENT, KIND_STOPPED, KIND_UNHEARD, PORT_CHECK, QUEUED, REVOKED, WAITERS
from lpt_service.protocol.status import Status
from tests.core.harness import LAST_GRANT, SECOND, Call, Client, Harness, routine

ISR, OTHER = routine(isr=1), routine(isr=2, deferred=3)


def stop(harness: Harness, *spared: Client) -> Kept:
    kept = harness.driver.stop(harness.now_ns, frozenset(client.state for client in spared))
    harness.carry_out()
    return kept


class Next(Harness):
    """The next daemon, whose sessions are those that a former one kept."""

    def take(self, kept: Kept) -> dict[int, Client]:
        """Restore; the clients, by their sessions' numbers."""
        states = [kept.owner[0]] if kept.owner else []
        states += [each.session for each in kept.waiters] + [session for session, _ in kept.registrations]
        clients = {state.session: Client(self, state.session) for state in states}
        for client in clients.values():
            client.state = next(state for state in states if state.session == client.state.session)
            self._clients[client.state] = client
        for session, msgid, _, _ in kept.waiters:
            clients[session.session].calls[msgid] = Call(msgid)
        self.driver.restore(kept, self.now_ns)
        self.carry_out()
        return clients


def next_daemon(*, served: ParallelPort | None = None, **settings: Any) -> Next:
    return Next(served=served, **settings)


def owner_of(harness: Harness) -> SessionState | None:
    return harness.driver.ownership.owner


def test_spared_sessions_are_told_nothing_and_what_they_held_is_handed_over() -> None:
    harness = Harness(safe_data=0xAA)
    owner, first, second, third = harness.clients(4)
    grant = owner.allocate().value
    owner.write(0, 1)
    began_ns = harness.now_ns
    calls = [first.allocate(timeout_ms=1000), second.allocate(), third.allocate()]
    third.connect(ISR)
    owner.connect(OTHER)
    first.connect(ISR)
    harness.settle()
    harness.advance(SECOND // 4 - (harness.now_ns - began_ns))
    for client in (owner, first, second, third):
        client.told()

    kept = stop(harness, owner, first, third)

    assert kept == Kept(
        (owner.state, grant),
        (KeptRequest(first.state, calls[0].msgid, 8, 750), KeptRequest(third.state, calls[2].msgid, 8)),
        ((third.state, ISR), (owner.state, OTHER), (first.state, ISR)),
    )
    assert calls[0].is_pending
    assert calls[1].status == Status.STATUS_CANCELLED
    assert calls[2].is_pending
    assert [client.told() for client in (owner, first, third)] == [[], [], []]
    assert not first.state.pending
    assert harness.port.data == 0xAA
    assert not harness.is_listening()
    assert [frame[5] for frame in third.heard()] == [KIND_STOPPED]
    assert [each.why for each in harness.released] == ["daemon stopping"]
    harness.advance(100 * SECOND)
    assert calls[0].is_pending
    for client in (owner, first, second, third):
        client.die()
    assert harness.driver.ownership.grants == 1


def test_other_requests_of_spared_sessions_end_as_ever() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    pulse, behind, again = owner.pulse(1, 2, 1000), owner.write(0, 3), owner.allocate()
    stop(harness, owner)
    assert [call.status for call in (pulse, behind, again)] == [Status.STATUS_CANCELLED] * 3
    assert harness.port.written("data") == [1, 2]


def test_who_is_not_spared_loses_everything() -> None:
    harness = Harness()
    owner, waiter = harness.clients(2)
    owner.allocate()
    call = waiter.allocate()
    waiter.connect(ISR)
    assert stop(harness) == Kept()
    assert call.status == Status.STATUS_CANCELLED
    assert owner.told(REVOKED) == []


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(("waits", "told"), [(False, 1), (True, 0)])
def test_a_port_check_that_fell_due_at_the_stop_is_told_by_the_next_daemon(
    is_there: bool, waits: bool, told: int
) -> None:
    """Semantic 6: the owner does not come back, and either nobody waits or somebody gets the port."""
    harness = Harness()
    owner, waiter, listener = harness.clients(3)
    listener.connect(routine(deferred=3))
    owner.allocate()
    if waits:
        waiter.allocate()
    kept = stop(harness, listener, *([waiter] if waits else []))
    assert listener.told(PORT_CHECK) == []
    daemon = next_daemon(served=None if is_there else AbsentPort("fake", "not yet"))
    clients = daemon.take(kept)
    if not is_there:
        assert clients[listener.state.session].told(PORT_CHECK) == []
        daemon.driver.attach(daemon.port, daemon.now_ns)
        daemon.carry_out()
    assert clients[listener.state.session].told(PORT_CHECK) == [(PORT_CHECK, (3, 0))] * told


def test_no_port_check_falls_due_by_a_restart_alone() -> None:
    """Neither where nobody owned the port, nor where its owner goes on."""
    for is_owned in (False, True):
        harness = Harness()
        owner, listener = harness.clients(2)
        listener.connect(routine(deferred=3))
        if is_owned:
            owner.allocate()
        daemon = next_daemon()
        clients = daemon.take(stop(harness, owner, listener))
        assert clients[listener.state.session].told(PORT_CHECK) == []


def test_a_port_check_that_was_owed_already_outlives_the_daemon() -> None:
    harness = Harness()
    owner, listener = harness.clients(2)
    listener.connect(routine(deferred=3))
    owner.allocate()
    harness.pause()
    daemon = next_daemon()
    clients = daemon.take(stop(harness, owner, listener))
    assert clients[listener.state.session].told(PORT_CHECK) == [(PORT_CHECK, (3, 0))]


def kept_of_three() -> Kept:
    states = [SessionState(number, context=number) for number in (4, 5, 6)]
    requests = (KeptRequest(states[1], 7, 8), KeptRequest(states[2], 9, 0))
    return Kept((states[0], 17), requests, ((states[2], ISR), (states[0], OTHER), (states[2], OTHER)))


@pytest.mark.parametrize("is_there", [True, False])
def test_the_next_daemon_goes_on(is_there: bool) -> None:
    """At once, or once the port is there."""
    daemon = next_daemon(served=None if is_there else AbsentPort("fake", "not yet"), safe_data=0xAA)
    clients = daemon.take(kept_of_three())
    owner, first, second = clients[4], clients[5], clients[6]
    if not is_there:
        assert not daemon.is_listening()
        daemon.advance(SECOND)
        assert owner.write(0, 1).status == Status.STATUS_DEVICE_NOT_CONNECTED
        daemon.driver.attach(daemon.port, daemon.now_ns)
        daemon.carry_out()
        assert daemon.port.data == 0xAA
    assert owner_of(daemon) is owner.state
    assert owner.write(0, 1, grant=17).status == 0
    assert daemon.client().try_allocate().output == bytes(16)
    assert daemon.is_listening()
    daemon.interrupt(2)
    for client in (owner, second):
        assert client.passages[0].syncs == [("restarted", 0, None)]
        marks = [KIND_UNHEARD] if is_there else [KIND_STOPPED, KIND_UNHEARD]
        assert [frame[5] for frame in client.heard()] == [*marks, KIND_EVENT]
    assert first.passages == type(first.passages)()
    daemon.settle()
    assert owner.told(WAITERS) == [(WAITERS, (2,))]

    owner.free()
    assert first.calls[7].value == LAST_GRANT + 1, "larger than any"
    first.write(0, 2)
    first.die()
    assert second.calls[9].output == b""
    daemon.settle()
    second.free()
    assert owner.allocate().value == LAST_GRANT + 3
    assert [(each.grant, each.why) for each in daemon.released] == [
        (17, "freed"),
        (LAST_GRANT + 1, "session ended"),
        (LAST_GRANT + 2, "freed"),
    ]


def test_a_grant_beyond_those_that_the_next_daemon_knows() -> None:
    daemon = next_daemon()
    state = SessionState(4, context=4)
    clients = daemon.take(Kept((state, LAST_GRANT + 50)))
    clients[4].free()
    assert clients[4].allocate().value == LAST_GRANT + 51


@pytest.mark.parametrize("is_there", [True, False])
def test_waiters_without_an_owner(is_there: bool) -> None:
    """The owner was not spared: the first of them is next."""
    daemon = next_daemon(served=None if is_there else AbsentPort("fake", "not yet"))
    clients = daemon.take(kept_of_three()._replace(owner=None))
    if not is_there:
        assert owner_of(daemon) is None
        assert clients[5].calls[7].is_pending
        daemon.driver.attach(daemon.port, daemon.now_ns)
        daemon.carry_out()
    assert owner_of(daemon) is clients[5].state
    assert clients[5].calls[7].value == LAST_GRANT + 1
    daemon.advance(SECOND)
    assert clients[6].told(QUEUED) == [(QUEUED, (9, 1))]


def test_limits_of_the_next_daemon_are_for_newcomers() -> None:
    daemon = next_daemon(max_waiters=1, max_registrations=1)
    clients = daemon.take(kept_of_three())
    assert daemon.driver.ownership.waiting == 2
    assert len(daemon.driver.registry) == 3
    assert daemon.client().allocate().status == Status.STATUS_INSUFFICIENT_RESOURCES
    assert clients[6].connect(routine(isr=9)).status == Status.STATUS_INSUFFICIENT_RESOURCES


def test_sessions_that_do_not_come_back_while_the_port_is_not_there() -> None:
    daemon = next_daemon(served=AbsentPort("fake", "not yet"), safe_data=0xAA, interrupt_linger_ns=SECOND)
    clients = daemon.take(kept_of_three())
    daemon.driver.drain(clients[4].state, daemon.now_ns, is_on=True)
    clients[4].die()
    assert not daemon.driver.ownership.drainers
    assert clients[5].calls[7].is_pending, "nobody is granted a port that is not there"
    clients[5].cancel(7)
    assert clients[5].calls[7].status == Status.STATUS_CANCELLED
    clients[6].die()
    daemon.advance(SECOND)
    daemon.driver.attach(daemon.port, daemon.now_ns)
    daemon.carry_out()
    assert owner_of(daemon) is None
    assert daemon.driver.ownership.waiting == len(daemon.driver.registry) == 0
    assert not daemon.is_listening()
    assert daemon.client().allocate().value == LAST_GRANT + 1


def test_a_second_restart_before_the_port_is_there() -> None:
    kept = kept_of_three()
    daemon = next_daemon(served=AbsentPort("fake", "not yet"))
    clients = daemon.take(kept)
    assert stop(daemon, *clients.values()) == kept
    assert clients[5].calls[7].is_pending
    daemon = next_daemon()
    clients = daemon.take(kept)
    assert owner_of(daemon) is clients[4].state


def test_a_port_that_fails_when_it_comes_is_removed() -> None:
    daemon = next_daemon(served=AbsentPort("fake", "not yet"))
    clients = daemon.take(kept_of_three())
    daemon.port.fail("set_interrupt_enable", after=1)
    daemon.driver.attach(daemon.port, daemon.now_ns)
    daemon.carry_out()
    assert daemon.gone == "set_interrupt_enable failed"
    assert clients[5].calls[7].status == Status.STATUS_DELETE_PENDING
    assert clients[4].told(REVOKED) == [(REVOKED, ("port removed: set_interrupt_enable failed",))]


def test_an_unsafe_port_keeps_its_owner_and_refuses_the_next() -> None:
    daemon = next_daemon(served=AbsentPort("fake", "not yet"), safe_data=0xAA)
    clients = daemon.take(kept_of_three())
    daemon.port.fail("write_data")
    daemon.driver.attach(daemon.port, daemon.now_ns)
    daemon.carry_out()
    assert owner_of(daemon) is clients[4].state
    clients[4].die()
    assert clients[5].calls[7].status == Status.STATUS_IO_DEVICE_ERROR


def test_leases_count_anew() -> None:
    daemon = next_daemon(max_hold_ns=60 * SECOND, idle_hold_ns=100 * SECOND)
    clients = daemon.take(kept_of_three())
    daemon.advance(60 * SECOND - 1)
    assert owner_of(daemon) is clients[4].state
    daemon.advance(1)
    assert owner_of(daemon) is clients[5].state


def test_a_port_that_is_paused_while_it_is_not_there() -> None:
    daemon = next_daemon(served=AbsentPort("fake", "not yet"), safe_data=0xAA)
    clients = daemon.take(kept_of_three())
    daemon.pause("a new cable")
    assert clients[4].told() == [(REVOKED, ("port paused: a new cable",))]
    daemon.driver.attach(daemon.port, daemon.now_ns)
    daemon.carry_out()
    assert owner_of(daemon) is None
    assert not daemon.is_listening()
    daemon.resume()
    assert owner_of(daemon) is clients[5].state
    assert daemon.is_listening()


def test_a_port_that_is_paused_before_it_is_restored() -> None:
    daemon = next_daemon()
    daemon.pause()
    clients = daemon.take(kept_of_three()._replace(owner=None))
    assert owner_of(daemon) is None
    assert not daemon.is_listening()
    daemon.resume()
    assert owner_of(daemon) is clients[5].state
    assert daemon.is_listening()


def test_a_time_out_goes_on_with_what_was_left_of_it() -> None:
    daemon = next_daemon()
    owner, waiter = SessionState(4, context=4), SessionState(5, context=5)
    clients = daemon.take(Kept((owner, 17), (KeptRequest(waiter, 7, 8, 750),), ()))
    daemon.advance(SECOND * 7 // 10)
    assert clients[5].calls[7].is_pending
    daemon.advance(SECOND // 10)
    assert clients[5].calls[7].status == Status.STATUS_IO_TIMEOUT
    assert daemon.driver.ownership.waiting == 0
