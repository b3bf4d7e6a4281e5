"""Opening and closing devices off the event loop, because a kernel may sleep over either."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import trio

from lpt_service.config import SIMULATED, PortConfig
from lpt_service.port.base import ParallelPort
from lpt_service.port.ppdev import PpdevPort
from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol.errors import PortError

# Opening takes microseconds, unless another program holds up all of ppdev.
OPEN_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.0


class PortOpener:
    """Opens one port, as often as it appears; at most one attempt is under way at any time.

    `kind` is that of the port. `may_sleep`: use a thread.
    """

    def __init__(self, kind: str, open_port: Callable[[], ParallelPort], *, may_sleep: bool) -> None:
        self.kind = kind
        self._open_port = open_port
        self._may_sleep = may_sleep
        self._attempt: _Attempt | None = None

    async def open(self) -> ParallelPort:
        """One attempt. Raises PortError, also when the kernel has not come back within OPEN_TIMEOUT_S."""
        if not self._may_sleep:
            return self._open_port()
        if self._attempt is not None and not self._attempt.is_over:
            raise PortError("an earlier attempt to open it still hangs in the kernel")
        attempt = self._attempt = _Attempt(self._open_port)
        try:
            with trio.move_on_after(OPEN_TIMEOUT_S):
                await trio.to_thread.run_sync(attempt.run, abandon_on_cancel=True)
        except BaseException:
            attempt.give_up()
            raise
        port = attempt.take()
        if port is None:
            raise PortError(f"opening it hangs in the kernel for more than {OPEN_TIMEOUT_S:g} s: a program holds it up")
        return port

    async def close(self, port: ParallelPort) -> None:
        """Close a port; one that hangs at it is left to its thread."""
        if not self._may_sleep:
            port.close()
            return
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await trio.to_thread.run_sync(port.close, abandon_on_cancel=True)


class _Attempt:
    """One call of `open_port`, in a thread. A port that comes when nobody waits for it any more is closed."""

    def __init__(self, open_port: Callable[[], ParallelPort]) -> None:
        self.is_over = False
        self._open_port = open_port
        self._lock = threading.Lock()
        self._port: ParallelPort | None = None
        self._is_awaited = True

    def run(self) -> None:
        """In the thread. Raises what `open_port` does."""
        try:
            port = self._open_port()
            with self._lock:
                if self._is_awaited:
                    self._port = port
                    return
            port.close()
        finally:
            self.is_over = True

    def take(self) -> ParallelPort | None:
        """The port, if it has come by now; later it is closed."""
        with self._lock:
            self._is_awaited = False
            return self._port

    def give_up(self) -> None:
        """Nobody wants it any more."""
        port = self.take()
        if port is not None:
            port.close()


def opener_of(config: PortConfig, monotonic_ns: Callable[[], int]) -> PortOpener:
    """What opens the device of a port's configuration. `monotonic_ns` is the clock of what writes return."""
    if config.device == SIMULATED:
        return PortOpener(
            SimulatedPort.kind,
            lambda: SimulatedPort(loopback=config.loopback, monotonic_ns=monotonic_ns),
            may_sleep=False,
        )
    return PortOpener(PpdevPort.kind, lambda: PpdevPort(config.device, monotonic_ns=monotonic_ns), may_sleep=True)
