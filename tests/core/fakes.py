"""A port to decide about: registers without hardware, whose every access is written down and can be made to fail."""

from __future__ import annotations

from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortError, PortGoneError
from lpt_service.protocol.ioctl import CONTROL_DIRECTION_INPUT, CONTROL_INTERRUPT_ENABLE

START_NS = 1_000_000_000_000


class FakePort(ParallelPort):
    """A parallel port as `core` sees it.

    Attributes:
        now_ns: what its clock shows; whoever tests sets it.
        journal: every change of the port, in order: ("data", value), ("control", value), ("enable", is_on).
        accesses: how many register accesses there have been; from number `gone_at` on they raise PortGoneError.
        latched: interrupts that have not been taken.
    """

    kind = "fake"

    def __init__(self, *, is_bidirectional: bool = True, can_disable_interrupt: bool = True) -> None:
        self.is_bidirectional = is_bidirectional
        self.can_disable_interrupt = can_disable_interrupt
        self.now_ns = START_NS
        self.data = 0
        self.status = 0x78
        self.control = 0x0C
        self.latched = 0
        self.journal: list[tuple[str, int]] = []
        self.accesses = 0
        self.gone_at: int | None = None
        self._failing: dict[str, int] = {}

    @property
    def interrupt_enable(self) -> bool:
        """Control bit 4."""
        return bool(self.control & CONTROL_INTERRUPT_ENABLE)

    def raise_interrupts(self, count: int) -> None:
        """The line rises `count` times."""
        if self.interrupt_enable or not self.can_disable_interrupt:
            self.latched += count

    def fail(self, *names: str, after: int = 0) -> None:
        """Let these methods raise PortError, once each has worked `after` more times."""
        self._failing.update(dict.fromkeys(names, after))

    def recover(self) -> None:
        """Let no method fail any more."""
        self._failing.clear()

    def go(self) -> None:
        """Be unplugged: every access fails from now on."""
        self.gone_at = self.accesses + 1

    def written(self, register: str) -> list[int]:
        """What has been written to "data" or "control", in order."""
        return [value for name, value in self.journal if name == register]

    def _access(self, name: str) -> None:
        self.accesses += 1
        if self.gone_at is not None and self.accesses >= self.gone_at:
            raise PortGoneError("unplugged")
        if name in self._failing:
            if self._failing[name] == 0:
                raise PortError(f"{name} failed")
            self._failing[name] -= 1

    def read_data(self) -> int:
        self._access("read_data")
        return self.data

    def read_status(self) -> int:
        self._access("read_status")
        return self.status

    def read_control(self) -> int:
        self._access("read_control")
        return self.control

    def write_data(self, value: int) -> int:
        self._access("write_data")
        self.data = value
        self.journal.append(("data", value))
        return self.now_ns

    def write_control(self, value: int) -> int:
        self._access("write_control")
        writable = 0x0F | (CONTROL_DIRECTION_INPUT if self.is_bidirectional else 0)
        self.control = self.control & CONTROL_INTERRUPT_ENABLE | value & writable
        self.journal.append(("control", value))
        return self.now_ns

    def set_interrupt_enable(self, enable: bool) -> None:
        self._access("set_interrupt_enable")
        if self.can_disable_interrupt:
            self.control = self.control & ~CONTROL_INTERRUPT_ENABLE | (CONTROL_INTERRUPT_ENABLE if enable else 0)
        self.journal.append(("enable", enable))

    def fileno(self) -> int:
        return -1

    def take_interrupts(self) -> int:
        self._access("take_interrupts")
        taken, self.latched = self.latched, 0
        return taken

    def check_present(self) -> None:
        self._access("check_present")

    def close(self) -> None:
        """There is nothing to give back."""
