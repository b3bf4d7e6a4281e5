"""Interrupts without trio: a registration whose events are taken one by one, or handed to a function by `Port.poll`."""

from __future__ import annotations

import time
from collections.abc import Callable

from lpt_client.errors import LptError, PortStopped
from lpt_client.events import Event
from lpt_client.interrupt_stream import InterruptStream
from lpt_client.waits import deadline_after


class Interrupts(InterruptStream):
    """A connected registration; `Port.connect_interrupt` gives it. See InterruptStream for its counters.

    `for event in interrupts` gives Interrupt, Mark, Sync and Reconnected in their order; `next` does so with a
    time-out. Events come off the socket while one of these, `Port.poll` or any call of the port runs.

    Error handling: ConnectionLost when the connection has ended and is not made anew, PortStopped after the mark
    "stopped" (unless the port is only paused, or reconnects), or the error that ended an attempt to reconnect; each
    only after all that had come before it.

    Synchronization: that of the port, one thread at a time.
    """

    # Of the port, set when it is connected; each is given a deadline: receive; ask whether it will be heard again.
    pump: Callable[[float], bool]
    asks_kept: Callable[[float], bool]
    is_closed = False
    is_kept_when_stopped = False
    is_check_due = False
    make_error: Callable[[], LptError] | None = None  # of why nothing more comes
    _paused_mark_ns: int | None = None  # the mark "stopped" that stands for a pause

    def __iter__(self) -> Interrupts:
        return self

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None if none came within `timeout` seconds, or once disconnected when all are taken."""
        if self.has_isr:
            raise RuntimeError("the events of this registration go to its isr, in poll; connect one without to iterate")
        deadline_s = deadline_after(timeout)
        while True:
            event = self.take()
            if event is not None or self.is_closed:
                return event
            self.check(deadline_s)
            if self.event_count:
                continue  # it came while the port was asked
            self.pump(deadline_s)
            if time.monotonic() >= deadline_s:
                return self.take()

    def check(self, deadline_s: float) -> None:
        """Raise why nothing more will come, if that is so; the port may have to be asked, by the deadline."""
        if self.make_error is not None:
            raise self.make_error()
        if not self.is_stopped or self.is_kept_when_stopped or self._paused_mark_ns == self._last_mark_ns:
            return
        stopped_ns = self._last_mark_ns
        if not self.asks_kept(deadline_s):
            raise PortStopped
        self._paused_mark_ns = stopped_ns

    def forget(self) -> None:
        """Hand out nothing of what has come."""
        super().forget()
        self.is_check_due = False

    def run_routines(self) -> bool:
        """Call the routines for what has come; True if there was anything.

        What they raise is raised; the rest stays for the next time.
        """
        # Events that come meanwhile are for the next time: a slow routine does not keep `poll` from returning.
        count = self.event_count if self._isr is not None else 0
        for _ in range(count):
            event = self.take()
            if event is not None:
                self.call_back(event)
        if not self.is_check_due:
            return count > 0
        self.is_check_due = False
        self.call_deferred()
        return True
