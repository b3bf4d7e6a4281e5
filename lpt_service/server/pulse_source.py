"""A peripheral that raises interrupts by itself, for simulated ports (`--pulse-hz`)."""

from __future__ import annotations

from typing import Final

import trio

from lpt_service.port.simulated import SimulatedPort

# Below this distance pulses come in groups: a timer is no finer.
_TICK_S: Final = 0.001


async def raise_pulses(port: SimulatedPort, pulse_hz: float) -> None:
    """Raise `pulse_hz` interrupts a second, for ever; those that a late wake-up missed come at once."""
    start = trio.current_time()
    raised = 0
    least_wait_s = _TICK_S if 1 / pulse_hz < _TICK_S else 0.0
    while True:
        next_time = start + (raised + 1) / pulse_hz
        await trio.sleep_until(max(next_time, trio.current_time() + least_wait_s))
        # One is due whatever rounding says: its time has come.
        due = max(1, int((trio.current_time() - start) * pulse_hz) - raised)
        port.raise_interrupt(due)
        raised += due
