"""The ioctl numbers of Linux' ppdev, derived as the kernel's headers derive them.

Only requests whose argument is as long on 32 bits as on 64 are here, so that one number does for both.

Source: include/uapi/linux/ppdev.h, include/uapi/asm-generic/ioctl.h and its variants by architecture.
"""

from __future__ import annotations

import platform
from typing import Final

_UCHAR, _INT, _FROB_STRUCT = 1, 4, 2  # sizes in bytes: unsigned char, int, struct ppdev_frob_struct
_TYPE: Final = ord("p")

# Bits of the size field; the values of _IOC_NONE, _IOC_READ and _IOC_WRITE.
_GENERIC: Final = (14, 0, 2, 1)
_BY_MACHINE: Final = {
    **dict.fromkeys(("alpha", "mips", "mips64", "ppc", "ppc64", "ppc64le", "sparc", "sparc64"), (13, 1, 2, 4)),
    **dict.fromkeys(("parisc", "parisc64"), (14, 0, 1, 2)),
}


class PpdevIoctls:
    """The numbers for one machine, by their names in the kernel's header; `machine` is what `uname -m` prints."""

    def __init__(self, machine: str) -> None:
        size_bits, none, read, write = _BY_MACHINE.get(machine, _GENERIC)

        def number(direction: int, ordinal: int, size: int) -> int:
            return direction << (16 + size_bits) | size << 16 | _TYPE << 8 | ordinal

        self.PPRSTATUS: Final = number(read, 0x81, _UCHAR)
        self.PPRCONTROL: Final = number(read, 0x83, _UCHAR)
        self.PPWCONTROL: Final = number(write, 0x84, _UCHAR)
        self.PPRDATA: Final = number(read, 0x85, _UCHAR)
        self.PPWDATA: Final = number(write, 0x86, _UCHAR)
        self.PPCLAIM: Final = number(none, 0x8B, 0)
        self.PPRELEASE: Final = number(none, 0x8C, 0)
        self.PPFCONTROL: Final = number(write, 0x8E, _FROB_STRUCT)
        self.PPEXCL: Final = number(none, 0x8F, 0)
        self.PPDATADIR: Final = number(write, 0x90, _INT)
        self.PPCLRIRQ: Final = number(read, 0x93, _INT)
        self.PPGETMODES: Final = number(read, 0x97, _INT)


IOCTLS: Final = PpdevIoctls(platform.machine())
