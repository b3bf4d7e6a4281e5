"""The PARALLEL_* structures: little-endian, 64-bit layout (LLP64), as bytes and as named fields.

Sources: the DDI pages of parallel.h for the members, natural alignment for the offsets. `pack` gives exactly `SIZE`
bytes; `unpack` reads the first `SIZE` bytes of a buffer that may be longer.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import ClassVar, TypeVar

from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status

Self = TypeVar("Self", bound="_Structure")


@dataclass(frozen=True)
class _Structure:
    """A C structure of integers: `_LAYOUT` lists them in order, padding included."""

    _LAYOUT: ClassVar[struct.Struct]
    SIZE: ClassVar[int]

    def pack(self) -> bytes:
        """The structure as `SIZE` bytes."""
        return self._LAYOUT.pack(*astuple(self))

    @classmethod
    def unpack(cls: type[Self], buffer: bytes) -> Self:
        """Read the structure from the start of `buffer`.

        Raises RequestError(STATUS_BUFFER_TOO_SMALL) when `buffer` is shorter than the structure.
        """
        if len(buffer) < cls.SIZE:
            raise RequestError(
                Status.STATUS_BUFFER_TOO_SMALL, f"buffer is {len(buffer)} bytes, {cls.__name__} is {cls.SIZE}"
            )
        return cls(*cls._LAYOUT.unpack_from(buffer))


@dataclass(frozen=True)
class PARALLEL_INTERRUPT_SERVICE_ROUTINE(_Structure):  # noqa: N801 - the names are Windows'
    """In of CONNECT and DISCONNECT_INTERRUPT: two routines and their contexts, u64 tokens that the client chooses."""

    _LAYOUT = struct.Struct("<QQQQ")
    SIZE = _LAYOUT.size

    InterruptServiceRoutine: int
    InterruptServiceContext: int
    DeferredPortCheckRoutine: int = 0
    DeferredPortCheckContext: int = 0


@dataclass(frozen=True)
class PARALLEL_INTERRUPT_INFORMATION(_Structure):  # noqa: N801
    """Out of CONNECT_INTERRUPT: the port's interrupt object, which is its log's `stream`, never 0; the control codes of
    the interrupt-level callbacks, and the handle they take.
    """

    _LAYOUT = struct.Struct("<QQQQ")
    SIZE = _LAYOUT.size

    InterruptObject: int
    TryAllocatePortAtInterruptLevel: int
    FreePortFromInterruptLevel: int
    Context: int


@dataclass(frozen=True)
class PARALLEL_PORT_INFORMATION(_Structure):  # noqa: N801
    """Out of GET_PARALLEL_PORT_INFO: the registers, and the control codes of the allocation callbacks."""

    _LAYOUT = struct.Struct("<QQI4xQQQQ")
    SIZE = _LAYOUT.size

    OriginalController: int
    Controller: int
    SpanOfController: int
    TryAllocatePort: int
    FreePort: int
    QueryNumWaiters: int
    Context: int


@dataclass(frozen=True)
class MORE_PARALLEL_PORT_INFORMATION(_Structure):  # noqa: N801
    """Out of GET_MORE_PARALLEL_PORT_INFO: bus and interrupt resources."""

    _LAYOUT = struct.Struct("<IIIIQI4x")
    SIZE = _LAYOUT.size

    InterfaceType: int
    BusNumber: int
    InterruptLevel: int
    InterruptVector: int
    InterruptAffinity: int
    InterruptMode: int


@dataclass(frozen=True)
class PARALLEL_PNP_INFORMATION(_Structure):  # noqa: N801
    """Out of GET_PARALLEL_PNP_INFO: capabilities of the port, and the callbacks for chip modes and selection."""

    _LAYOUT = struct.Struct("<QQIII4xQQIIQIIQQQI4xQ")
    SIZE = _LAYOUT.size

    OriginalEcpController: int = 0
    EcpController: int = 0
    SpanOfEcpController: int = 0
    PortNumber: int = 0
    HardwareCapabilities: int = 0
    TrySetChipMode: int = 0
    ClearChipMode: int = 0
    FifoDepth: int = 0
    FifoWidth: int = 0
    EppControllerPhysicalAddress: int = 0
    SpanOfEppController: int = 0
    Ieee1284_3DeviceCount: int = 0
    TrySelectDevice: int = 0
    DeselectDevice: int = 0
    Context: int = 0
    CurrentMode: int = 0
    PortName: int = 0


# KINTERRUPT_MODE, INTERFACE_TYPE and HardwareCapabilities values that a port can state.
LATCHED = 1
INTERFACE_TYPE_ISA = 1
PPT_BYTE_PRESENT = 0x8

U8 = struct.Struct("<B")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
REGISTER_WRITE = struct.Struct("<BB")  # offset, value
FROB = struct.Struct("<BB")  # mask, value
PULSE = struct.Struct("<BBI")  # value, after, width_us
PULSE_EDGES = struct.Struct("<QQ")  # monotonic ns of the first and the second edge
TRY_ALLOCATE = struct.Struct("<B7xQ")  # granted, grant
