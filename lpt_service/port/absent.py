"""The port that is not there: what the daemon has in its place until the device appears."""

from __future__ import annotations

from typing import NoReturn

from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortGoneError


class AbsentPort(ParallelPort):
    """Every access raises PortGoneError with `reason`; `kind` is that of the port that will come."""

    is_bidirectional = False
    can_disable_interrupt = False

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        self.reason = reason

    def _refuse(self) -> NoReturn:
        raise PortGoneError(self.reason)

    def read_data(self) -> int:
        self._refuse()

    def read_status(self) -> int:
        self._refuse()

    def read_control(self) -> int:
        self._refuse()

    def write_data(self, value: int) -> int:
        self._refuse()

    def write_control(self, value: int) -> int:
        self._refuse()

    def set_interrupt_enable(self, enable: bool) -> None:
        self._refuse()

    def fileno(self) -> int:
        return -1

    def take_interrupts(self) -> int:
        self._refuse()

    def check_present(self) -> None:
        self._refuse()

    def close(self) -> None:
        return
