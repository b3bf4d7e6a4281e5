"""The queue by itself. What it does under the function driver is in `test_ownership_stateful`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from lpt_service.core.ownership import Ownership, Waiter
from lpt_service.core.requests import ControlRequest, Options, SessionState
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import CONTROL_CODES, ControlCode, Ioctl
from lpt_service.protocol.status import Status
from tests.core.harness import LAST_GRANT, Harness


class CountingQueue(OrderedDict[SessionState, Waiter]):
    """Counts how often the whole queue is looked at."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


def row_of(code: Ioctl) -> ControlCode:
    return next(row for row in CONTROL_CODES if row.code == code)


def allocate_request(session: SessionState) -> ControlRequest:
    return ControlRequest(session, 1, row_of(Ioctl.PARALLEL_PORT_ALLOCATE), b"", 0, Options())


def sessions(number: int) -> list[SessionState]:
    return [SessionState(each, context=each) for each in range(number)]


def test_waiters_are_served_in_their_order() -> None:
    ownership, (owner, *others) = Ownership(0, 10), sessions(4)
    ownership.take(owner, 1)
    for session in others:
        ownership.enqueue(allocate_request(session), 2)
    served = []
    for _ in others:
        ownership.vacate(voluntary=True)
        waiter = ownership.hand_on(3)
        assert waiter is not None
        served.append(waiter.request.session)
        assert ownership.owner is waiter.request.session
    assert served == others
    assert ownership.hand_on(4) is None
    assert (ownership.grants, ownership.frees, ownership.grant) == (4, 3, 4)


def test_positions_are_counted_anew_when_somebody_leaves() -> None:
    ownership, (owner, *others) = Ownership(0, 10), sessions(4)
    ownership.take(owner, 1)
    waiters = [ownership.enqueue(allocate_request(session), 2) for session in others]
    assert [waiter.position for waiter in waiters] == [1, 2, 3]
    gone = ownership.withdraw(others[0])
    assert gone is waiters[0]
    assert not gone.is_waiting
    assert [waiter.position for waiter in ownership.number_waiters()] == [1, 2]


def test_a_session_allocates_once() -> None:
    ownership, (owner, waiter) = Ownership(0, 10), sessions(2)
    ownership.take(owner, 1)
    ownership.enqueue(allocate_request(waiter), 1)
    for session in (owner, waiter):
        with pytest.raises(RequestError) as caught:
            ownership.enqueue(allocate_request(session), 2)
        assert caught.value.status == Status.STATUS_INVALID_DEVICE_STATE
    assert ownership.waiting == 1


def test_grant_numbers_go_on_where_the_last_daemon_ended() -> None:
    """The grant number only ever grows, across restarts too."""
    client = Harness().client()
    assert client.allocate().value == LAST_GRANT + 1
    client.free()
    assert client.allocate().value == LAST_GRANT + 2


def test_semantic_01_a_freed_port_goes_to_the_longest_waiter_and_no_newcomer_slips_in() -> None:
    """Semantic 1: one FIFO; a free hands on in the same step; try-allocate fails while anyone waits."""
    harness = Harness()
    owner, first, second, newcomer = harness.clients(4)
    assert owner.allocate().status == 0
    waiting = [first.allocate(), second.allocate()]
    assert all(call.is_pending for call in waiting)
    assert newcomer.try_allocate().value == 0

    owner.free()

    assert [call.is_pending for call in waiting] == [False, True]
    assert newcomer.try_allocate().value == 0
    assert first.free().status == 0
    assert second.free().status == 0
    assert newcomer.try_allocate().value & 0xFF == 1


def test_semantic_02_what_a_session_holds_dies_with_it() -> None:
    """Semantic 2: waiting requests are cancelled, the port is freed and handed on; a name owns nothing."""
    harness = Harness()
    owner, waiter, heir = harness.clients(3)
    owner.allocate()
    asked, inherited = waiter.allocate(), heir.allocate()
    namesake = harness.client()
    namesake.state.client = owner.state.client

    waiter.die()
    assert asked.status == Status.STATUS_CANCELLED
    owner.die()

    assert harness.owner is heir
    assert inherited.status == 0
    assert namesake.free().status == Status.STATUS_INVALID_DEVICE_STATE
    assert not owner.state.pending
    assert not waiter.state.pending


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_session_that_dies_anywhere_leaves_the_order_of_the_others(place: int) -> None:
    harness = Harness()
    clients = harness.clients(4)
    calls = [client.allocate() for client in clients]
    clients[place].die()
    rest = [client for client in clients if client is not clients[place]]
    served = []
    while harness.owner is not None:
        served.append(harness.owner)
        harness.owner.free()
    assert served == rest
    assert all(call.status == 0 for client, call in zip(clients, calls, strict=True) if client in rest)


def test_a_thousand_waiters_cost_a_hand_off_nothing() -> None:
    """No step looks at more than a few waiters; only the rounds of notices, ten a second, look at all."""
    harness = Harness()
    owner, *waiters = harness.clients(1001)
    owner.allocate()
    for waiter in waiters:
        waiter.allocate()
    harness.settle()
    touched = CountingQueue(harness.driver.ownership._queue)
    harness.driver.ownership._queue = touched

    for client in (owner, *waiters[:-1]):
        assert harness.owner is client
        client.free()

    assert touched.walks == 0
    harness.advance(200_000_000)
    assert 1 <= touched.walks <= 4
