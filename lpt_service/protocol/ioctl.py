"""The one table of control codes: number, name, buffer sizes, who may call.

Everything that depends on a code (dispatch, size checks, ownership checks, the tables in the docs, the clients) is
drawn from `CONTROL_CODES`. To add a code: a row here, a handler in `core/handlers.py`, a test.

Sources: parallel.h (function numbers of the IOCTL_INTERNAL_ codes); those from 0x800 on are this project's, where
Windows leaves room for vendors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

FILE_DEVICE_PARALLEL_PORT = 0x16


def ctl_code(function: int) -> int:
    """CTL_CODE(FILE_DEVICE_PARALLEL_PORT, function, METHOD_BUFFERED, FILE_ANY_ACCESS)."""
    return FILE_DEVICE_PARALLEL_PORT << 16 | function << 2


class IoctlClass(str, Enum):
    """The major function a request arrives by; its value is the method name on the wire.

    The two classes reuse numbers, so a code means something only together with its class.
    """

    INTERNAL = "internal_device_control"
    DEVICE = "device_control"


class Ioctl(IntEnum):
    """Control codes by name (without the prefix IOCTL_INTERNAL_ or IOCTL_LPT_)."""

    PARALLEL_PORT_ALLOCATE = ctl_code(11)
    GET_PARALLEL_PORT_INFO = ctl_code(12)
    PARALLEL_CONNECT_INTERRUPT = ctl_code(13)
    PARALLEL_DISCONNECT_INTERRUPT = ctl_code(14)
    RELEASE_PARALLEL_PORT_INFO = ctl_code(15)
    GET_MORE_PARALLEL_PORT_INFO = ctl_code(17)
    GET_PARALLEL_PNP_INFO = ctl_code(21)
    PARALLEL_PORT_FREE = ctl_code(40)
    TRY_ALLOCATE_PORT = ctl_code(0x800)
    FREE_PORT = ctl_code(0x801)
    QUERY_NUM_WAITERS = ctl_code(0x802)
    TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL = ctl_code(0x803)
    FREE_PORT_FROM_INTERRUPT_LEVEL = ctl_code(0x804)
    READ_PORT_UCHAR = ctl_code(0x810)
    WRITE_PORT_UCHAR = ctl_code(0x811)
    FROB_CONTROL = ctl_code(0x812)
    PULSE = ctl_code(0x813)


class Role(IntEnum):
    """What somebody may do with a port; each may all that the ones before it may (docs/security.md)."""

    OBSERVE = 1  # see its state, read its registers, hear its interrupts
    USE = 2  # allocate it, and drive its lines
    ADMIN = 3  # take it from others

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class ControlCode:
    """One row of the table.

    Attributes:
        code: the number on the wire.
        prefix: IOCTL_INTERNAL_ (internal class only) or IOCTL_LPT_ (either class).
        input_bytes, output_bytes: the least an input buffer and `output_length` may be; less is
            STATUS_BUFFER_TOO_SMALL. More is fine.
        owner_only: STATUS_ACCESS_DENIED for everybody but the owner.
        needs_port: the owner's request waits behind a job that keeps the port busy.
        gated: STATUS_UNSUCCESSFUL, before any other check, while connecting interrupts is disabled.
        takes_context: the input begins with the session's handle; a wrong one is STATUS_INVALID_PARAMETER.
        role: STATUS_ACCESS_DENIED for a session that has less.
    """

    code: Ioctl
    prefix: str
    input_bytes: int = 0
    output_bytes: int = 0
    owner_only: bool = False
    needs_port: bool = False
    gated: bool = False
    takes_context: bool = False
    role: Role = Role.OBSERVE

    @property
    def name(self) -> str:
        """The full Windows-style name."""
        return self.prefix + self.code.name

    @property
    def function(self) -> int:
        """The function number, CTL_CODE's third argument."""
        return self.code >> 2 & 0xFFF

    @property
    def classes(self) -> tuple[IoctlClass, ...]:
        """The classes in which the code exists."""
        return (IoctlClass.INTERNAL,) if self.prefix == _INTERNAL else (IoctlClass.INTERNAL, IoctlClass.DEVICE)


_INTERNAL = "IOCTL_INTERNAL_"
_LPT = "IOCTL_LPT_"

CONTROL_CODES: tuple[ControlCode, ...] = (
    ControlCode(Ioctl.PARALLEL_PORT_ALLOCATE, _INTERNAL, needs_port=True, role=Role.USE),
    ControlCode(Ioctl.PARALLEL_PORT_FREE, _INTERNAL, needs_port=True, role=Role.USE),
    ControlCode(Ioctl.GET_PARALLEL_PORT_INFO, _INTERNAL, output_bytes=56),
    ControlCode(Ioctl.RELEASE_PARALLEL_PORT_INFO, _INTERNAL),
    ControlCode(Ioctl.GET_MORE_PARALLEL_PORT_INFO, _INTERNAL, output_bytes=32),
    ControlCode(Ioctl.GET_PARALLEL_PNP_INFO, _INTERNAL, output_bytes=112),
    ControlCode(Ioctl.PARALLEL_CONNECT_INTERRUPT, _INTERNAL, input_bytes=32, output_bytes=32, gated=True),
    ControlCode(Ioctl.PARALLEL_DISCONNECT_INTERRUPT, _INTERNAL, input_bytes=32),
    ControlCode(
        Ioctl.TRY_ALLOCATE_PORT, _LPT, input_bytes=8, output_bytes=1, needs_port=True, takes_context=True, role=Role.USE
    ),
    ControlCode(Ioctl.FREE_PORT, _LPT, input_bytes=8, needs_port=True, takes_context=True, role=Role.USE),
    ControlCode(Ioctl.QUERY_NUM_WAITERS, _LPT, input_bytes=8, output_bytes=4, takes_context=True),
    ControlCode(
        Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL,
        _LPT,
        input_bytes=8,
        output_bytes=1,
        needs_port=True,
        takes_context=True,
        role=Role.USE,
    ),
    ControlCode(
        Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL, _LPT, input_bytes=8, needs_port=True, takes_context=True, role=Role.USE
    ),
    ControlCode(Ioctl.READ_PORT_UCHAR, _LPT, input_bytes=1, output_bytes=1, needs_port=True),
    ControlCode(Ioctl.WRITE_PORT_UCHAR, _LPT, input_bytes=2, owner_only=True, needs_port=True, role=Role.USE),
    ControlCode(
        Ioctl.FROB_CONTROL, _LPT, input_bytes=2, output_bytes=1, owner_only=True, needs_port=True, role=Role.USE
    ),
    ControlCode(Ioctl.PULSE, _LPT, input_bytes=6, output_bytes=16, owner_only=True, needs_port=True, role=Role.USE),
)

# Registers, by the offset that READ_PORT_UCHAR and WRITE_PORT_UCHAR take.
DATA, STATUS, CONTROL = 0, 1, 2

# Bits of the registers as the PC parallel port has them (IEEE 1284 compatibility mode, SPP).
STATUS_NERROR = 0x08
STATUS_SELECT = 0x10
STATUS_PAPER_END = 0x20
STATUS_NACK = 0x40
STATUS_NBUSY = 0x80  # inverted by the hardware: the line Busy high reads 0
CONTROL_STROBE = 0x01  # inverted: 1 drives nStrobe low
CONTROL_AUTOFD = 0x02  # inverted
CONTROL_INIT = 0x04
CONTROL_SELECT_IN = 0x08  # inverted
CONTROL_INTERRUPT_ENABLE = 0x10  # belongs to the daemon
CONTROL_DIRECTION_INPUT = 0x20

PULSE_WIDTH_MAX_US = 10_000_000
# A routine from here on lives in the daemon; a client's tokens are below.
RESERVED_ROUTINES = 1 << 63
