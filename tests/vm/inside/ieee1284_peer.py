"""Debian's libieee1284 as another program has it: open a port, claim it, read its status register, give it back.

python ieee1284_peer.py parport1        prints `status 0x58`, or which step was refused; exit code 0 or 1
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

EXCLUSIVE = 1


class Port(ctypes.Structure):
    """`struct parport` of ieee1284.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("base", ctypes.c_ulong),
        ("high_base", ctypes.c_ulong),
        ("private", ctypes.c_void_p),
        ("file_name", ctypes.c_char_p),
    )


class PortList(ctypes.Structure):
    """`struct parport_list` of ieee1284.h."""

    _fields_ = (("count", ctypes.c_int), ("ports", ctypes.POINTER(ctypes.POINTER(Port))))


def main(name: str) -> int:
    """What the program ends with."""
    library = ctypes.CDLL("libieee1284.so.3", use_errno=True)
    found = PortList()
    library.ieee1284_find_ports(ctypes.byref(found), 0)
    (port,) = [
        found.ports[number] for number in range(found.count) if found.ports[number].contents.name == name.encode()
    ]
    steps: dict[str, Callable[[], int]] = {
        "open": lambda: library.ieee1284_open(port, EXCLUSIVE, ctypes.byref(ctypes.c_int())),
        "claim": lambda: library.ieee1284_claim(port),
    }
    for step, take in steps.items():
        if take() != 0:
            print(f"{step} was refused: {os.strerror(ctypes.get_errno())}")
            return 1
    print(f"status {library.ieee1284_read_status(port):#04x}")
    library.ieee1284_release(port)
    library.ieee1284_close(port)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
