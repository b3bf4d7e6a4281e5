"""Threads for what may have to wait for a disk: the event loop never does."""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio


async def in_thread(function: Callable[[], object]) -> None:
    """Run it in a thread. One that hangs keeps nobody else waiting; a caller that is cancelled leaves it to itself."""
    await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


async def in_thread_for(timeout_s: float, function: Callable[[], object]) -> bool:
    """As `in_thread`, and wait for at most `timeout_s`; False if it goes on by itself."""
    over = threading.Event()

    def run() -> None:
        try:
            function()
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, run)
        # Not trio's time: a test's clock may run ahead of a disk.
        await in_thread(lambda: over.wait(timeout_s))
        if not over.is_set():
            nursery.cancel_scope.cancel()
    return over.is_set()
