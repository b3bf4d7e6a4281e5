"""Interrupts under trio: a registration as an async iterator, or as a function that is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from lpt_client.events import Event, Interrupt
from lpt_client.interrupt_stream import InterruptStream
from lpt_client.trio_context import Home
from lpt_service.protocol.errors import LptError

# Between two of so many events that are there already, a consumer lets other tasks run.
_EVENTS_A_TURN: Final = 32


class Interrupts(InterruptStream):
    """A connected registration; `Port.connect_interrupt` gives it. See InterruptStream for its counters.

    `async for event in interrupts` gives Interrupt, Mark, Sync and Reconnected in their order, and ends once the
    registration is disconnected and the buffer is empty.

    Error handling: the iterator raises ConnectionLost when the connection has ended and is not made anew, PortStopped
    after the mark "stopped" (unless the port is only paused, or reconnects), or the error that ended an attempt to
    reconnect; each only after all that had come before it.

    Synchronization: one task iterates; the counters may be read at any time.
    """

    home: Home  # of the port, set when it is connected
    _ready: trio.Event | None = None
    _turn = 0
    _is_read = False
    is_closed = False
    # For the port: the error that nothing more comes because of, and the block that is to end then.
    make_error: Callable[[], LptError] | None = None
    scope: trio.CancelScope | None = None

    @property
    def is_over(self) -> bool:
        """True once nothing more will come."""
        return self.is_closed or self.make_error is not None

    def fail(self, make_error: Callable[[], LptError]) -> None:
        """Nothing more will come, because of an error, of which every reader gets a fresh one. The first stands."""
        if not self.is_over:
            self.make_error = make_error
            if self.scope is not None:
                self.scope.cancel()
        self._wake()

    def end_block_with(self, scope: trio.CancelScope) -> None:
        """`scope` is around a block that waits for nothing but this registration: end it when nothing more comes."""
        self.scope = scope
        if self.is_over:
            scope.cancel()

    def close(self) -> None:
        """Nothing more will come: disconnected."""
        self.is_closed = True
        self._wake()

    def __aiter__(self) -> Interrupts:
        return self

    async def __anext__(self) -> Event:
        if self.has_isr:
            raise RuntimeError("the events of this registration go to its isr; connect one without to iterate")
        self._turn += 1
        try:
            if self._turn % _EVENTS_A_TURN or not self.event_count:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
        except RuntimeError:
            self.home.check()
            raise
        if self._is_read:
            raise trio.BusyResourceError("another task reads these interrupts")
        self._is_read = True
        try:
            return await self._next()
        finally:
            self._is_read = False

    async def _next(self) -> Event:
        while True:
            event = self.take()
            if event is not None:
                return event
            if self.is_closed:
                raise StopAsyncIteration
            if self.make_error is not None:
                raise self.make_error()
            await self.wait()

    async def wait(self) -> None:
        """Sleep until something has come, or the registration is over."""
        if self._ready is None:
            self.home.check()
            self._ready = trio.Event()
        await self._ready.wait()

    async def wait_until(self, end_seq: int) -> None:
        """Sleep until every interrupt before `end_seq` has come, or the registration is over."""
        while self.next_seq is not None and self.next_seq < end_seq and not self.is_over:
            await self.wait()

    def _emit(self, event: Event) -> None:
        if self.has_isr:
            if type(event) is Interrupt:
                self.received += event.count
            self.call_back(event)
        else:
            super()._emit(event)
        self._wake()

    def _wake(self) -> None:
        if self._ready is not None:
            self._ready.set()
            self._ready = None
