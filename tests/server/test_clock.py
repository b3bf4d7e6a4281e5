"""The machine's clocks."""

from __future__ import annotations

import time

import pytest

from lpt_service.server.clock import SystemClock


@pytest.mark.parametrize("wait_us", [0, 20, 500, 2000, 5000])
async def test_sleeping_never_ends_too_early(wait_us: int) -> None:
    clock = SystemClock()
    at_ns = time.monotonic_ns() + wait_us * 1000
    await clock.sleep_until(at_ns)
    assert time.monotonic_ns() >= at_ns


async def test_a_time_that_has_passed_is_not_waited_for() -> None:
    clock = SystemClock()
    await clock.sleep_until(clock.monotonic_ns() - 10**12)


def test_the_clocks_are_the_system_s() -> None:
    clock = SystemClock()
    assert time.monotonic_ns() <= clock.monotonic_ns() <= time.monotonic_ns()
    assert time.time_ns() <= clock.realtime_ns() <= time.time_ns()
