"""A parallel port without hardware, at the level of registers and lines.

It ships with the product: `lptd serve --simulate` serves one, and whoever writes a client can test against it. Beside
the interface of every port it has what the other end of the cable would do: the *peripheral's side*.

    register    its bits      the lines at the connector
    0 data      7 … 0         D7 … D0
    1 status    7 6 5 4 3     not Busy, nAck, PaperEnd, Select, nError
    2 control   3 2 1 0       not nSelectIn, nInit, not nAutoFd, not nStrobe
                5 4           data direction (1 = input), interrupt enable: no lines

An interrupt is the rising edge of nAck (the end of a peripheral's acknowledge pulse) while interrupts are enabled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortError, PortGoneError
from lpt_service.protocol.ioctl import (
    CONTROL_AUTOFD,
    CONTROL_DIRECTION_INPUT,
    CONTROL_INIT,
    CONTROL_INTERRUPT_ENABLE,
    CONTROL_SELECT_IN,
    CONTROL_STROBE,
    STATUS_NACK,
    STATUS_NBUSY,
    STATUS_NERROR,
    STATUS_PAPER_END,
    STATUS_SELECT,
)

# Lines by name, with the bit of the register that shows or drives each.
DATA_LINES: Final = {f"D{bit}": 1 << bit for bit in range(8)}
STATUS_LINES: Final = {
    "nError": STATUS_NERROR,
    "Select": STATUS_SELECT,
    "PaperEnd": STATUS_PAPER_END,
    "nAck": STATUS_NACK,
    "Busy": STATUS_NBUSY,
}
CONTROL_LINES: Final = {
    "nStrobe": CONTROL_STROBE,
    "nAutoFd": CONTROL_AUTOFD,
    "nInit": CONTROL_INIT,
    "nSelectIn": CONTROL_SELECT_IN,
}

# Where register and line are opposites: register = lines ^ inverted.
_STATUS_INVERTED: Final = STATUS_NBUSY
_CONTROL_INVERTED: Final = CONTROL_STROBE | CONTROL_AUTOFD | CONTROL_SELECT_IN
_CONTROL_WRITABLE: Final = CONTROL_STROBE | CONTROL_AUTOFD | CONTROL_INIT | CONTROL_SELECT_IN

_RESET_DATA: Final = 0x00
_RESET_CONTROL: Final = CONTROL_INIT | CONTROL_SELECT_IN
_IDLE_PERIPHERAL: Final = STATUS_NERROR | STATUS_SELECT | STATUS_NACK  # these high; PaperEnd and Busy low
_PULLED_UP: Final = 0xFF  # data lines that nobody drives

# The loop-back plug's five wires join D0 … D4 to the status lines, in the order of the status register's bits.
_PLUG_WIRES: Final = 0x1F
_PLUG_SHIFT: Final = 3

_GONE: Final = "the simulated port was unplugged"


class SimulatedPort(ParallelPort):
    """A PC parallel port, with a loop-back plug in it or an idle peripheral that a test plays.

    The plug joins D0 to nError, D1 to Select, D2 to PaperEnd, D3 to nAck and D4 to Busy: what is written to the data
    register comes back in the status register, and D3 going high raises an interrupt.

    Resource handling: holds one descriptor until `close`.
    """

    kind = "simulated"

    def __init__(
        self,
        *,
        loopback: bool = False,
        bidirectional: bool = True,
        can_disable_interrupt: bool = True,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Make a port in the state of a PC's after reset: data 0, control 0x0C.

        Args:
            loopback: the plug is in; otherwise a peripheral is there, idle, and does what the test tells it.
            bidirectional: control bit 5 exists.
            can_disable_interrupt: if False, control bit 4 is set from the beginning and stays, as with Linux ppdev.
            monotonic_ns: the clock of what writes return.
        """
        self.is_bidirectional = bidirectional
        self.can_disable_interrupt = can_disable_interrupt
        self._has_plug = loopback
        self._monotonic_ns = monotonic_ns
        self._writable = _CONTROL_WRITABLE | (CONTROL_DIRECTION_INPUT if bidirectional else 0)
        self._data = _RESET_DATA
        self._control = _RESET_CONTROL | (0 if can_disable_interrupt else CONTROL_INTERRUPT_ENABLE)
        self._peripheral_data: int | None = None
        self._status_lines = _IDLE_PERIPHERAL
        self._is_gone = False
        self._tells = True  # that it is gone
        self._writes_to_fail: int | None = 0  # None: all
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # its counter: interrupts not taken yet
        self._settle()

    # The interface of every port: `base` has the contracts

    def read_data(self) -> int:
        return self._read(self._data_lines())

    def read_status(self) -> int:
        return self._read(self._status_lines ^ _STATUS_INVERTED)

    def read_control(self) -> int:
        return self._read(self._control)

    def write_data(self, value: int) -> int:
        self._check_write()
        if not self._is_gone:
            self._data = value
            self._settle()
        return self._monotonic_ns()

    def write_control(self, value: int) -> int:
        self._check_write()
        if not self._is_gone:
            self._control = self._control & CONTROL_INTERRUPT_ENABLE | value & self._writable
            self._settle()
        return self._monotonic_ns()

    def set_interrupt_enable(self, enable: bool) -> None:
        if not self.can_disable_interrupt:
            self._check()
            return
        self._check_write()
        if enable:
            self._control |= CONTROL_INTERRUPT_ENABLE
        else:
            self._control &= ~CONTROL_INTERRUPT_ENABLE

    def fileno(self) -> int:
        """The descriptor of the interface; -1 once the port is closed."""
        return self._event

    def take_interrupts(self) -> int:
        self._check()
        try:
            return os.eventfd_read(self._event)
        except BlockingIOError:
            return 0

    def check_present(self) -> None:
        self._check()
        if self._is_gone:
            raise PortGoneError(_GONE)

    def close(self) -> None:
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

    # The peripheral's side

    @property
    def lines(self) -> dict[str, bool]:
        """The level of each of the 17 lines by name: True is high, as a meter at the connector would show it."""
        data, control = self._data_lines(), self._control ^ _CONTROL_INVERTED
        return {
            **{name: bool(data & bit) for name, bit in DATA_LINES.items()},
            **{name: bool(self._status_lines & bit) for name, bit in STATUS_LINES.items()},
            **{name: bool(control & bit) for name, bit in CONTROL_LINES.items()},
        }

    def set_status_lines(self, **levels: bool) -> None:
        """Drive status lines, by name: `set_status_lines(nAck=False, Busy=True)`. The others stay as they are.

        Raises ValueError for a name that is no status line, and while the plug is in: there is no peripheral then.
        """
        if self._has_plug:
            raise ValueError("the loop-back plug drives the status lines")
        if not levels.keys() <= STATUS_LINES.keys():
            raise ValueError(f"status lines are {', '.join(STATUS_LINES)}; got {', '.join(levels)}")
        lines = self._status_lines
        for name, is_high in levels.items():
            lines = lines | STATUS_LINES[name] if is_high else lines & ~STATUS_LINES[name]
        self._set_status_lines(lines)

    @property
    def peripheral_data(self) -> int | None:
        """What the peripheral puts on the data lines while they are inputs; None: nothing, and they are pulled up."""
        return self._peripheral_data

    @peripheral_data.setter
    def peripheral_data(self, value: int | None) -> None:
        self._peripheral_data = value
        self._settle()

    def raise_interrupt(self, count: int = 1) -> None:
        """Pulse nAck low and high `count` times, then leave it as it was.

        As with any peripheral, nothing comes of it while interrupts are not enabled. It works with the plug in as
        well: a second source on the same wire.
        """
        self._rise(count)

    def unplug(self, *, silently: bool = False) -> None:
        """Take the device away: from now on every access raises PortGoneError, and the descriptor is readable.

        Silently, as with Linux ppdev: reads give 0, writes go nowhere, and `check_present` alone raises.
        """
        if not silently and not self._is_gone and self._event >= 0:
            os.eventfd_write(self._event, 1)
        self._is_gone = True
        self._tells = not silently

    def fail_writes(self, count: int | None = None) -> None:
        """Let the next `count` register writes raise PortError and change nothing (None: all; 0: none any more)."""
        self._writes_to_fail = count

    # Inside

    def _check(self) -> None:
        if self._is_gone and self._tells:
            raise PortGoneError(_GONE)
        if self._event < 0:
            raise PortError("the simulated port is closed")

    def _read(self, value: int) -> int:
        self._check()
        return 0 if self._is_gone else value

    def _check_write(self) -> None:
        self._check()
        if self._writes_to_fail != 0:
            if self._writes_to_fail is not None:
                self._writes_to_fail -= 1
            raise PortError("the simulated port was told to fail this write")

    def _data_lines(self) -> int:
        if not self._control & CONTROL_DIRECTION_INPUT:
            return self._data
        return _PULLED_UP if self._peripheral_data is None else self._peripheral_data

    def _settle(self) -> None:
        """Let the status lines follow the data lines, as far as wires join them."""
        if self._has_plug:
            self._set_status_lines((self._data_lines() & _PLUG_WIRES) << _PLUG_SHIFT)

    def _set_status_lines(self, lines: int) -> None:
        rising = lines & ~self._status_lines
        self._status_lines = lines
        if rising & STATUS_NACK:
            self._rise(1)

    def _rise(self, count: int) -> None:
        """The nAck line has risen `count` times."""
        if self._control & CONTROL_INTERRUPT_ENABLE and not self._is_gone and self._event >= 0:
            os.eventfd_write(self._event, count)
