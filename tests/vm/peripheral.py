"""The peripheral at the guest's second parallel port (/dev/parport1 at first): what a test in the guest makes it do.

The kernel module in `vparport/` is the port; its source says what is said in /dev/vparport.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from lpt_service.port.simulated import CONTROL_LINES, DATA_LINES, STATUS_LINES

DEVICE: Final = Path("/dev/vparport")

_STATUS_INVERTED: Final = 0x80  # register = lines ^ inverted
_CONTROL_INVERTED: Final = 0x0B


class Write(NamedTuple):
    """A write to the port, with CLOCK_MONOTONIC in ns; `register` is "data" or "control"."""

    at_ns: int
    register: str
    value: int


@dataclass(frozen=True)
class Report:
    """What the port looks like at one moment.

    Attributes:
        number: N of /dev/parportN; None while unplugged.
        data, control, status: the registers, with control bits 4 (interrupt enable) and 5 (direction) too.
        interrupts: how many the kernel was given, since the guest booted.
        write_count: writes to the data and control registers since the guest booted.
        writes: the last ones of these (up to 256), oldest first.
    """

    number: int | None
    data: int
    control: int
    status: int
    interrupts: int
    write_count: int
    writes: list[Write]


class VirtualPeripheral:
    """The other end of the cable. It has no state of its own: any number of processes may play it."""

    # As `tests/port/port_kinds.py` has it

    def lines(self) -> dict[str, bool]:
        """The level of each line by name: True is high."""
        report = self.report()
        registers = (
            (DATA_LINES, report.data),
            (STATUS_LINES, report.status ^ _STATUS_INVERTED),
            (CONTROL_LINES, report.control ^ _CONTROL_INVERTED),
        )
        return {name: bool(levels & bit) for table, levels in registers for name, bit in table.items()}

    def set_status_lines(self, **levels: bool) -> None:
        """Drive status lines: nError, Select, PaperEnd, nAck, Busy; nAck going high is an interrupt."""
        lines = self.report().status ^ _STATUS_INVERTED
        for name, level in levels.items():
            lines = lines | STATUS_LINES[name] if level else lines & ~STATUS_LINES[name]
        self.set_status(lines ^ _STATUS_INVERTED)

    def drive_data(self, value: int | None) -> None:
        """Drive the data lines, which a port reads that has them as inputs; None: let go of them, they read 0xFF."""
        self._command("drive none" if value is None else f"drive {value}")

    def raise_interrupt(self, count: int = 1) -> None:
        """Pulse nAck low and high, as fast as the kernel can; returns once the last interrupt's handler has run.

        Raises:
            OSError: ENODEV, the port is unplugged or was while this went on.
        """
        self._command(f"ack {count}")

    def unplug(self) -> None:
        """Take the card out. Raises OSError, ENODEV, where none is in."""
        self._command("unplug")

    # More

    def plug(self, *, output_only: bool = False) -> int:
        """Put a card in; the number of its port. The kernel then probes what is connected, and writes to its registers.

        Raises:
            OSError: EBUSY, one is in.
        """
        self._command("plug output" if output_only else "plug")
        number = self.report().number
        assert number is not None
        return number

    def set_status(self, register: int) -> None:
        """Drive the status lines so that the computer reads this register (bits 3 to 7)."""
        self._command(f"status {register}")

    def report(self) -> Report:
        """What the port looks like now."""
        text = self._read()
        values = {name: int(value, 0) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
        writes = re.findall(r"^write (\d+) (\w+) (\S+)$", text, re.MULTILINE)
        return Report(
            number=values["port"] if values["port"] >= 0 else None,
            data=values["data"],
            control=values["control"],
            status=values["status"],
            interrupts=values["interrupts"],
            write_count=values["writes"],
            writes=[Write(int(at_ns), register, int(value, 0)) for at_ns, register, value in writes],
        )

    # The way to the device; `tests.vm.daemon.DistantPeripheral` has another

    def _read(self) -> str:
        return DEVICE.read_text(encoding="ascii")

    def _command(self, command: str) -> None:
        with DEVICE.open("wb", buffering=0) as device:
            device.write(command.encode())
