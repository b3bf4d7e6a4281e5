"""When others count as waiting for the owner's port: also those who come again and again, each time but briefly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lpt_service.core.port_report import status_report
from lpt_service.protocol.messages import LEASE, REVOKED
from lpt_service.protocol.status import Status
from tests.core.harness import MS, SECOND, Call, Client, Harness

HELD = "lease: held for 60 s while others wait"


class Port(Harness):
    """A port with a lease of 60 s and a warning of 5 s, its owner, and two others."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"max_hold_ns": 60 * SECOND, "hold_warning_ns": 5 * SECOND, **settings})
        self.tenant, self.one, self.two = self.clients(3)
        self.tenant.allocate()
        self.began_ns = self.now_ns

    def warnings(self) -> list[int]:
        """When the owner was warned, in ns since it got the port."""
        return [now_ns - self.began_ns for now_ns, _, key in self.notified if key[0] == LEASE]

    def held_ns(self) -> list[int]:
        """How long those have held the port who lost it."""
        return [each.until_ns - each.since_ns for each in self.released]

    def until_lost(self, each: Callable[[], object], gap_ns: int, at_most: int = 200) -> None:
        """Do `each` time and again, until the owner has lost the port."""
        for _ in range(at_most):
            each()
            self.advance(gap_ns)
            if self.released:
                return


def ask(client: Client, timeout_ms: int) -> Call:
    return client.allocate(timeout_ms=timeout_ms)


def ask_and_cancel(client: Client) -> None:
    client.cancel(client.allocate())


@pytest.mark.parametrize("timeout_ms", [1000, 400, 1, 0])
def test_who_tries_again_and_again_makes_the_lease_bite(timeout_ms: int) -> None:
    port = Port()
    port.until_lost(lambda: ask(port.one, timeout_ms), SECOND)
    assert port.warnings() == [55 * SECOND]
    assert port.held_ns() == [60 * SECOND]
    assert port.tenant.told(REVOKED) == [(REVOKED, (HELD,))]
    assert port.owner is port.one or port.one.allocate().status == 0


@pytest.mark.parametrize("gap_ns", [5 * SECOND, 5 * SECOND + 1], ids=["within", "beyond"])
def test_a_waiter_that_left_within_the_warning_counts_and_not_one_before(gap_ns: int) -> None:
    """It is gone for as long as that between two tries; the port is taken when it is there again."""
    port = Port()
    port.advance(100 * SECOND)
    first_ns = port.now_ns - port.began_ns
    port.until_lost(lambda: ask(port.one, 0), gap_ns, at_most=20)
    if gap_ns > 5 * SECOND:
        assert port.held_ns() == []
        assert len(port.warnings()) == 20, "each is the first again"
    else:
        assert port.warnings() == [first_ns]
        assert port.held_ns() == [first_ns + gap_ns]


def test_several_that_take_turns_are_as_good_as_one() -> None:
    port = Port()
    turns = [port.one, port.two] * 100
    port.until_lost(lambda: ask(turns.pop(), 300), 3 * SECOND)
    assert port.warnings() == [57 * SECOND], "the first try from 55 s on"
    assert port.held_ns() == [63 * SECOND], "the first one after the warning"


@pytest.mark.parametrize("try_it", [Client.try_allocate, ask_and_cancel], ids=["try-allocate", "cancel"])
def test_other_ways_of_trying_count_too(try_it: Callable[[Client], Any]) -> None:
    port = Port()
    port.until_lost(lambda: try_it(port.one), SECOND)
    assert port.warnings() == [55 * SECOND]
    assert port.held_ns() == [60 * SECOND]


def test_one_that_ends_and_comes_again_as_another_session_counts() -> None:
    port = Port()

    def come_and_die() -> None:
        client = port.client()
        client.allocate()
        client.die()

    port.until_lost(come_and_die, SECOND)
    assert port.held_ns() == [60 * SECOND]


def test_the_owner_s_own_tries_do_not_count() -> None:
    port = Port()
    for _ in range(200):
        assert port.tenant.try_allocate().value == 0
        assert port.tenant.allocate(timeout_ms=0).status == Status.STATUS_INVALID_DEVICE_STATE
        port.advance(SECOND)
    assert port.warnings() == []
    assert port.held_ns() == []


def test_the_port_is_not_taken_for_nobody() -> None:
    """The only one who waited has gone for good: averted, and the next one brings a new warning."""
    port = Port()
    port.advance(56 * SECOND)
    ask(port.one, 100)
    port.advance(100 * SECOND)
    assert port.held_ns() == []
    assert status_report(port.driver, port.now_ns)["lease"]["expires_ns"] is None
    ask(port.one, 100)
    assert [at_ns // SECOND for at_ns in port.warnings()] == [56, 156]


def test_a_try_that_finds_the_time_over_is_answered_before_the_port_is_taken() -> None:
    port = Port()
    port.advance(60 * SECOND)
    ask(port.one, 0)
    port.advance(5 * SECOND)
    assert port.held_ns() == []
    assert ask(port.two, 0).status == Status.STATUS_IO_TIMEOUT
    port.settle()
    assert port.owner is None
    assert port.two.try_allocate().value & 1


def test_the_next_owner_s_time_is_its_own() -> None:
    """Nor do its own tries before it had the port count against it."""
    port = Port(max_hold_ns=2 * SECOND, hold_warning_ns=SECOND)
    port.until_lost(lambda: ask(port.one, 0), 100 * MS)
    port.notified.clear()
    assert port.one.allocate().status == 0
    port.advance(100 * SECOND)
    assert port.warnings() == []
    assert port.owner is port.one


def test_a_reload_begins_anew_for_those_who_try_too() -> None:
    port = Port(max_hold_ns=0)
    port.advance(100 * SECOND)
    ask(port.one, 0)
    port.reconfigure(max_hold_ns=10 * SECOND)
    reloaded_ns = port.now_ns - port.began_ns
    port.advance(100 * MS)
    port.until_lost(lambda: ask(port.one, 0), 100 * MS)
    assert port.warnings() == [reloaded_ns + 100 * MS]
    assert port.held_ns() == [reloaded_ns + 5100 * MS]


@pytest.mark.parametrize("timeout_ms", [1, 0])
def test_without_a_warning_the_first_try_beyond_the_lease_takes_it(timeout_ms: int) -> None:
    port = Port(hold_warning_ns=0)
    port.advance(60 * SECOND)
    ask(port.one, timeout_ms)
    port.settle()
    assert port.held_ns() == [60 * SECOND]
