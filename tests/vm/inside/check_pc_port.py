"""The emulated PC port, in the guest, through Linux ppdev: interrupts from the strobe, bytes that go to the host.

`test_guest.py` runs this there, and looks at what arrived on the host.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Iterator

import pytest

from tests.vm import ppdev
from tests.vm.ppdev import PpDev

SENT = bytes(value % 251 for value in range(1000))
STROBE = 0x01
TIMEOUT_S = 120


def is_readable(port: PpDev) -> bool:
    return bool(select.select([port.fd], [], [], TIMEOUT_S)[0])


@pytest.fixture
def port() -> Iterator[PpDev]:
    with PpDev(0) as port:
        port.claim_exclusively()
        assert is_readable(port), "QEMU raises an interrupt when the kernel enables them; it may be late"
        port.ioctl(ppdev.CLRIRQ)
        port.ioctl(ppdev.RSTATUS)  # acknowledges it
        yield port


def test_every_strobe_sends_its_byte_and_raises_its_interrupt(port: PpDev) -> None:
    counts = []
    for value in SENT:
        port.ioctl(ppdev.WDATA, value)
        port.frob_control(STROBE, STROBE)
        port.frob_control(STROBE, 0)
        assert is_readable(port)
        counts.append(port.ioctl(ppdev.CLRIRQ))
        port.ioctl(ppdev.RSTATUS)
    assert counts == [1] * len(SENT)


def test_registers_read_back(port: PpDev) -> None:
    for value in (0x00, 0x55, 0xAA, 0xFF):
        port.ioctl(ppdev.WDATA, value)
        assert port.ioctl(ppdev.RDATA) == value
    assert port.ioctl(ppdev.RCONTROL) == 0x0C
    assert port.ioctl(ppdev.GETMODES) & (ppdev.MODE_PCSPP | ppdev.MODE_TRISTATE) == 3


def test_it_is_one_programs_alone(port: PpDev) -> None:
    with PpDev(0) as other:
        other.ioctl(ppdev.EXCL)
        with pytest.raises(OSError) as caught:
            other.ioctl(ppdev.CLAIM)
    assert caught.value.errno == errno.ENXIO
