"""Registers, information structures and frames, as the contract has them."""

from __future__ import annotations

import struct
import time

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    CONTROL,
    DATA,
    FREE,
    FREE_FROM_INTERRUPT_LEVEL,
    FREE_PORT,
    FROB_CONTROL,
    GET_MORE_PORT_INFO,
    GET_PNP_INFO,
    GET_PORT_INFO,
    QUERY_NUM_WAITERS,
    STATUS,
    TRY_ALLOCATE_AT_INTERRUPT_LEVEL,
    TRY_ALLOCATE_PORT,
    WRITE_PORT_UCHAR,
    routine,
    u64,
)
from tests.e2e.conftest import Connect
from tests.e2e.daemons import DaemonProcess

# Registers


def test_the_loop_back_plug(connect: Connect) -> None:
    """D0 to nError, D1 to Select, D2 to PaperEnd, D3 to nAck, D4 to Busy, which reads inverted."""
    owner = connect()
    owner.allocate()
    for value in range(32):
        owner.write(DATA, value)
        assert owner.read(DATA) == value
        assert owner.read(STATUS) & 0xF8 == (value << 3) ^ 0x80


def test_bit_4_of_the_control_register_belongs_to_the_daemon(connect: Connect) -> None:
    owner = connect()
    owner.allocate()
    owner.write(CONTROL, 0x1F)
    assert owner.read(CONTROL) == 0x0F
    assert owner.ioctl(FROB_CONTROL, b"\x1f\x10", 1) == b"\x00"
    owner.connect_interrupt()
    owner.write(CONTROL, 0x0C)
    assert owner.read(CONTROL) == 0x1C
    assert owner.ioctl(FROB_CONTROL, b"\x13\x03", 1) == b"\x1f"
    owner.disconnect_interrupt()
    assert owner.read(CONTROL) == 0x0F


def test_data_lines_are_outputs_again_when_ownership_ends(connect: Connect) -> None:
    owner = connect()
    owner.allocate()
    owner.write(CONTROL, 0x2C)
    assert owner.read(CONTROL) == 0x2C
    owner.ioctl(FREE)
    assert owner.read(CONTROL) == 0x0C


def test_a_write_tells_when_it_was(connect: Connect) -> None:
    owner = connect()
    owner.allocate()
    began_ns, began_realtime_ns = time.monotonic_ns(), time.time_ns()
    before_ns, _ = owner.call("ping")
    written_ns = u64(owner.ioctl(WRITE_PORT_UCHAR, DATA + b"\x01", 8))
    after_ns, after_realtime_ns = owner.call("ping")
    assert began_ns <= before_ns < written_ns < after_ns <= time.monotonic_ns()
    is_set_ns = 10**10  # the time of day may be set meanwhile
    assert began_realtime_ns - is_set_ns < after_realtime_ns < time.time_ns() + is_set_ns


# Information


def test_callbacks_are_control_codes(connect: Connect) -> None:
    """So a client calls through the structures it was given, as a driver would."""
    client = connect()
    *addresses, span = struct.unpack_from("<QQI", client.ioctl(GET_PORT_INFO, b"", 56))
    try_allocate_port, free_port, query, context = struct.unpack_from("<QQQQ", client.ioctl(GET_PORT_INFO, b"", 56), 24)
    assert (addresses, span) == ([0, 0], 3)
    assert (try_allocate_port, free_port, query) == (TRY_ALLOCATE_PORT, FREE_PORT, QUERY_NUM_WAITERS)
    handle = context.to_bytes(8, "little")
    assert client.ioctl(try_allocate_port, handle, 1) == b"\x01"
    assert client.ioctl(query, handle, 4) == b"\x00" * 4
    client.ioctl(free_port, handle)
    interrupt, try_, free, same = struct.unpack("<QQQQ", client.ioctl(CONNECT_INTERRUPT, routine(1), 32))
    assert interrupt == client.welcome["stream"] > 0
    assert (try_, free, same) == (TRY_ALLOCATE_AT_INTERRUPT_LEVEL, FREE_FROM_INTERRUPT_LEVEL, context)
    assert len(client.ioctl(GET_MORE_PORT_INFO, b"", 32)) == 32
    pnp = client.ioctl(GET_PNP_INFO, b"", 112)
    assert context in struct.unpack("<14Q", pnp)


def test_the_interrupt_frame_has_42_bytes_the_same_for_every_subscriber(
    daemon: DaemonProcess, connect: Connect
) -> None:
    owner, one, two = connect(), connect(), connect()
    owner.allocate()
    for client in (one, two):
        client.connect_interrupt()
        client.heard()
    owner.raise_interrupts(1)
    frames = [client.socket.recv(1000) for client in (one, two)]
    assert frames[0] == frames[1]
    frame = frames[0]
    assert len(frame) == 42
    assert frame[:14] == b"\x93\x02\xa9interrupt\x96\xcf"
    assert [frame[place] for place in (22, 31, 36, 38, 40)] == [0xCF, 0xCE, 0xCC, 0xCC, 0xCC]
    assert frame[32:36] == b"\x00\x00\x00\x01"
    assert frame[41] == 0


def test_hello_may_choose_notifications(connect: Connect) -> None:
    owner, waiter = connect(notifications=[]), connect(notifications=["closing", "unknown"])
    owner.allocate()
    owner.connect_interrupt(1, deferred=1)
    msgid = waiter.control(ALLOCATE)
    assert owner.heard() == []
    owner.raise_interrupts(1)
    assert owner.heard() == []
    owner.ioctl(FREE)
    waiter.output(msgid)
    assert waiter.heard() == []
    waiter.ioctl(FREE)
    assert owner.heard() == []
    assert owner.disconnect_interrupt(1, deferred=1)


def test_an_allocate_tells_its_grant_only_where_there_is_room(connect: Connect) -> None:
    client = connect()
    assert client.ioctl(ALLOCATE, b"ignored", 7) == b""
    client.ioctl(FREE)
    assert len(client.ioctl(ALLOCATE, b"", 9)) == 8
