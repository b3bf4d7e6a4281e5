"""One port as a whole: who may ask for what, and how requests end. The port's own end is in `test_removal`.

Each row of the contract's error table that is decided here has a test named test_error_row_…; the others belong to the
server (hello, frames, methods), to `test_requests` (shapes) or to `test_arbiter` (statuses beyond the table).
"""

from __future__ import annotations

import pytest

from lpt_service.protocol.ioctl import CONTROL_CODES, ControlCode, Ioctl, IoctlClass
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PULSE
from tests.core.harness import MS, SECOND, Client, Harness, routine

DATA, STATUS, CONTROL = 0, 1, 2


def good_input(row: ControlCode, client: Client) -> bytes:
    """An input that `row` takes."""
    if row.takes_context:
        return client.handle
    if row.input_bytes == 32:
        return routine(isr=1)
    return PULSE.pack(1, 2, 1000) if row.code == Ioctl.PULSE else bytes(row.input_bytes)


# Rows of the error table


@pytest.mark.parametrize("row", [row for row in CONTROL_CODES if row.input_bytes], ids=lambda row: row.name)
def test_error_row_buffer_too_short_input(row: ControlCode) -> None:
    """A buffer too short: BUFFER_TOO_SMALL; checked before context, ownership and contents."""
    harness = Harness()
    client = harness.client()
    call = client.send(row.code, bytes(row.input_bytes - 1), 200)
    assert call.status == Status.STATUS_BUFFER_TOO_SMALL
    assert call.error is not None
    assert f"input is {row.input_bytes - 1} bytes" in call.error.detail
    assert harness.port.accesses == 0


@pytest.mark.parametrize("row", [row for row in CONTROL_CODES if row.output_bytes], ids=lambda row: row.name)
def test_error_row_buffer_too_short_output(row: ControlCode) -> None:
    """A buffer too short: output_length counts too."""
    harness = Harness()
    client = harness.client()
    call = client.send(row.code, good_input(row, client), row.output_bytes - 1)
    assert call.status == Status.STATUS_BUFFER_TOO_SMALL
    assert call.error is not None
    assert f"output_length is {row.output_bytes - 1}" in call.error.detail
    assert harness.port.accesses == 0


@pytest.mark.parametrize("row", CONTROL_CODES, ids=lambda row: row.name)
def test_buffers_of_just_the_size_are_enough(row: ControlCode) -> None:
    harness = Harness()
    client = harness.client()
    client.allocate()
    if row.code == Ioctl.PARALLEL_DISCONNECT_INTERRUPT:
        client.connect(routine(isr=1))
    call = client.send(row.code, good_input(row, client), row.output_bytes)
    client.hear()
    harness.advance(SECOND)
    if row.code == Ioctl.PARALLEL_PORT_ALLOCATE:
        assert call.status == Status.STATUS_INVALID_DEVICE_STATE
    else:
        assert call.output is not None
        assert len(call.output) == row.output_bytes


@pytest.mark.parametrize("row", [row for row in CONTROL_CODES if row.owner_only], ids=lambda row: row.name)
def test_error_row_owner_needed(row: ControlCode) -> None:
    """Owner needed: ACCESS_DENIED, for everybody but the owner."""
    harness = Harness()
    owner, waiter, other = harness.clients(3)
    assert owner.send(row.code, good_input(row, owner), 200).status == Status.STATUS_ACCESS_DENIED
    owner.allocate()
    waiter.allocate()
    for client in (waiter, other):
        assert client.send(row.code, good_input(row, client), 200).status == Status.STATUS_ACCESS_DENIED
    assert harness.port.journal == []
    assert not owner.send(row.code, good_input(row, owner), 200).error


@pytest.mark.parametrize("row", [row for row in CONTROL_CODES if not row.gated], ids=lambda row: row.name)
def test_error_row_grant_not_in_force(row: ControlCode) -> None:
    """Grant not in force: ACCESS_DENIED, and nothing is touched."""
    harness = Harness()
    client, other = harness.clients(2)
    old = client.allocate().value
    client.free()
    for number in (0, old, old + 1, 2**64 - 1):
        call = client.send(row.code, good_input(row, client), 200, grant=number)
        assert call.status == Status.STATUS_ACCESS_DENIED, "nobody owns the port"
    other.allocate()
    call = client.send(row.code, good_input(row, client), 200, grant=old)
    assert call.status == Status.STATUS_ACCESS_DENIED
    assert harness.port.journal == []
    assert harness.owner is other


def test_a_grant_in_force_lets_a_request_pass() -> None:
    harness = Harness()
    owner = harness.client()
    grant = owner.allocate().value
    assert owner.write(DATA, 5, grant=grant).status == 0
    assert owner.read(DATA, grant=grant).value == 5
    assert owner.free(grant=grant).status == 0


def test_fencing_a_client_that_lost_the_port_without_noticing() -> None:
    """The session owns the port again, under another grant: its old request must not get through."""
    harness = Harness()
    owner = harness.client()
    old = owner.allocate().value
    owner.free()
    owner.allocate()
    assert owner.write(DATA, 5, grant=old).status == Status.STATUS_ACCESS_DENIED
    assert owner.free(grant=old).status == Status.STATUS_ACCESS_DENIED
    assert harness.owner is owner


def test_error_row_cancelled() -> None:
    """Cancelled: CANCELLED; one that loses the race changes nothing; an unknown msgid is nobody's."""
    harness = Harness()
    owner, waiter, other = harness.clients(3)
    granted, waiting = owner.allocate(), waiter.allocate()
    other.cancel(waiting.msgid)
    owner.cancel(granted)
    owner.cancel(0xFFFFFFFF)
    assert waiting.is_pending
    assert harness.owner is owner
    waiter.cancel(waiting)
    waiter.cancel(waiting)
    assert waiting.status == Status.STATUS_CANCELLED
    assert harness.driver.ownership.waiting == 0
    assert waiter.allocate().is_pending


def test_error_row_timed_out() -> None:
    """Timed out: IO_TIMEOUT, after just that time; the others move up."""
    harness = Harness()
    owner, first, second = harness.clients(3)
    owner.allocate()
    waiting, behind = first.allocate(timeout_ms=50), second.allocate(timeout_ms=51)
    harness.advance(50 * MS - 1)
    assert waiting.is_pending
    harness.advance(1)
    assert waiting.status == Status.STATUS_IO_TIMEOUT
    owner.free()
    assert harness.owner is second
    harness.advance(SECOND)
    assert behind.status == 0
    assert harness.owner is second


def test_error_row_timed_out_of_0_is_now_or_never() -> None:
    """timeout_ms 0 means now or never."""
    harness = Harness()
    owner, other = harness.clients(2)
    assert owner.allocate(timeout_ms=0).status == 0
    assert other.allocate(timeout_ms=0).status == Status.STATUS_IO_TIMEOUT
    assert not other.notices
    owner.free()
    assert other.allocate(timeout_ms=0).status == 0


@pytest.mark.parametrize("end", ["grant", "cancel"])
def test_the_timeout_of_a_request_that_has_ended_is_no_later_ones(end: str) -> None:
    harness = Harness()
    owner, other = harness.clients(2)
    owner.allocate()
    call = other.allocate(timeout_ms=1000)
    if end == "grant":
        owner.free()
        other.free()
        owner.allocate()
    else:
        other.cancel(call)
    assert call.msgid not in other.state.pending
    waiting = other.allocate()
    harness.advance(5 * SECOND)
    assert waiting.is_pending
    owner.free()
    assert waiting.status == 0
    harness.advance(SECOND)
    assert len(harness.driver.deadlines) == 0


@pytest.mark.parametrize("offset", [3, 4, 255])
def test_error_row_a_register_that_does_not_exist(offset: int) -> None:
    """A register that does not exist: INVALID_PARAMETER."""
    owner = Harness().client()
    owner.allocate()
    assert owner.read(offset).status == Status.STATUS_INVALID_PARAMETER
    assert owner.write(offset, 0).status == Status.STATUS_INVALID_PARAMETER


def test_error_row_the_status_register_cannot_be_written() -> None:
    owner = Harness().client()
    owner.allocate()
    assert owner.write(STATUS, 0).status == Status.STATUS_INVALID_PARAMETER


@pytest.mark.parametrize("row", [row for row in CONTROL_CODES if row.takes_context], ids=lambda row: row.name)
def test_error_row_a_bad_context(row: ControlCode) -> None:
    """A bad context: INVALID_PARAMETER; another session's handle is one."""
    harness = Harness()
    client, other = harness.clients(2)
    for handle in (bytes(8), b"\xff" * 8, other.handle):
        assert client.send(row.code, handle, 200).status == Status.STATUS_INVALID_PARAMETER
    assert harness.owner is None


def test_error_row_refused_by_a_limit_queue() -> None:
    """Refused by a limit (queue): INSUFFICIENT_RESOURCES; the next one that asks once there is room is taken."""
    harness = Harness(max_waiters=2)
    owner, one, two, three = harness.clients(4)
    for client in (owner, one, two):
        client.allocate()
    assert three.allocate().status == Status.STATUS_INSUFFICIENT_RESOURCES
    assert not three.notices
    one.die()
    assert three.allocate().is_pending


def test_error_row_refused_by_a_limit_pending_requests() -> None:
    """Refused by a limit (pending requests of a session): INSUFFICIENT_RESOURCES."""
    harness = Harness(max_pending_requests=3)
    owner = harness.client()
    owner.allocate()
    calls = [owner.pulse(1, 2, 1000), owner.write(DATA, 3), owner.write(DATA, 4), owner.write(DATA, 5)]
    assert [call.status for call in calls[:3]] == [Status.STATUS_PENDING] * 3
    assert calls[3].status == Status.STATUS_INSUFFICIENT_RESOURCES
    harness.advance(1 * MS)
    assert owner.write(DATA, 6).status == 0


def test_error_row_invalid_device_state() -> None:
    """ALLOCATE by an owner or a waiter, FREE by anybody but the owner: INVALID_DEVICE_STATE, nothing changes."""
    harness = Harness()
    owner, waiter = harness.clients(2)
    assert owner.free().status == Status.STATUS_INVALID_DEVICE_STATE
    owner.allocate()
    waiting = waiter.allocate()
    assert owner.allocate().status == Status.STATUS_INVALID_DEVICE_STATE
    assert waiter.allocate(timeout_ms=0).status == Status.STATUS_INVALID_DEVICE_STATE
    assert waiter.free().status == Status.STATUS_INVALID_DEVICE_STATE
    assert waiting.is_pending
    assert harness.owner is owner


def test_the_codes_of_this_project_work_in_either_class() -> None:
    harness = Harness()
    client = harness.client()
    for io_class in IoctlClass:
        assert client.send(Ioctl.READ_PORT_UCHAR, b"\x00", 1, io_class=io_class).status == 0


def test_settings_are_read_at_every_request() -> None:
    harness = Harness(max_waiters=0)
    owner, other = harness.clients(2)
    owner.allocate()
    assert other.allocate().status == Status.STATUS_INSUFFICIENT_RESOURCES
    settings = harness.driver.settings
    harness.driver.reconfigure(type(settings)("LPT1", safe_data=0x33))
    assert other.allocate().is_pending
    owner.die()
    assert harness.port.data == 0x33
