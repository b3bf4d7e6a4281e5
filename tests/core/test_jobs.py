"""Requests that keep the port busy for a time."""

from __future__ import annotations

import pytest

from lpt_service.protocol.ioctl import PULSE_WIDTH_MAX_US, Ioctl
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PULSE_EDGES
from tests.core.harness import MS, SECOND, Client, Harness

DATA, CONTROL = 0, 2


def owner_of(harness: Harness) -> Client:
    owner = harness.client()
    owner.allocate()
    return owner


def test_a_pulse_answers_after_its_second_edge_with_the_times_of_both() -> None:
    harness = Harness()
    owner, began_ns = owner_of(harness), harness.now_ns
    pulse = owner.pulse(0x81, 0x7E, 1500)
    assert harness.port.data == 0x81
    harness.advance(1_499_999)
    assert pulse.is_pending
    assert harness.port.data == 0x81
    harness.advance(1)
    assert pulse.output == PULSE_EDGES.pack(began_ns, began_ns + 1_500_000)
    assert harness.port.written("data") == [0x81, 0x7E]
    assert harness.job is None


@pytest.mark.parametrize(("width_us", "status"), [(0, 0xC000000D), (1, 0x103), (PULSE_WIDTH_MAX_US, 0x103)])
def test_a_pulse_is_between_a_microsecond_and_ten_seconds_wide(width_us: int, status: int) -> None:
    owner = owner_of(Harness())
    assert owner.pulse(1, 0, width_us).status == status


def test_a_wider_pulse_is_refused_and_drives_nothing() -> None:
    harness = Harness()
    owner = owner_of(harness)
    assert owner.pulse(1, 0, PULSE_WIDTH_MAX_US + 1).status == Status.STATUS_INVALID_PARAMETER
    assert harness.port.journal == []
    assert harness.job is None


def test_semantic_11_the_owners_later_requests_wait_in_order_and_nobody_elses_do() -> None:
    """Semantic 11: the owner's requests that need the port wait; its others, and everybody else's, are answered."""
    harness = Harness()
    owner, other = owner_of(harness), harness.client()
    pulse = owner.pulse(1, 2, 1000)
    waiting = [owner.write(DATA, 3), owner.read(DATA), owner.pulse(4, 5, 1000), owner.write(DATA, 6), owner.free()]
    assert all(call.is_pending for call in (pulse, *waiting))

    assert owner.send(Ioctl.QUERY_NUM_WAITERS, owner.handle, 4).value == 0
    assert owner.send(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56).status == 0
    assert other.read(DATA).value == 1
    assert other.try_allocate().value == 0
    waiter = other.allocate()
    assert waiter.is_pending

    harness.advance(1 * MS)
    assert [call.is_pending for call in (pulse, *waiting)] == [False, False, False, True, True, True]
    assert waiting[1].value == 3
    assert harness.owner is owner
    harness.advance(1 * MS)
    assert not any(call.is_pending for call in waiting)
    assert harness.port.written("data") == [1, 2, 3, 4, 5, 6]
    assert harness.owner is other
    assert waiter.status == 0


def test_semantic_11_an_owner_that_dies_in_a_job() -> None:
    """Semantic 11: the job is cut short and ended properly, then the safe state, then the next owner."""
    harness = Harness(safe_data=0xAA)
    owner, heir = owner_of(harness), harness.client()
    pulse = owner.pulse(1, 2, 1000)
    behind = [owner.write(DATA, 3), owner.free()]
    heir.allocate()
    owner.die()

    assert harness.port.written("data") == [1, 2, 0xAA]
    assert harness.owner is heir
    assert harness.job is None
    assert [call.status for call in (pulse, *behind)] == [Status.STATUS_CANCELLED] * 3
    harness.advance(SECOND)
    assert harness.port.data == 0xAA
    assert heir.write(DATA, 9).status == 0


def test_a_cancelled_pulse_ends_with_its_second_edge_at_once() -> None:
    harness = Harness()
    owner = owner_of(harness)
    pulse, write = owner.pulse(1, 2, 1000), owner.write(DATA, 3)
    harness.advance(10)
    owner.cancel(pulse)
    assert pulse.status == Status.STATUS_CANCELLED
    assert write.status == 0
    assert harness.port.written("data") == [1, 2, 3]
    assert harness.owner is owner
    harness.advance(SECOND)
    assert harness.port.data == 3


def test_a_request_behind_a_job_can_be_cancelled() -> None:
    harness = Harness()
    owner = owner_of(harness)
    owner.pulse(1, 2, 1000)
    first, second = owner.write(DATA, 3), owner.write(DATA, 4)
    owner.cancel(first)
    assert first.status == Status.STATUS_CANCELLED
    harness.advance(1 * MS)
    assert second.status == 0
    assert harness.port.written("data") == [1, 2, 4]


def test_a_request_behind_a_job_times_out_and_one_that_has_begun_does_not() -> None:
    harness = Harness()
    owner = owner_of(harness)
    pulse = owner.pulse(1, 2, 5000, timeout_ms=1)
    write, later = owner.write(DATA, 3, timeout_ms=4), owner.pulse(4, 5, 5000, timeout_ms=7)
    harness.advance(4 * MS)
    assert write.status == Status.STATUS_IO_TIMEOUT
    assert pulse.is_pending
    harness.advance(5 * MS)
    assert pulse.status == 0
    assert later.is_pending
    harness.advance(1 * MS)
    assert later.status == 0
    assert harness.port.written("data") == [1, 2, 4, 5]


def test_a_timeout_of_0_behind_a_job_means_never() -> None:
    harness = Harness()
    owner = owner_of(harness)
    owner.pulse(1, 2, 1000)
    assert owner.write(DATA, 3, timeout_ms=0).status == Status.STATUS_IO_TIMEOUT
    harness.advance(1 * MS)
    assert owner.write(DATA, 3, timeout_ms=0).status == 0


def test_a_free_behind_a_pulse_hands_on_when_the_pulse_is_over() -> None:
    harness = Harness()
    owner, waiter = owner_of(harness), harness.client()
    owner.pulse(1, 2, 1000)
    free, waiting = owner.free(), waiter.allocate()
    late = owner.allocate(timeout_ms=3)
    assert late.is_pending
    harness.advance(1 * MS)
    assert free.status == waiting.status == 0
    assert late.is_pending, "it is in the queue now"
    harness.advance(2 * MS)
    assert late.status == Status.STATUS_IO_TIMEOUT


def test_what_waits_behind_a_job_is_checked_when_it_begins() -> None:
    harness = Harness()
    owner = owner_of(harness)
    grant = harness.driver.ownership.grant
    owner.pulse(1, 2, 1000)
    good, free, bad = owner.write(DATA, 3, grant=grant), owner.free(), owner.write(DATA, 4, grant=grant)
    harness.advance(1 * MS)
    assert good.status == free.status == 0
    assert bad.status == Status.STATUS_ACCESS_DENIED
    assert harness.port.data == 3


def test_a_first_edge_that_fails_is_no_job() -> None:
    harness = Harness()
    owner = owner_of(harness)
    harness.port.fail("write_data")
    assert owner.pulse(1, 2, 1000).status == Status.STATUS_IO_DEVICE_ERROR
    assert harness.job is None
    assert owner.read(DATA).status == 0


def test_a_second_edge_that_fails_ends_the_job() -> None:
    harness = Harness()
    owner = owner_of(harness)
    pulse, read = owner.pulse(1, 2, 1000), owner.read(DATA)
    harness.port.fail("write_data")
    harness.advance(1 * MS)
    assert pulse.status == Status.STATUS_IO_DEVICE_ERROR
    assert read.value == 1
    assert not owner.state.pending


def test_a_cut_that_fails_makes_the_port_unsafe() -> None:
    """The cancelled pulse could not end properly: whoever comes next finds the safe state."""
    harness = Harness(safe_data=0xAA)
    owner, waiter = owner_of(harness), harness.client()
    pulse, waiting = owner.pulse(1, 2, 1000), waiter.allocate()
    harness.port.fail("write_data")
    owner.cancel(pulse)
    assert pulse.status == Status.STATUS_CANCELLED
    harness.port.recover()
    owner.free()
    assert waiting.status == 0
    assert harness.port.data == 0xAA


def test_a_step_of_a_job_that_was_cut_does_nothing() -> None:
    harness = Harness()
    owner = owner_of(harness)
    pulse = owner.pulse(1, 2, 1000)
    job = harness.job
    assert job is not None
    owner.cancel(pulse)
    owner.write(DATA, 9)
    assert harness.driver.advance_job(job, harness.now_ns)
    assert harness.port.data == 9
