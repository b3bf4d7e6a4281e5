"""One port as a whole: who may ask for what, the ends of requests, and removal.

Each row of the contract's error table that is decided here has a test named test_error_row_…; the others belong to the
server (hello, frames, methods), to `test_requests` (shapes) or to `test_arbiter` (statuses beyond the table).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lpt_service.core.function_driver import PortState
from lpt_service.protocol.ioctl import CONTROL_CODES, PULSE_WIDTH_MAX_US, ControlCode, Ioctl, IoctlClass
from lpt_service.protocol.messages import KIND_EVENT, KIND_STOPPED, REVOKED
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PULSE
from tests.core.harness import MS, SECOND, Call, Client, Harness, routine

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


def test_a_timeout_leaves_nothing_behind() -> None:
    harness = Harness()
    owner, other = harness.clients(2)
    owner.allocate(timeout_ms=1)
    call = other.allocate(timeout_ms=1000)
    owner.free()
    assert call.status == 0
    harness.advance(5 * SECOND)
    assert harness.owner is other
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


# Removal

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
    assert waiter.told() == []


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
    driver.finish_removal()
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
