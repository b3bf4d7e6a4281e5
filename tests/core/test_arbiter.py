"""What happens to the lines and to the others when somebody gets the port, or ownership ends."""

from __future__ import annotations

import pytest

from lpt_service.protocol.ioctl import CONTROL_DIRECTION_INPUT
from lpt_service.protocol.messages import PORT_CHECK
from lpt_service.protocol.status import Status
from tests.core.fakes import FakePort
from tests.core.harness import Client, Harness, routine

DATA, CONTROL = 0, 2


def with_safe_state() -> Harness:
    """A port whose safe state is data 0xAA, control 0x05."""
    return Harness(safe_data=0xAA, safe_control=0x05)


# Semantic 6: the deferred port check


def checks(client: Client) -> list[tuple[int, int]]:
    return [params for _, params in client.told(PORT_CHECK)]


def test_semantic_06_the_deferred_port_check_runs_when_the_port_becomes_idle() -> None:
    """Semantic 6: for each registration that has one, in connection order, when nobody waits."""
    harness = Harness()
    one, two, owner = harness.clients(3)
    two.connect(routine(deferred=20, deferred_context=21))
    one.connect(routine(isr=1, deferred=10))
    one.connect(routine(isr=2))
    two.connect(routine(deferred=22))
    owner.allocate()
    assert [checks(one), checks(two)] == [[], []]
    owner.free()
    assert [client for _, client, key in harness.notified if key[0] == PORT_CHECK] == [two, one, two]
    assert [checks(one), checks(two)] == [[(10, 0)], [(20, 21), (22, 0)]]


def test_semantic_06_it_does_not_run_on_a_hand_off() -> None:
    """Semantic 6: not on a hand-off."""
    harness = Harness()
    client, owner, waiter = harness.clients(3)
    client.connect(routine(deferred=1))
    owner.allocate()
    waiter.allocate()
    owner.free()
    assert checks(client) == []
    waiter.free()
    assert checks(client) == [(1, 0)]


def test_semantic_06_it_does_not_run_once_somebody_has_allocated_again() -> None:
    """Semantic 6: nor once somebody has allocated again meanwhile; one `port_check` a registration."""
    harness = Harness()
    client, owner = harness.clients(2)
    client.connect(routine(deferred=1))
    owner.allocate()
    owner.free()
    owner.allocate()
    assert checks(client) == []
    owner.free()
    owner.try_allocate()
    owner.free()
    assert checks(client) == [(1, 0)]
    assert checks(client) == []


def test_semantic_06_it_does_not_run_once_it_is_disconnected() -> None:
    harness = Harness()
    client, owner = harness.clients(2)
    client.connect(routine(deferred=1))
    owner.allocate()
    owner.free()
    client.disconnect(routine(deferred=1))
    client.connect(routine(deferred=1))
    assert checks(client) == []


def test_semantic_06_it_runs_after_a_forced_release() -> None:
    """Semantic 6: it runs after a forced release too."""
    harness = Harness()
    client, owner = harness.clients(2)
    client.connect(routine(deferred=1))
    owner.connect(routine(deferred=2))
    owner.allocate()
    owner.die()
    assert checks(client) == [(1, 0)]
    assert checks(owner) == []


# Semantic 7: at interrupt level


class Resident:
    """A routine that lives in the daemon: `act` is what it does at the next interrupt."""

    def __init__(self, harness: Harness, number: int) -> None:
        self.harness = harness
        self.client = harness.client()
        self.results: list[object] = []
        self.actions: list[str] = []
        harness.driver.registry.connect(self.client.state, routine(isr=(1 << 63) + number), harness.now_ns, self.isr)
        harness.carry_out()

    def isr(self, now_ns: int) -> None:
        arbiter = self.harness.driver.arbiter
        for action in self.actions:
            if action == "free":
                arbiter.free(self.client.state, now_ns)
            else:
                self.results.append(arbiter.try_allocate(self.client.state, now_ns))
            self.results.append(self.harness.driver.ownership.owner)


def test_semantic_07_freeing_at_interrupt_level_hands_on_after_every_routine() -> None:
    """Semantic 7: ownership is cleared at once; handed on when the interrupt has been offered to every routine."""
    harness = Harness()
    first, second = Resident(harness, 1), Resident(harness, 2)
    first.actions = ["try_allocate", "free"]
    second.actions = ["try_allocate"]
    waiter = harness.client()
    harness.interrupt()
    assert first.results[1::2] == [first.client.state]
    assert second.results[1] is second.client.state

    waiting = waiter.allocate()
    second.actions, first.actions = ["free"], ["try_allocate"]
    first.results.clear()
    second.results.clear()
    harness.interrupt()
    assert first.results == [None, second.client.state]
    assert second.results == [None]
    assert harness.owner is waiter
    assert waiting.status == 0


def test_semantic_07_no_routine_overtakes_a_waiter_in_the_same_walk() -> None:
    """Semantic 7 and 1: what one routine frees, a later one does not get while anyone waits."""
    harness = Harness()
    first, second = Resident(harness, 1), Resident(harness, 2)
    waiter = harness.client()
    harness.driver.arbiter.try_allocate(first.client.state, harness.now_ns)
    waiter.allocate()
    first.actions, second.actions = ["free"], ["try_allocate"]
    harness.interrupt()
    assert first.results == [None]
    assert second.results == [None, None]
    assert harness.owner is waiter


def test_semantic_07_nobody_waiting_means_idle_and_a_port_check() -> None:
    harness = Harness()
    client, resident = harness.client(), Resident(harness, 1)
    client.connect(routine(deferred=1))
    harness.driver.arbiter.try_allocate(resident.client.state, harness.now_ns)
    resident.actions = ["free"]
    harness.interrupt()
    assert harness.owner is None
    assert checks(client) == [(1, 0)]


def test_a_routine_that_frees_as_the_port_stops_is_no_owner_any_more() -> None:
    harness = Harness()
    resident = Resident(harness, 1)
    harness.driver.arbiter.try_allocate(resident.client.state, harness.now_ns)
    resident.actions = ["free"]
    harness.port.raise_interrupts(1)
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert harness.owner is None
    assert harness.driver.ownership.forced_releases == 0


def test_a_routine_that_takes_the_port_as_it_stops_loses_it() -> None:
    harness = Harness()
    resident = Resident(harness, 1)
    resident.actions = ["try_allocate"]
    harness.port.raise_interrupts(1)
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert harness.owner is None


# Semantic 10: the safe state


def test_semantic_10_the_lines_are_made_safe_when_the_daemon_starts() -> None:
    """Semantic 10: when the daemon starts, the lines are driven to the safe values."""
    harness = with_safe_state()
    harness.driver.attach(harness.port, harness.now_ns)
    assert (harness.port.data, harness.port.control) == (0xAA, 0x05)


def test_semantic_10_an_owner_that_dies_leaves_a_safe_port_to_the_next() -> None:
    """Semantic 10: ownership that ends otherwise than by a free: safe values before anybody else gets it."""
    harness = with_safe_state()
    owner, heir = harness.clients(2)
    owner.allocate()
    owner.write(DATA, 0x12)
    owner.write(CONTROL, 0x0F)
    heir.allocate()
    owner.die()
    assert harness.owner is heir
    assert (harness.port.data, harness.port.control) == (0xAA, 0x05)
    assert harness.port.written("data") == [0x12, 0xAA]


def test_semantic_10_a_voluntary_free_leaves_the_lines_alone() -> None:
    """Semantic 10: a voluntary free leaves the lines alone."""
    harness = with_safe_state()
    owner = harness.client()
    owner.allocate()
    owner.write(DATA, 0x12)
    owner.write(CONTROL, 0x0F)
    owner.free()
    assert (harness.port.data, harness.port.control) == (0x12, 0x0F)


@pytest.mark.parametrize(
    ("safe_data", "safe_control", "expected"), [(None, None, (0x12, 0x0F)), (0, None, (0, 0x0F)), (None, 0, (0x12, 0))]
)
def test_semantic_10_what_is_unset_is_left_alone(
    safe_data: int | None, safe_control: int | None, expected: tuple[int, int]
) -> None:
    """Semantic 10: unless they are unset."""
    harness = Harness(safe_data=safe_data, safe_control=safe_control)
    owner = harness.client()
    owner.allocate()
    owner.write(DATA, 0x12)
    owner.write(CONTROL, 0x0F)
    owner.die()
    assert (harness.port.data, harness.port.control) == expected


@pytest.mark.parametrize("failing", ["write_data", "write_control", "read_control"])
def test_semantic_10_if_the_safe_state_fails_nobody_is_granted_until_it_succeeds(failing: str) -> None:
    """Semantic 10: waiters get STATUS_IO_DEVICE_ERROR; who asks once the port has recovered gets it."""
    harness = with_safe_state()
    owner, one, two = harness.clients(3)
    owner.allocate()
    waiting = [one.allocate(), two.allocate()]
    harness.port.fail(failing)
    owner.die()
    assert [call.status for call in waiting] == [Status.STATUS_IO_DEVICE_ERROR] * 2
    assert harness.owner is None
    assert one.allocate().status == Status.STATUS_IO_DEVICE_ERROR
    assert two.try_allocate().status == Status.STATUS_IO_DEVICE_ERROR

    harness.port.recover()
    assert two.try_allocate().value & 0xFF == 1
    assert (harness.port.data, harness.port.control) == (0xAA, 0x05)
    assert one.allocate().is_pending


def test_semantic_10_a_port_that_cannot_be_made_safe_at_the_start_is_granted_later() -> None:
    harness = with_safe_state()
    client = harness.client()
    harness.port.fail("write_data")
    harness.driver.attach(harness.port, harness.now_ns)
    assert client.allocate().status == Status.STATUS_IO_DEVICE_ERROR
    harness.port.recover()
    assert client.allocate().status == 0
    assert harness.port.data == 0xAA


def test_semantic_10_a_stopping_daemon_takes_the_port_back_and_makes_it_safe() -> None:
    harness = with_safe_state()
    owner, waiter = harness.clients(2)
    owner.allocate()
    owner.write(DATA, 0x12)
    waiting = waiter.allocate()
    harness.driver.stop(harness.now_ns)
    harness.carry_out()
    assert waiting.status == Status.STATUS_CANCELLED
    assert harness.owner is None
    assert harness.port.data == 0xAA
    assert owner.allocate().status == Status.STATUS_DELETE_PENDING


# The direction of the data lines


@pytest.mark.parametrize("how", ["free", "die"])
def test_the_data_lines_become_outputs_when_ownership_ends(how: str) -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    owner.write(CONTROL, CONTROL_DIRECTION_INPUT | 0x0C)
    assert harness.port.control == 0x2C
    if how == "free":
        owner.free()
    else:
        owner.die()
    assert harness.port.control == 0x0C


def test_the_safe_state_has_the_data_on_the_lines_before_they_become_outputs() -> None:
    harness = Harness(safe_data=0xAA, safe_control=0x05 | CONTROL_DIRECTION_INPUT)
    owner = harness.client()
    owner.allocate()
    owner.write(CONTROL, CONTROL_DIRECTION_INPUT | 0x0C)
    owner.die()
    assert harness.port.journal[1:] == [("data", 0xAA), ("control", 0x0C), ("control", 0x05)]


def test_a_port_without_direction_is_not_written_to() -> None:
    harness = Harness(FakePort(is_bidirectional=False))
    owner = harness.client()
    owner.allocate()
    owner.free()
    assert harness.port.journal == []


def test_lines_that_stay_inputs_are_made_safe_before_the_next_owner() -> None:
    """A free whose last access fails is a free; what it left is made good before the port is granted."""
    harness = Harness()
    owner, waiter = harness.clients(2)
    owner.allocate()
    owner.write(CONTROL, CONTROL_DIRECTION_INPUT)
    waiting = waiter.allocate()
    harness.port.fail("write_control")
    assert owner.free().status == 0
    assert waiting.status == Status.STATUS_IO_DEVICE_ERROR
    harness.port.recover()
    assert waiter.allocate().status == 0
    assert not harness.port.control & CONTROL_DIRECTION_INPUT
