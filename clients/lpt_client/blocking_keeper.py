"""What a port of the blocking client holds, and what becomes of it when the connection ends.

The rules are those of `trio_keeper`. The difference is when: without tasks of its own this learns of a loss, and
connects again, only while the program is in one of its calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from lpt_client import operations
from lpt_client.backoff import STABLE_AFTER_S, Backoff
from lpt_client.blocking_interrupts import Interrupts
from lpt_client.blocking_link import Link
from lpt_client.conversation import ConversationEvent
from lpt_client.errors import ConnectionLost, InvalidDeviceState, LptError, PortClosed, Revoked
from lpt_client.events import Interrupt, Mark, PortCheck, RevokedNotice, Sync, Waiters
from lpt_client.interrupt_stream import STOPPED
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call
from lpt_client.registrations import Registrations, may_pass

# As in trio_keeper: after the mark "stopped" the daemon has so long to close the connection itself.
_CLOSING_EXPECTED_S: Final = 1.0


class Hold:
    """The port is owned, on one link, until it is freed or taken away (`revoked` says why)."""

    def __init__(self, link: Link, grant: int) -> None:
        self.link = link
        self.grant = grant
        self.revoked: str | None = None


class Keeper:
    """Keeps one port's link, its hold and its registrations.

    Attributes:
        link: the connection; it may be over.
        hold, revoked, waiting: as in `trio_keeper`.
    """

    link: Link

    def __init__(self, open_link: Callable[[Callable[[ConversationEvent], None]], Link], *, reconnect: bool) -> None:
        self.hold: Hold | None = None
        self.revoked: str | None = None
        self.waiting = 0
        self.registrations: Registrations[Interrupts] = Registrations()
        self.reconnect = reconnect
        self._open_link = open_link
        self._backoff = Backoff()
        self._retry_at_s: float | None = None
        self._final_error: LptError | None = None
        self._stopped_at_s: float | None = None
        self._runs_routines = False
        self.link = open_link(self._on_event)

    def close(self) -> None:
        """Close the connection, for good."""
        if self._final_error is None:
            self._final_error = PortClosed("the port has been closed")
        self.link.lose("this program closed the connection")
        for registration in self.registrations:
            registration.failure = registration.failure or self._final_error

    def error(self, lost: ConnectionLost) -> LptError:
        """What a caller is told whose call met `lost`."""
        return self._final_error if isinstance(self._final_error, PortClosed) else lost

    # Receiving

    def poll(self, deadline_s: float) -> bool:
        """Receive what has come, or wait for it; then run routines. False if nothing came by `deadline_s`.

        Connects again where that is asked for. Raises what ended the connection, and what the routines raise.
        """
        has_come = self.pump(deadline_s)
        for registration in self.registrations:
            if registration.has_isr:
                registration.check()
        return has_come

    def pump(self, deadline_s: float) -> bool:
        """The same, without the check whether a routine waits in vain."""
        if self._run_routines():  # for what came during calls: it is not to wait for more
            return True
        has_come = self._receive(deadline_s)
        self._run_routines()
        return has_come

    def _run_routines(self) -> bool:
        """True if there was one to call. A routine that polls does not call routines."""
        if self._runs_routines:
            return False
        self._runs_routines = True
        try:
            has_run = False
            for registration in self.registrations:
                has_run = registration.run_routines() or has_run
            return has_run
        finally:
            self._runs_routines = False

    def _receive(self, deadline_s: float) -> bool:
        stops_at_s = self._stopped_at_s
        if stops_at_s is not None and not self.link.is_over and time.monotonic() >= stops_at_s:
            self.link.lose("the port was paused or removed")
        try:
            return self.link.pump(deadline_s if stops_at_s is None else min(deadline_s, stops_at_s))
        except ConnectionLost as lost:
            if self._final_error is not None:
                raise self._final_error from None
            if not self.reconnect:
                raise
            self.hold = None
            return self.reopen(deadline_s, lost)

    def reopen(self, deadline_s: float, lost: ConnectionLost) -> bool:
        """Connect again; False if `deadline_s` came first. An attempt once begun may pass it, by its own time-out."""
        if time.monotonic() - self.link.opened_s >= STABLE_AFTER_S and self._retry_at_s is None:
            self._backoff.reset()
        while True:
            if self._retry_at_s is None:
                self._retry_at_s = time.monotonic() + self._backoff.next_delay_s()
            time.sleep(max(0.0, min(self._retry_at_s, deadline_s) - time.monotonic()))
            if self._retry_at_s > deadline_s:
                return False
            self._retry_at_s = None
            try:
                link = self._open_link(self._on_event)
                self._resume(link)
            except LptError as exc:
                if not may_pass(exc):
                    self._final_error = exc
                    raise exc from lost
            else:
                self.link = link
                return True

    def _resume(self, link: Link) -> None:
        """Connect every registration again."""
        self._stopped_at_s = None
        for registration, call in self.registrations.calls_to_resume():
            try:
                connected = link.call(call)
            except LptError as exc:  # noqa: PERF203 - a handful of registrations
                if may_pass(exc):
                    link.lose(f"interrupts could not be connected again yet: {exc}", exc)
                    raise
                self.registrations.discard(registration)
                registration.failure = exc
            else:
                self.registrations.resumed(registration, connected, link.session.session, link.session.stream)

    def _on_event(self, event: ConversationEvent) -> None:
        if isinstance(event, (Interrupt, Mark, Sync)):
            self.registrations.feed(event)
            if type(event) is Mark and event.kind == STOPPED and self.reconnect:
                self._stopped_at_s = time.monotonic() + _CLOSING_EXPECTED_S
        elif type(event) is PortCheck:
            registration = self.registrations.find(event)
            if registration is not None:
                registration.is_check_due = True
        elif type(event) is Waiters:
            self.waiting = event.count
        elif type(event) is RevokedNotice:
            self.revoked = event.reason
            if self.hold is not None:
                self.hold.revoked = event.reason
                self.hold = None

    # Ownership

    def acquire(
        self,
        call: Call[Any],
        *,
        answer_within_s: float | None = None,
        on_queued: Callable[[int], object] | None = None,
    ) -> Hold | None:
        """Carry out an allocate or a try-allocate."""
        link = self.link
        grant = link.call(call, answer_within_s=answer_within_s, on_queued=on_queued)
        if grant is None:
            return None
        self.hold = Hold(link, grant)
        self.revoked = None
        self.waiting = 0
        return self.hold

    def release(self, hold: Hold) -> None:
        """Free the port, unless it was freed before. Raises Revoked or ConnectionLost if it was lost."""
        if hold.revoked is not None:
            raise Revoked(hold.revoked)
        if hold.link.is_over:
            raise hold.link.error()
        if self.hold is not hold:
            return
        try:
            hold.link.call(operations.FREE, answer_within_s=CLEANUP_TIMEOUT_S)
        except InvalidDeviceState:
            if hold.revoked is not None:
                raise Revoked(hold.revoked) from None  # taken away just then
            raise
        finally:
            self.hold = None

    # Registrations

    @contextmanager
    def registered(self, interrupts: Interrupts) -> Iterator[None]:
        """Connect a registration for the length of the block."""
        interrupts.is_kept_when_stopped = self.reconnect
        interrupts.pump = self.pump
        link = self.link
        connected = link.call(operations.connect_interrupt(interrupts.structure))
        interrupts.begin(connected.first_seq)
        self.registrations.add(interrupts, link.session.stream)
        try:
            yield
        finally:
            try:
                self._disconnect(interrupts)
            finally:
                self.registrations.discard(interrupts)
                interrupts.is_closed = True

    def _disconnect(self, interrupts: Interrupts) -> None:
        """Undo the registration as far as there is a daemon to tell, and receive what it still sends."""
        link = self.link
        if link.is_over or interrupts.failure is not None:
            return
        deadline_s = time.monotonic() + CLEANUP_TIMEOUT_S
        call = operations.disconnect_interrupt(interrupts.structure)
        try:
            end_seq = link.call(call, answer_within_s=CLEANUP_TIMEOUT_S)
            while interrupts.next_seq is not None and interrupts.next_seq < end_seq:
                if not link.pump(deadline_s):
                    break
            interrupts.end(end_seq)
        except LptError:
            return  # refused or lost: it is disconnected
        interrupts.run_routines()
