"""Threads that wait for a disk: nobody else does."""

from __future__ import annotations

import threading

import trio
from trio.testing import MockClock

from lpt_service.server.threads import in_thread, in_thread_for
from tests.server.fakes import BOUND_S


async def test_what_is_over_in_time() -> None:
    done: list[int] = []
    assert await in_thread_for(BOUND_S, lambda: done.append(1))
    assert done == [1]


async def test_what_hangs_is_left_to_itself(autojump_clock: MockClock) -> None:
    is_over = threading.Event()
    assert not await in_thread_for(0.01, lambda: is_over.wait(BOUND_S))
    is_over.set()


async def test_who_is_cancelled_waits_no_longer() -> None:
    is_over = threading.Event()
    with trio.move_on_after(0.01) as scope:
        await in_thread(lambda: is_over.wait(BOUND_S))
    assert scope.cancelled_caught
    is_over.set()
