"""Linux ppdev as it is: one method for each ioctl, nothing else. For tests inside the guest."""

from __future__ import annotations

import fcntl
import os
import struct
from types import TracebackType
from typing import Final, Self

_MAGIC: Final = ord("p")
_WRITE: Final = 1
_READ: Final = 2

# The numbers and the sizes in bytes of linux/ppdev.h.
RSTATUS: Final = (_READ, 0x81, 1)
RCONTROL: Final = (_READ, 0x83, 1)
WCONTROL: Final = (_WRITE, 0x84, 1)
RDATA: Final = (_READ, 0x85, 1)
WDATA: Final = (_WRITE, 0x86, 1)
CLAIM: Final = (0, 0x8B, 0)
RELEASE: Final = (0, 0x8C, 0)
YIELD: Final = (0, 0x8D, 0)
FCONTROL: Final = (_WRITE, 0x8E, 2)
EXCL: Final = (0, 0x8F, 0)
DATADIR: Final = (_WRITE, 0x90, 4)
NEGOT: Final = (_WRITE, 0x91, 4)
WCTLONIRQ: Final = (_WRITE, 0x92, 1)
CLRIRQ: Final = (_READ, 0x93, 4)
GETMODES: Final = (_READ, 0x97, 4)

MODE_PCSPP: Final = 1
MODE_TRISTATE: Final = 2


class PpDev:
    """An open /dev/parportN. Every method raises OSError as the kernel says."""

    def __init__(self, number: int) -> None:
        self.fd = os.open(f"/dev/parport{number}", os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, which releases the port; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def ioctl(self, code: tuple[int, int, int], value: int = 0) -> int:
        """Carry out an ioctl with an unsigned value of its size; the value that it left."""
        direction, number, size = code
        request = direction << 30 | size << 16 | _MAGIC << 8 | number
        answer: bytes = fcntl.ioctl(self.fd, request, value.to_bytes(size, "little"))
        return int.from_bytes(answer, "little")

    def claim_exclusively(self) -> None:
        """In this order, as Linux demands; never wait for the port: who waits blocks its owner."""
        self.ioctl(EXCL)
        self.ioctl(CLAIM)

    def frob_control(self, mask: int, value: int) -> None:
        """Set the bits of the control register that are in the mask."""
        self.ioctl(FCONTROL, int.from_bytes(struct.pack("BB", mask, value), "little"))
