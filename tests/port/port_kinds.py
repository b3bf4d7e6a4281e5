"""Port kinds, each with the peripheral at the other end of its cable: what `test_parallel_port` runs against.

To add a kind: a peripheral for it, and a row in `PORT_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from lpt_service.port.base import ParallelPort
from lpt_service.port.simulated import SimulatedPort


class Peripheral(Protocol):
    """The other end of the cable, as the test plays it.

    It is idle in the beginning: nError, Select and nAck high, PaperEnd and Busy low, the data lines not driven. Each
    method returns once its effect has reached the port. What a peripheral cannot play it skips (`pytest.skip`).
    """

    def lines(self) -> dict[str, bool]:
        """The level of each line by name (D0 … D7, nStrobe, nAutoFd, nInit, nSelectIn among them): True is high."""

    def set_status_lines(self, **levels: bool) -> None:
        """Drive status lines: nError, Select, PaperEnd, nAck, Busy."""

    def drive_data(self, value: int | None) -> None:
        """Drive the data lines, for a port that reads them; None: let go of them."""

    def raise_interrupt(self, count: int = 1) -> None:
        """Pulse nAck low and high."""

    def unplug(self) -> None:
        """Take the device away from under the port."""


@dataclass(frozen=True)
class Bench:
    """An open port and what is connected to it."""

    port: ParallelPort
    peripheral: Peripheral


@dataclass(frozen=True)
class PortKind:
    """A way to set up a bench; the port is closed, and the device given back, when the context ends."""

    name: str
    set_up: Callable[[], AbstractContextManager[Bench]]


@dataclass(frozen=True)
class SimulatedPeripheral:
    """The peripheral's side of a simulated port."""

    port: SimulatedPort

    def lines(self) -> dict[str, bool]:
        return self.port.lines

    def set_status_lines(self, **levels: bool) -> None:
        self.port.set_status_lines(**levels)

    def drive_data(self, value: int | None) -> None:
        self.port.peripheral_data = value

    def raise_interrupt(self, count: int = 1) -> None:
        self.port.raise_interrupt(count)

    def unplug(self) -> None:
        self.port.unplug()


def simulated_kind(name: str, *, bidirectional: bool = True, can_disable_interrupt: bool = True) -> PortKind:
    """A kind of simulated port."""

    @contextmanager
    def set_up() -> Iterator[Bench]:
        port = SimulatedPort(bidirectional=bidirectional, can_disable_interrupt=can_disable_interrupt)
        try:
            yield Bench(port, SimulatedPeripheral(port))
        finally:
            port.close()

    return PortKind(name, set_up)


PORT_KINDS = (
    simulated_kind("simulated"),
    simulated_kind("simulated, output only", bidirectional=False),
    simulated_kind("simulated, as ppdev", can_disable_interrupt=False),
)
