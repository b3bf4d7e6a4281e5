"""From the port's descriptor to the listeners' sockets.

A lone interrupt reaches a few listeners in the step that found it. A crowd is served by a task of its own, a few at a
time, so that a request waits for one such turn at the most, however many listen and however fast interrupts come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from lpt_service.server.session import Session

# About 0.2 ms of work; docs/adr/0009 has the figures.
SLICES_A_TURN: Final = 16
# As many are sent to at once, in the step that found the interrupt.
DIRECT_LISTENERS: Final = SLICES_A_TURN


class InterruptPump:
    """Watches one port's descriptor while it is to be heard, and sends the log to those who are behind.

    `on_readable` takes the interrupts; it must leave the descriptor unreadable.
    """

    def __init__(self, on_readable: Callable[[], None]) -> None:
        self._descriptor = -1
        self._on_readable = on_readable
        self._listeners: dict[Session, None] = {}
        self._is_on = False
        self._changed = trio.Event()
        self._watching: trio.CancelScope | None = None
        self._news = trio.Event()

    def attach(self, descriptor: int) -> None:
        """The port is there, with this descriptor. It is not being watched then."""
        self._descriptor = descriptor

    def add(self, session: Session) -> None:
        """The session is in the log: send it what comes."""
        self._listeners[session] = None

    def discard(self, session: Session) -> None:
        """The session is gone, or out of the log."""
        self._listeners.pop(session, None)

    def listen(self, is_on: bool) -> None:
        """Watch the descriptor, or stop watching."""
        self._is_on = is_on
        self._changed.set()
        if not is_on and self._watching is not None:
            self._watching.cancel()

    def publish(self) -> None:
        """The log has grown."""
        if len(self._listeners) <= DIRECT_LISTENERS:
            for session in tuple(self._listeners):
                session.flush()
        else:
            self._news.set()

    async def watch(self) -> None:
        """Wait for interrupts, and have them taken, for ever."""
        while True:
            while not self._is_on:
                self._changed = trio.Event()
                await self._changed.wait()
            with trio.CancelScope() as self._watching:
                while self._is_on:
                    await trio.lowlevel.wait_readable(self._descriptor)
                    if self._is_on:
                        self._on_readable()
            self._watching = None

    async def fan_out(self) -> None:
        """Serve the crowd, for ever."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for count, session in enumerate(tuple(self._listeners), 1):
                session.flush()
                if count % SLICES_A_TURN == 0:
                    await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
