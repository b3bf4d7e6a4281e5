"""A peripheral that raises interrupts by itself."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from lpt_service.port.simulated import SimulatedPort
from lpt_service.server.pulse_source import raise_pulses


@pytest.mark.parametrize(("pulse_hz", "for_s"), [(0.5, 100), (1, 60), (10, 10), (1000, 3), (3333, 3), (100_000, 2)])
async def test_so_many_a_second(
    pulse_hz: float, for_s: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    port = SimulatedPort(loopback=True)
    port.set_interrupt_enable(True)
    nursery.start_soon(raise_pulses, port, pulse_hz)
    await trio.sleep(for_s)
    raised = port.take_interrupts()
    assert abs(raised - pulse_hz * for_s) <= max(1, pulse_hz * 0.002)
    await trio.sleep(for_s)
    assert abs(raised + port.take_interrupts() - 2 * pulse_hz * for_s) <= max(1, pulse_hz * 0.002)
    port.close()


async def test_a_slow_source_is_evenly_spaced(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    port = SimulatedPort(loopback=True)
    port.set_interrupt_enable(True)
    nursery.start_soon(raise_pulses, port, 4.0)
    await trio.sleep(0.125)
    for _ in range(20):
        await trio.sleep(0.25)
        assert port.take_interrupts() == 1
    port.close()


async def test_those_that_a_late_wake_up_missed_come_at_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    port = SimulatedPort(loopback=True)
    port.set_interrupt_enable(True)
    nursery.start_soon(raise_pulses, port, 100.0)
    await trio.sleep(1.001)
    assert port.take_interrupts() == 100
    autojump_clock.jump(5)
    await trio.sleep(0.001)
    assert 500 <= port.take_interrupts() <= 501
    port.close()
