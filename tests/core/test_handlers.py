"""What each control code does, beyond what the other files show."""

from __future__ import annotations

import pytest

from lpt_service.core.handlers import HANDLERS
from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol.ioctl import CONTROL_CODES, CONTROL_INTERRUPT_ENABLE, Ioctl, Role
from lpt_service.protocol.messages import KIND_EVENT
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import FROB, PARALLEL_INTERRUPT_INFORMATION, PARALLEL_PORT_INFORMATION, TRY_ALLOCATE
from tests.core.fakes import FakePort
from tests.core.harness import LAST_GRANT, MS, STREAM, Client, Harness, routine

DATA, STATUS, CONTROL = 0, 1, 2
GRANT = LAST_GRANT + 1
FREE_CODES = (Ioctl.PARALLEL_PORT_FREE, Ioctl.FREE_PORT, Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL)
TRY_CODES = (Ioctl.TRY_ALLOCATE_PORT, Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL)


def owner_of(harness: Harness) -> Client:
    owner = harness.client()
    owner.allocate()
    return owner


def test_every_code_has_its_handler() -> None:
    assert set(HANDLERS) == {row.code for row in CONTROL_CODES} == set(Ioctl)


@pytest.mark.parametrize(
    ("output_length", "expected"),
    [(0, b""), (7, b""), (8, GRANT.to_bytes(8, "little")), (20, GRANT.to_bytes(8, "little"))],
)
@pytest.mark.parametrize("waits", [False, True])
def test_allocate_tells_the_grant_where_there_is_room(output_length: int, expected: bytes, waits: bool) -> None:
    harness = Harness()
    client, other = harness.clients(2)
    if waits:
        harness.driver.ownership.last_grant -= 1
        other.allocate()
    call = client.send(Ioctl.PARALLEL_PORT_ALLOCATE, b"", output_length)
    other.free()
    assert call.output == expected


@pytest.mark.parametrize("code", TRY_CODES)
def test_try_allocate_answers_1_byte_or_16(code: Ioctl) -> None:
    """u8; from output_length 16 on: u8, 7 bytes of 0, u64 grant."""
    harness = Harness()
    client, other = harness.clients(2)
    assert client.send(code, client.handle, 15).output == b"\x01"
    assert other.send(code, other.handle, 1).output == b"\x00"
    assert other.send(code, other.handle, 16).output == bytes(16)
    assert client.send(code, client.handle, 1).output == b"\x00", "it owns the port already"
    client.free()
    assert other.send(code, other.handle, 16).output == TRY_ALLOCATE.pack(1, GRANT + 1)


@pytest.mark.parametrize("code", FREE_CODES)
def test_each_way_to_free(code: Ioctl) -> None:
    harness = Harness()
    owner, other = owner_of(harness), harness.client()
    assert other.send(code, other.handle).status == Status.STATUS_INVALID_DEVICE_STATE
    assert owner.write(DATA, 1).status == 0
    assert owner.send(code, owner.handle).output == b""
    assert owner.send(code, owner.handle).status == Status.STATUS_INVALID_DEVICE_STATE


def test_query_num_waiters_does_not_count_the_owner() -> None:
    harness = Harness()
    owner, *others = harness.clients(4)
    for client in (owner, *others):
        client.allocate()
    assert others[0].send(Ioctl.QUERY_NUM_WAITERS, others[0].handle, 4).output == b"\x03\x00\x00\x00"


def test_a_client_can_call_through_the_structures_it_is_given() -> None:
    """Where Windows returns the address of a callback, the code that performs it, and the handle to send."""
    harness = Harness()
    client = harness.client()
    output = client.send(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56).output
    assert output is not None
    port = PARALLEL_PORT_INFORMATION.unpack(output)
    handle = port.Context.to_bytes(8, "little")
    assert client.send(port.TryAllocatePort, handle, 1).output == b"\x01"
    assert client.send(port.QueryNumWaiters, handle, 4).value == 0
    assert client.send(port.FreePort, handle).status == 0

    output = client.connect(routine(isr=1), 32).output
    assert output is not None
    assert len(output) == 32
    interrupt = PARALLEL_INTERRUPT_INFORMATION.unpack(output)
    handle = interrupt.Context.to_bytes(8, "little")
    assert client.send(interrupt.TryAllocatePortAtInterruptLevel, handle, 1).output == b"\x01"
    assert client.send(interrupt.FreePortFromInterruptLevel, handle).status == 0


@pytest.mark.parametrize("structure", [routine(isr=1), routine(deferred=1), routine(isr=1, deferred=2)])
def test_the_interrupt_object_is_the_stream_of_the_log(structure: bytes) -> None:
    for client in Harness().clients(2):
        output = client.connect(structure).output
        assert output is not None
        assert PARALLEL_INTERRUPT_INFORMATION.unpack(output).InterruptObject == STREAM


@pytest.mark.parametrize(("output_length", "expected"), [(32, 32), (39, 32), (40, 40), (100, 40)])
def test_connect_tells_first_seq_where_there_is_room(output_length: int, expected: int) -> None:
    output = Harness().client().connect(routine(isr=1), output_length).output
    assert output is not None
    assert len(output) == expected


# Registers


def test_reading_needs_no_ownership() -> None:
    harness = Harness()
    owner, client = owner_of(harness), harness.client()
    owner.write(DATA, 0x5A)
    assert [client.read(offset).value for offset in (DATA, STATUS, CONTROL)] == [0x5A, 0x78, 0x0C]


def test_a_write_tells_its_time_where_there_is_room() -> None:
    harness = Harness()
    owner = owner_of(harness)
    harness.advance(7)
    for offset in (DATA, CONTROL):
        assert owner.write(offset, 1).output == b""
        assert owner.send(Ioctl.WRITE_PORT_UCHAR, bytes((offset, 1)), 7).output == b""
        assert owner.send(Ioctl.WRITE_PORT_UCHAR, bytes((offset, 1)), 8).value == harness.now_ns


def test_input_may_be_longer_than_it_need_be() -> None:
    harness = Harness()
    owner = owner_of(harness)
    assert owner.send(Ioctl.WRITE_PORT_UCHAR, b"\x00\x11more").status == 0
    assert owner.send(Ioctl.READ_PORT_UCHAR, b"\x00more", 99).output == b"\x11"
    assert owner.send(Ioctl.FREE_PORT, owner.handle + b"more").status == 0


@pytest.mark.parametrize("is_listening", [False, True])
@pytest.mark.parametrize(
    ("code", "input_"),
    [
        (Ioctl.WRITE_PORT_UCHAR, b"\x02\x1c"),
        (Ioctl.WRITE_PORT_UCHAR, b"\x02\x0c"),
        (Ioctl.FROB_CONTROL, FROB.pack(0xFF, 0xFF)),
        (Ioctl.FROB_CONTROL, FROB.pack(0xFF, 0x00)),
    ],
)
def test_bit_4_is_the_daemons(is_listening: bool, code: Ioctl, input_: bytes) -> None:
    """The interrupt enable bit stays as it is, whatever a client writes."""
    harness = Harness()
    owner = owner_of(harness)
    if is_listening:
        owner.connect(routine(isr=1))
    assert owner.send(code, input_, 1).status == 0
    assert harness.is_listening() is is_listening


def test_frob_changes_the_bits_of_its_mask_and_returns_the_new_value() -> None:
    harness = Harness()
    owner = owner_of(harness)
    owner.write(CONTROL, 0x0C)
    assert owner.send(Ioctl.FROB_CONTROL, FROB.pack(0x03, 0xFF), 1).value == 0x0F
    assert owner.send(Ioctl.FROB_CONTROL, FROB.pack(0x05, 0x00), 1).value == 0x0A
    assert harness.port.control == 0x0A
    owner.connect(routine(isr=1))
    assert owner.send(Ioctl.FROB_CONTROL, FROB.pack(0x10, 0x00), 1).value == 0x1A


def test_frob_sets_the_direction_of_the_data_lines() -> None:
    for is_bidirectional, expected in ((True, 0x2C), (False, 0x0C)):
        owner = owner_of(Harness(FakePort(is_bidirectional=is_bidirectional)))
        assert owner.send(Ioctl.FROB_CONTROL, FROB.pack(0x20, 0x20), 1).value == expected


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("read_data", lambda owner: owner.read(DATA)),
        ("read_status", lambda owner: owner.read(STATUS)),
        ("read_control", lambda owner: owner.read(CONTROL)),
        ("write_data", lambda owner: owner.write(DATA, 1)),
        ("write_control", lambda owner: owner.write(CONTROL, 1)),
        ("read_control", lambda owner: owner.send(Ioctl.FROB_CONTROL, FROB.pack(1, 1), 1)),
        ("write_control", lambda owner: owner.send(Ioctl.FROB_CONTROL, FROB.pack(1, 1), 1)),
        ("take_interrupts", lambda owner: owner.connect(routine(isr=1))),
    ],
)
def test_an_access_that_fails_ends_its_request_and_no_more(method: str, call: object) -> None:
    assert callable(call)
    harness = Harness()
    owner = owner_of(harness)
    harness.port.fail(method)
    failed = call(owner)
    assert failed.status == Status.STATUS_IO_DEVICE_ERROR
    assert method in failed.error.detail
    harness.port.recover()
    assert call(owner).status == 0
    assert harness.owner is owner


# The port that ships with the product


def test_an_owner_raises_a_real_interrupt_through_the_loop_back_plug() -> None:
    port = SimulatedPort(loopback=True, monotonic_ns=lambda: 5)
    try:
        harness = Harness(served=port)
        owner, listener = owner_of(harness), harness.client()
        listener.connect(routine(isr=1))
        owner.write(DATA, 0x08)  # D3 is nAck: its rising edge
        owner.write(DATA, 0x00)
        owner.pulse(0x08, 0x00, 1000)
        harness.collect()
        assert [(frame[2], frame[3] & 0x40, frame[5]) for frame in listener.heard()] == [(2, 0x40, KIND_EVENT)]
        harness.driver.advance_job(harness.job, 1 * MS) if harness.job else None
        assert listener.read(CONTROL).value & CONTROL_INTERRUPT_ENABLE
        listener.die()
        harness.driver.stop(harness.now_ns)
        assert not port.read_control() & CONTROL_INTERRUPT_ENABLE
    finally:
        port.close()


def test_connecting_a_deferred_port_check_needs_the_role_use() -> None:
    client = Harness().client()
    client.state.role = Role.OBSERVE
    assert client.connect(routine(isr=1)).status == 0
    call = client.connect(routine(isr=1, deferred=2))
    assert call.status == Status.STATUS_ACCESS_DENIED
    assert call.error is not None
    assert call.error.detail == (
        "role: IOCTL_INTERNAL_PARALLEL_CONNECT_INTERRUPT with a DeferredPortCheckRoutine needs the role use on port "
        "LPT1, this session has observe"
    )
