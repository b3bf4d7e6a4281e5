"""The daemon's clock, so that tests can bring their own."""

from __future__ import annotations

import time
from typing import Protocol

import trio

# Up to here before the time, sleep; from here on, let other tasks run and look again; in the last stretch, spin.
# epoll sleeps in whole milliseconds, and a wake-up takes some tens of microseconds.
_SLEEP_MARGIN_NS = 1_500_000
_SPIN_NS = 60_000


class Clock(Protocol):
    """CLOCK_MONOTONIC, CLOCK_REALTIME, and waiting."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC in ns."""

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME in ns."""

    async def sleep_until(self, at_ns: int) -> None:
        """Return at `at_ns` (monotonic), as precisely as can be."""


class SystemClock:
    """The machine's clocks."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    realtime_ns = staticmethod(time.time_ns)

    async def sleep_until(self, at_ns: int) -> None:
        """Sleep most of the way, then yield to other tasks, then spin for the last 60 µs."""
        coarse_s = (at_ns - _SLEEP_MARGIN_NS - time.monotonic_ns()) / 1e9
        await trio.sleep(max(0.0, coarse_s))
        while time.monotonic_ns() < at_ns - _SPIN_NS:
            await trio.lowlevel.checkpoint()
        while time.monotonic_ns() < at_ns:
            pass
