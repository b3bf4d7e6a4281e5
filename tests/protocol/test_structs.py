"""Structures against the same ones declared as C would lay them out (ctypes, 64-bit, natural alignment)."""

import ctypes
from ctypes import c_uint32 as ulong
from ctypes import c_uint64 as pointer
from typing import Any

import pytest

from lpt_service.protocol import structs
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status

PHYSICAL_ADDRESS = KAFFINITY = pointer
INTERFACE_TYPE = KINTERRUPT_MODE = ulong


class ServiceRoutine(ctypes.LittleEndianStructure):
    _fields_ = (
        ("InterruptServiceRoutine", pointer),
        ("InterruptServiceContext", pointer),
        ("DeferredPortCheckRoutine", pointer),
        ("DeferredPortCheckContext", pointer),
    )


class InterruptInformation(ctypes.LittleEndianStructure):
    _fields_ = (
        ("InterruptObject", pointer),
        ("TryAllocatePortAtInterruptLevel", pointer),
        ("FreePortFromInterruptLevel", pointer),
        ("Context", pointer),
    )


class PortInformation(ctypes.LittleEndianStructure):
    _fields_ = (
        ("OriginalController", PHYSICAL_ADDRESS),
        ("Controller", pointer),
        ("SpanOfController", ulong),
        ("TryAllocatePort", pointer),
        ("FreePort", pointer),
        ("QueryNumWaiters", pointer),
        ("Context", pointer),
    )


class MorePortInformation(ctypes.LittleEndianStructure):
    _fields_ = (
        ("InterfaceType", INTERFACE_TYPE),
        ("BusNumber", ulong),
        ("InterruptLevel", ulong),
        ("InterruptVector", ulong),
        ("InterruptAffinity", KAFFINITY),
        ("InterruptMode", KINTERRUPT_MODE),
    )


class PnpInformation(ctypes.LittleEndianStructure):
    _fields_ = (
        ("OriginalEcpController", PHYSICAL_ADDRESS),
        ("EcpController", pointer),
        ("SpanOfEcpController", ulong),
        ("PortNumber", ulong),
        ("HardwareCapabilities", ulong),
        ("TrySetChipMode", pointer),
        ("ClearChipMode", pointer),
        ("FifoDepth", ulong),
        ("FifoWidth", ulong),
        ("EppControllerPhysicalAddress", PHYSICAL_ADDRESS),
        ("SpanOfEppController", ulong),
        ("Ieee1284_3DeviceCount", ulong),
        ("TrySelectDevice", pointer),
        ("DeselectDevice", pointer),
        ("Context", pointer),
        ("CurrentMode", ulong),
        ("PortName", pointer),
    )


PAIRS: list[tuple[Any, Any, int]] = [
    (structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE, ServiceRoutine, 32),
    (structs.PARALLEL_INTERRUPT_INFORMATION, InterruptInformation, 32),
    (structs.PARALLEL_PORT_INFORMATION, PortInformation, 56),
    (structs.MORE_PARALLEL_PORT_INFORMATION, MorePortInformation, 32),
    (structs.PARALLEL_PNP_INFORMATION, PnpInformation, 112),
]
EVERY_STRUCTURE = pytest.mark.parametrize(("ours", "c", "size"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))


def members(c: Any) -> list[tuple[str, int]]:
    """(name, highest value) of each member, in order."""
    return [(name, (1 << 8 * ctypes.sizeof(kind)) - 1) for name, kind in c._fields_]


@EVERY_STRUCTURE
def test_sizes(ours: Any, c: Any, size: int) -> None:
    assert ours.SIZE == ctypes.sizeof(c) == size


@EVERY_STRUCTURE
def test_every_member_is_where_c_puts_it(ours: Any, c: Any, size: int) -> None:
    nothing = dict.fromkeys((name for name, _ in members(c)), 0)
    assert ours(**nothing).pack() == bytes(size)
    for name, highest in members(c):
        for value in (1, highest):
            packed = ours(**nothing | {name: value}).pack()
            assert packed == bytes(c(**{name: value})), name
            assert ours.unpack(packed) == ours(**nothing | {name: value})


@EVERY_STRUCTURE
def test_members_in_order(ours: Any, c: Any, size: int) -> None:
    numbers = range(1, len(c._fields_) + 1)
    assert ours(*numbers).pack() == bytes(c(*numbers))
    assert ours.unpack(bytes(c(*numbers))) == ours(*numbers)


@EVERY_STRUCTURE
def test_a_buffer_may_be_longer_but_not_shorter(ours: Any, c: Any, size: int) -> None:
    value = ours(*range(len(c._fields_)))
    assert ours.unpack(value.pack() + b"more") == value
    for buffer in (value.pack()[:-1], b""):
        with pytest.raises(RequestError, match=f"buffer is {len(buffer)} bytes, {ours.__name__} is {size}") as caught:
            ours.unpack(buffer)
        assert caught.value.status == Status.STATUS_BUFFER_TOO_SMALL


def test_padding_is_ignored() -> None:
    value = structs.MORE_PARALLEL_PORT_INFORMATION(1, 2, 3, 4, 5, 6)
    assert structs.MORE_PARALLEL_PORT_INFORMATION.unpack(value.pack()[:28] + b"\xff" * 4) == value


def test_offsets_of_the_contract() -> None:
    """The two structures whose offsets the contract spells out."""
    routine = structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE(0x11, 0x22, 0x33, 0x44).pack()
    assert [routine.index(byte) for byte in (0x11, 0x22, 0x33, 0x44)] == [0, 8, 16, 24]
    information = structs.PARALLEL_INTERRUPT_INFORMATION(0x11, 0x22, 0x33, 0x44).pack()
    assert [information.index(byte) for byte in (0x11, 0x22, 0x33, 0x44)] == [0, 8, 16, 24]


def test_the_deferred_routine_may_be_left_out() -> None:
    assert structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE(1, 2) == structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE(1, 2, 0, 0)


@pytest.mark.parametrize(
    ("layout", "numbers", "packed"),
    [
        (structs.U8, (0xA5,), "a5"),
        (structs.U32, (0x01020304,), "04030201"),
        (structs.U64, (0x0102030405060708,), "0807060504030201"),
        (structs.REGISTER_WRITE, (2, 0x0C), "020c"),
        (structs.FROB, (0x0F, 0x0C), "0f0c"),
        (structs.PULSE, (0xFF, 0x01, 1000), "ff01e8030000"),
        (structs.PULSE_EDGES, (1, 2), "01000000000000000200000000000000"),
        (structs.TRY_ALLOCATE, (1, 7), "01000000000000000700000000000000"),
    ],
)
def test_buffers_that_are_no_structures(layout: Any, numbers: tuple[int, ...], packed: str) -> None:
    assert layout.pack(*numbers) == bytes.fromhex(packed)
    assert layout.unpack(bytes.fromhex(packed)) == numbers


def test_values_of_windows() -> None:
    assert (structs.LATCHED, structs.INTERFACE_TYPE_ISA, structs.PPT_BYTE_PRESENT) == (1, 1, 8)
