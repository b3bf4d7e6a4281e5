"""Port kinds, each with the peripheral at the other end of its cable: what `test_parallel_port` runs against.

To add a kind: a peripheral for it, and a row in `SIMULATED_KINDS`; Linux ppdev is in `ppdev_kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    """An open port and what is connected to it.

    Attributes:
        tells_when_gone: every access and the descriptor tell that the device has gone, not `check_present` alone.
    """

    port: ParallelPort
    peripheral: Peripheral
    tells_when_gone: bool


@dataclass(frozen=True)
class PortKind:
    """A port kind by name.

    Attributes:
        set_up: makes a bench; the port is closed, and the device given back, when the context ends.
        prepare: what all benches of the kind have in common.
    """

    name: str
    set_up: Callable[[], AbstractContextManager[Bench]]
    prepare: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class SimulatedPeripheral:
    """The peripheral's side of a simulated port."""

    port: SimulatedPort
    tells_when_gone: bool

    def lines(self) -> dict[str, bool]:
        return self.port.lines

    def set_status_lines(self, **levels: bool) -> None:
        self.port.set_status_lines(**levels)

    def drive_data(self, value: int | None) -> None:
        self.port.peripheral_data = value

    def raise_interrupt(self, count: int = 1) -> None:
        self.port.raise_interrupt(count)

    def unplug(self) -> None:
        self.port.unplug(silently=not self.tells_when_gone)


def simulated_kind(name: str, *, bidirectional: bool = True, as_ppdev: bool = False) -> PortKind:
    """A kind of simulated port; `as_ppdev`: with what Linux ppdev does not have missing."""

    @contextmanager
    def set_up() -> Iterator[Bench]:
        port = SimulatedPort(bidirectional=bidirectional, can_disable_interrupt=not as_ppdev)
        try:
            yield Bench(port, SimulatedPeripheral(port, not as_ppdev), tells_when_gone=not as_ppdev)
        finally:
            port.close()

    return PortKind(name, set_up)


SIMULATED_KINDS = (
    simulated_kind("simulated"),
    simulated_kind("simulated, output only", bidirectional=False),
    simulated_kind("simulated, as ppdev", as_ppdev=True),
    simulated_kind("simulated, as ppdev, output only", bidirectional=False, as_ppdev=True),
)
