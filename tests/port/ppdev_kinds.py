"""Linux ppdev as port kinds, in the virtual machine of tests/vm: the module's port, and QEMU's port of a PC.

On any other machine there are none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from lpt_service.port.ppdev import PpdevPort
from lpt_service.port.simulated import CONTROL_LINES, DATA_LINES
from tests.port.port_kinds import Bench, PortKind
from tests.vm.peripheral import DEVICE, VirtualPeripheral

_IDLE_STATUS: Final = 0xD8
_CONTROL_INVERTED: Final = 0x0B


def ppdev_kinds() -> tuple[PortKind, ...]:
    """The kinds of this machine."""
    if not DEVICE.exists():
        return ()
    return (
        _module_kind("ppdev"),
        _module_kind("ppdev, output only", output_only=True),
        PortKind("ppdev, PC", _pc_port),
    )


def _module_kind(name: str, *, output_only: bool = False) -> PortKind:
    """The port of tests/vm/vparport."""
    peripheral = VirtualPeripheral()

    @contextmanager
    def prepare() -> Iterator[None]:
        _pull_card(peripheral)
        peripheral.plug(output_only=output_only)
        yield
        _pull_card(peripheral)
        peripheral.plug()

    @contextmanager
    def set_up() -> Iterator[Bench]:
        number = peripheral.report().number
        if number is None:  # the test before has pulled it
            number = peripheral.plug(output_only=output_only)
        peripheral.set_status(_IDLE_STATUS)
        peripheral.drive_data(None)
        port = PpdevPort(f"/dev/parport{number}")
        try:
            yield Bench(port, peripheral, tells_when_gone=False)
        finally:
            port.close()

    return PortKind(name, set_up, prepare)


def _pull_card(peripheral: VirtualPeripheral) -> None:
    if peripheral.report().number is not None:
        peripheral.unplug()


# QEMU's port

_PC_DEVICE: Final = "/dev/parport0"
_DATA, _STATUS, _CONTROL = 0x378, 0x379, 0x37A
_STROBE, _INIT, _SELECT_IN = 0x01, 0x04, 0x08
_DRIVER: Final = Path("/sys/bus/pnp/drivers/parport_pc")


@contextmanager
def _pc_port() -> Iterator[Bench]:
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})  # the processor that takes interrupts: one that is raised has come when we go on
    try:
        with PcPeripheral() as peripheral:
            port = PpdevPort(_PC_DEVICE)
            try:
                yield Bench(port, peripheral, tells_when_gone=False)
            finally:
                port.close()
    finally:
        os.sched_setaffinity(0, affinity)


class PcPeripheral:
    """The other end of QEMU's port, played at its registers behind the driver's back, by way of /dev/port.

    The port looks for no status lines but its own: it is a printer that takes each byte. An interrupt comes where a
    strobe ends, and not again before the status register has been read.
    """

    def __init__(self) -> None:
        self._registers = os.open("/dev/port", os.O_RDWR | os.O_CLOEXEC)
        self._unbound: str | None = None
        control = self._get(_CONTROL)
        self._put(_CONTROL, control & ~_INIT)  # the printer is idle after that
        self._put(_CONTROL, control)

    def __enter__(self) -> PcPeripheral:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._registers)
        if self._unbound is not None:
            (_DRIVER / "bind").write_text(self._unbound, encoding="ascii")

    def lines(self) -> dict[str, bool]:
        tables = ((DATA_LINES, self._get(_DATA)), (CONTROL_LINES, self._get(_CONTROL) ^ _CONTROL_INVERTED))
        return {name: bool(levels & bit) for table, levels in tables for name, bit in table.items()}

    def set_status_lines(self, **levels: bool) -> None:
        pytest.skip("nobody can set the status lines of QEMU's port")

    def drive_data(self, value: int | None) -> None:
        if value is not None:
            pytest.skip("nobody can drive the data lines of QEMU's port")

    def raise_interrupt(self, count: int = 1) -> None:
        before = self._get(_CONTROL)
        idle = before & ~_STROBE | _INIT | _SELECT_IN
        for _ in range(count):
            self._get(_STATUS)
            self._put(_CONTROL, idle | _STROBE)
            self._put(_CONTROL, idle)
        if before != idle:
            self._put(_CONTROL, before)

    def unplug(self) -> None:
        (device,) = (link.name for link in _DRIVER.iterdir() if link.is_symlink() and link.name != "module")
        (_DRIVER / "unbind").write_text(device, encoding="ascii")
        self._unbound = device

    def _get(self, register: int) -> int:
        return os.pread(self._registers, 1, register)[0]

    def _put(self, register: int, value: int) -> None:
        os.pwrite(self._registers, bytes((value,)), register)
