"""The module's port, in the guest, through Linux ppdev: what the peripheral plays reaches a program, and back.

`test_guest.py` runs this there. What becomes of an open port when the card is pulled is Linux's doing; what we
build relies on it, so that it is tested here.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import ppdev
from tests.vm.peripheral import VirtualPeripheral
from tests.vm.ppdev import PpDev

FLOOD = 10_000_000  # for the better part of a minute, unless it is ended
STATUS_IDLE = 0xD8


@pytest.fixture
def peripheral() -> Iterator[VirtualPeripheral]:
    peripheral = VirtualPeripheral()
    yield peripheral
    if peripheral.report().number is not None:
        peripheral.unplug()
    peripheral.plug()
    peripheral.set_status(STATUS_IDLE)
    peripheral.drive_data(None)


@pytest.fixture
def port(peripheral: VirtualPeripheral) -> Iterator[PpDev]:
    number = peripheral.report().number
    assert number == 1
    with PpDev(number) as port:
        port.claim_exclusively()
        yield port


def is_readable(port: PpDev) -> bool:
    return bool(select.select([port.fd], [], [], 0)[0])


def error_of(port: PpDev, code: tuple[int, int, int]) -> int | None:
    try:
        port.ioctl(code)
    except OSError as exc:
        return exc.errno
    return None


# The lines


def test_all_patterns_of_the_status_lines(port: PpDev, peripheral: VirtualPeripheral) -> None:
    for pattern in range(0x00, 0x100, 0x08):
        peripheral.set_status(pattern)
        assert port.ioctl(ppdev.RSTATUS) == pattern


def test_status_lines_by_name(port: PpDev, peripheral: VirtualPeripheral) -> None:
    peripheral.set_status_lines(PaperEnd=True, Busy=True, nError=False)
    assert port.ioctl(ppdev.RSTATUS) == 0x70
    lines = peripheral.lines()
    assert [lines[name] for name in ("nError", "Select", "PaperEnd", "nAck", "Busy")] == [False, True, True, True, True]


def test_what_a_program_writes(port: PpDev, peripheral: VirtualPeripheral) -> None:
    before_ns = time.monotonic_ns()
    port.ioctl(ppdev.WDATA, 0x5A)
    port.ioctl(ppdev.WCONTROL, 0x0D)
    after_ns = time.monotonic_ns()
    assert port.ioctl(ppdev.RCONTROL) == 0x0D
    report = peripheral.report()
    assert (report.data, report.control) == (0x5A, 0x1D)  # bit 4: ppdev enables interrupts
    assert [(write.register, write.value) for write in report.writes[-2:]] == [("data", 0x5A), ("control", 0x1D)]
    assert before_ns < report.writes[-2].at_ns <= report.writes[-1].at_ns < after_ns
    assert peripheral.lines()["nStrobe"] is False


def test_data_lines_as_inputs(port: PpDev, peripheral: VirtualPeripheral) -> None:
    port.ioctl(ppdev.WDATA, 0x0F)
    port.ioctl(ppdev.DATADIR, 1)
    assert port.ioctl(ppdev.RDATA) == 0xFF, "pulled up"
    peripheral.drive_data(0x42)
    assert port.ioctl(ppdev.RDATA) == 0x42
    port.ioctl(ppdev.DATADIR, 0)
    assert port.ioctl(ppdev.RDATA) == 0x0F


def test_a_card_with_outputs_only(peripheral: VirtualPeripheral) -> None:
    peripheral.unplug()
    with PpDev(peripheral.plug(output_only=True)) as port:
        assert port.ioctl(ppdev.GETMODES) & ppdev.MODE_TRISTATE == 0
        port.claim_exclusively()
        port.ioctl(ppdev.WDATA, 0x33)
        port.ioctl(ppdev.DATADIR, 1)
        assert port.ioctl(ppdev.RDATA) == 0x33


# Interrupts


def test_every_interrupt_is_counted(port: PpDev, peripheral: VirtualPeripheral) -> None:
    before = peripheral.report().interrupts
    for _ in range(10):
        peripheral.raise_interrupt(100)
        assert is_readable(port)
        assert port.ioctl(ppdev.CLRIRQ) == 100
    assert not is_readable(port)
    assert peripheral.report().interrupts - before == 1000


def test_only_a_rising_nack_is_an_interrupt(port: PpDev, peripheral: VirtualPeripheral) -> None:
    counts = []
    for level in (False, False, True, True, False, True):
        peripheral.set_status_lines(nAck=level)
        counts.append(port.ioctl(ppdev.CLRIRQ))
    assert counts == [0, 0, 1, 0, 0, 1]


def test_nobody_hears_a_port_that_nobody_claimed(peripheral: VirtualPeripheral) -> None:
    peripheral.unplug()
    peripheral.plug()  # the kernel enables interrupts for the first who claims it
    before = peripheral.report().interrupts
    peripheral.raise_interrupt(5)
    assert peripheral.report().interrupts == before


# The card is pulled


def test_a_pulled_card_as_its_program_sees_it(port: PpDev, peripheral: VirtualPeripheral) -> None:
    peripheral.raise_interrupt(3)
    peripheral.unplug()
    assert not Path("/dev/parport1").exists()
    assert peripheral.report().number is None
    assert error_of(port, ppdev.GETMODES) == errno.ENODEV, "the one that tells"
    assert is_readable(port), "interrupts from before"
    assert port.ioctl(ppdev.CLRIRQ) == 3
    assert not is_readable(port), "no POLLHUP"
    assert (port.ioctl(ppdev.RSTATUS), port.ioctl(ppdev.RDATA)) == (0, 0), "succeeds, and means nothing"
    assert error_of(port, ppdev.RELEASE) is None
    assert error_of(port, ppdev.CLAIM) is None
    with pytest.raises(OSError, match="No such device"):
        peripheral.raise_interrupt()


def test_a_new_card_is_another_port_while_the_old_one_is_open(port: PpDev, peripheral: VirtualPeripheral) -> None:
    peripheral.unplug()
    number = peripheral.plug()
    assert number == 2
    with PpDev(number) as new:
        new.claim_exclusively()
        data = new.ioctl(ppdev.RDATA)
        port.ioctl(ppdev.WDATA, data ^ 0xFF)
        assert new.ioctl(ppdev.RDATA) == data, "the old port leads nowhere"
        assert error_of(port, ppdev.GETMODES) == errno.ENODEV
    port.close()
    peripheral.unplug()
    assert peripheral.plug() == 1


def test_a_card_pulled_amid_a_flood(port: PpDev, peripheral: VirtualPeripheral) -> None:
    before = peripheral.report().interrupts
    ends: list[int | None] = []

    def flood() -> None:
        try:
            peripheral.raise_interrupt(FLOOD)
        except OSError as exc:
            ends.append(exc.errno)

    flooding = threading.Thread(target=flood)
    flooding.start()
    while peripheral.report().interrupts == before:
        assert ends == []
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        port.ioctl(ppdev.WDATA, os.getpid() & 0xFF)
        port.ioctl(ppdev.RSTATUS)
    peripheral.unplug()
    flooding.join()
    assert ends == [errno.ENODEV]
    raised = peripheral.report().interrupts - before
    assert raised > 0
    assert port.ioctl(ppdev.CLRIRQ) == raised
