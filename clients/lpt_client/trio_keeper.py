"""What a port of the trio client holds, and what becomes of it when the connection ends.

    link lost ─▶ every call under way raises ConnectionLost (the link sees to that)
              ─▶ the hold of the port is over: its block is cancelled and raises ConnectionLost
              ─▶ registrations: without `reconnect` they end with ConnectionLost; with it they are connected again
                 on the next link, from where they were

Ownership is never taken again silently: what the lines are meant to show is something only the program knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from lpt_client import operations
from lpt_client.backoff import STABLE_AFTER_S, Backoff
from lpt_client.conversation import ConversationEvent
from lpt_client.errors import ConnectionLost, InvalidDeviceState, LptError, PortClosed, Revoked
from lpt_client.events import Interrupt, Mark, PortCheck, RevokedNotice, Sync, Waiters
from lpt_client.interrupt_stream import STOPPED
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call, ConnectedInterrupt
from lpt_client.registrations import Registrations, may_pass
from lpt_client.trio_connector import Connector
from lpt_client.trio_interrupts import Interrupts
from lpt_client.trio_link import Link
from lpt_service.protocol.messages import Response

# After the mark "stopped" the daemon is either about to close the connection and say why, or it goes on without the
# port; then a new connection is what finds out when the port is back.
_CLOSING_EXPECTED_S: Final = 1.0


class Hold:
    """The port is owned, on one link, until it is freed or lost. `scope` is around the block that relies on it."""

    def __init__(self, link: Link, grant: int, on_waiters: Callable[[int], object] | None) -> None:
        self.link = link
        self.grant = grant
        self.on_waiters = on_waiters
        self.scope = trio.CancelScope()
        self.make_error: Callable[[], LptError] | None = None

    def lose(self, make_error: Callable[[], LptError]) -> None:
        """The port is no longer owned: end the block."""
        self.make_error = make_error
        self.scope.cancel()


class Keeper:
    """Keeps one port's link, its hold and its registrations.

    Attributes:
        link: the connection, ready for calls; None while there is none.
        hold: the ownership; None while the port is not owned.
        revoked: why the port was taken away; None since the last grant.
        waiting: how many wait for the port that is owned, as the daemon told last.
        failure: what a callback of the program raised: the end of everything.
    """

    def __init__(self, connector: Connector, *, reconnect: bool) -> None:
        self.link: Link | None = None
        self.hold: Hold | None = None
        self.revoked: str | None = None
        self.waiting = 0
        self.registrations: Registrations[Interrupts] = Registrations()
        self.failure: Exception | None = None
        self.reconnect = reconnect
        self._connector = connector
        self._backoff = Backoff()
        self._make_error: Callable[[], LptError] = lambda: PortClosed("the port has not been opened")
        self._is_over = False
        self._changed = trio.Event()
        self._scope = trio.CancelScope()

    # Its life

    async def open(self) -> Link:
        """The first connection, to `run` next. Raises ConnectFailed or HelloRefused."""
        self.link = await self._connector.open(self._on_event, self._on_lost)
        return self.link

    async def run(self, first_link: Link, scope: trio.CancelScope) -> None:
        """Serve the connection, and connect again if that is asked for. Raises nothing; `scope` is the port's block."""
        self._scope = scope
        link: Link | None = first_link
        while link is not None:
            opened_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                if link is not first_link:
                    nursery.start_soon(self._resume, link)
                await link.run()
                nursery.cancel_scope.cancel()
            if trio.current_time() - opened_s >= STABLE_AFTER_S:
                self._backoff.reset()
            link = await self._open_again() if self.reconnect else None

    def close(self) -> None:
        """The port's block is left."""
        self._end(lambda: PortClosed("the port has been closed"))

    def _end(self, make_error: Callable[[], LptError]) -> None:
        """There will be no link any more."""
        if not self._is_over:
            self._is_over = True
            self._make_error = make_error
        self.link = None
        for registration in self.registrations:
            registration.fail(make_error)
        self._notify_changed()

    async def _open_again(self) -> Link | None:
        while True:
            await trio.sleep(self._backoff.next_delay_s())
            try:
                return await self._connector.open(self._on_event, self._on_lost)
            except LptError as exc:
                if not may_pass(exc):
                    self._end(partial(_same, exc))
                    return None

    async def _resume(self, link: Link) -> None:
        """Connect every registration again, then let the program use the link."""
        for registration, call in self.registrations.calls_to_resume():
            try:
                await self._connect_again(link, registration, call)
            except ConnectionLost:  # noqa: PERF203 - a handful of registrations
                return
            except LptError as exc:
                if may_pass(exc):
                    link.lose(f"interrupts could not be connected again yet: {exc}", exc)
                    return
                self.registrations.discard(registration)
                registration.fail(partial(_same, exc))
        self.link = link
        self._notify_changed()

    async def _connect_again(self, link: Link, registration: Interrupts, call: Call[ConnectedInterrupt]) -> None:
        if registration in self.registrations:
            await link.call(call, on_response=partial(self._on_resumed, link, registration, call))
            if registration not in self.registrations:  # its block was left meanwhile
                await link.call(operations.disconnect_interrupt(registration.structure))

    def _on_resumed(
        self, link: Link, registration: Interrupts, call: Call[ConnectedInterrupt], response: Response
    ) -> None:
        if response.error is not None:
            return
        connected = call.finish(response)
        try:
            self.registrations.resumed(registration, connected, link.session.session, link.session.stream)
        except Exception as exc:
            self._fail(exc)

    # What the port asks

    def connected_link(self, what: str) -> Link:
        """The link to ask `what` on. Raises NotConnected, or the error that ended the attempts to reconnect."""
        if self.link is None:
            raise self._error(what)
        return self.link

    async def wait_connected(self) -> None:
        """Wait until there is a link. Raises what `connected_link` does if there will be none."""
        while self.link is None:
            if self._is_over:
                raise self._error(None)
            await self._changed.wait()

    def _error(self, what: str | None) -> LptError:
        error = self._make_error()
        if isinstance(error, ConnectionLost) and not self._is_over and self.reconnect:
            return ConnectionLost(f"{error.reason}; connecting again", what)
        return ConnectionLost(error.reason, what) if isinstance(error, ConnectionLost) else error

    def _notify_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Ownership

    async def acquire(
        self,
        call: Call[int],
        *,
        answer_within_s: float,
        on_queued: Callable[[int], object] | None,
        on_waiters: Callable[[int], object] | None,
    ) -> Hold:
        """Carry out an allocate. `answer_within_s` is later than the daemon's own time-out."""
        link = self.connected_link(call.what)
        taken: list[Hold] = []
        on_response = partial(self._on_granted, link, call, on_waiters, taken)
        try:
            with trio.move_on_after(answer_within_s):
                await link.call(call, on_queued=on_queued, on_response=on_response)
                return taken[0]
        except BaseException:
            self._forget(taken)  # given back by the call
            raise
        link.lose(f"the daemon did not answer {call.what} within {answer_within_s:g} s")
        raise link.error(call.what)

    async def try_acquire(self) -> int | None:
        """Carry out a try-allocate."""
        link = self.connected_link("TRY_ALLOCATE_PORT")
        call = operations.try_allocate(await link.ask_port_info())
        taken: list[Hold] = []
        try:
            return await link.call(call, on_response=partial(self._on_granted, link, call, None, taken))
        except BaseException:
            self._forget(taken)
            raise

    def _on_granted(
        self,
        link: Link,
        call: Call[int] | Call[int | None],
        on_waiters: Callable[[int], object] | None,
        taken: list[Hold],
        response: Response,
    ) -> None:
        """In the reader's task, so that a loss of the port that is told right after the grant finds the hold."""
        grant = None if response.error is not None else call.finish(response)
        if grant is not None:
            self.hold = Hold(link, grant, on_waiters)
            self.revoked = None
            self.waiting = 0
            taken.append(self.hold)

    def _forget(self, taken: list[Hold]) -> None:
        if taken and self.hold is taken[0]:
            self.hold = None

    async def release(self, hold: Hold, *, is_quiet: bool) -> None:
        """Free the port, unless it was freed or lost before. `is_quiet`: a failure is nothing to tell."""
        if self.hold is not hold:
            return
        try:
            with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
                await hold.link.call(operations.FREE)
            if scope.cancelled_caught:
                hold.link.lose(f"the daemon did not answer {operations.FREE.what} within {CLEANUP_TIMEOUT_S:g} s")
                raise hold.link.error(operations.FREE.what)
        except LptError as exc:
            if is_quiet:
                return
            if isinstance(exc, InvalidDeviceState) and hold.make_error is not None:
                raise hold.make_error() from None  # taken away just then
            raise
        finally:
            self._forget([hold])

    # Registrations

    @asynccontextmanager
    async def registered(self, interrupts: Interrupts) -> AsyncIterator[None]:
        """Connect a registration for the length of the block."""
        interrupts.is_kept_when_stopped = self.reconnect
        call = operations.connect_interrupt(interrupts.structure)
        link = self.connected_link(call.what)

        def on_response(response: Response) -> None:
            if response.error is None:
                interrupts.begin(call.finish(response).first_seq)
                self.registrations.add(interrupts, link.session.stream)

        try:
            await link.call(call, on_response=on_response)
        except BaseException:
            self._drop(interrupts)  # the call has undone it
            raise
        try:
            with trio.CancelScope() as scope:
                if interrupts.has_isr or not interrupts.hears:
                    interrupts.end_block_with(scope)
                yield
        finally:
            await self._disconnect(interrupts)
        if interrupts.scope is not None and interrupts.make_error is not None:
            raise interrupts.make_error()

    async def _disconnect(self, interrupts: Interrupts) -> None:
        """Undo the registration as far as there is a daemon to tell, and wait for what it still sends."""
        link = self.link
        try:
            if link is None or interrupts.is_over:
                return
            with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
                end_seq = await link.call(operations.disconnect_interrupt(interrupts.structure))
                await interrupts.wait_until(end_seq)
                interrupts.end(end_seq)
            if scope.cancelled_caught:
                link.lose(f"the daemon did not answer the disconnecting within {CLEANUP_TIMEOUT_S:g} s")
        except LptError:
            return  # refused or lost: it is disconnected
        finally:
            self._drop(interrupts)

    def _drop(self, interrupts: Interrupts) -> None:
        self.registrations.discard(interrupts)
        interrupts.close()

    # What the link tells

    def _on_lost(self, link: Link) -> None:
        if self.hold is not None and self.hold.link is link:
            self.hold.lose(link.error)
            self.hold = None
        if self._is_over:
            return
        self._make_error = link.error
        if self.link is link:
            self.link = None
        if not self.reconnect:
            self._end(link.error)
        self._notify_changed()

    def _on_event(self, link: Link, event: ConversationEvent) -> None:
        try:
            if isinstance(event, (Interrupt, Mark, Sync)):
                self.registrations.feed(event)
                if type(event) is Mark and event.kind == STOPPED and self.reconnect:
                    link.lose_after(_CLOSING_EXPECTED_S, "the port was paused or removed")
            elif type(event) is PortCheck:
                registration = self.registrations.find(event)
                if registration is not None:
                    registration.call_deferred()
            elif type(event) is Waiters:
                self._on_waiters(event.count)
            elif type(event) is RevokedNotice:
                self._on_revoked(event.reason)
        except Exception as exc:
            self._fail(exc)

    def _fail(self, error: Exception) -> None:
        """A routine of the program failed: that ends the port's block, as a task's exception ends its nursery."""
        self.failure = self.failure or error
        self._scope.cancel()

    def _on_waiters(self, count: int) -> None:
        self.waiting = count
        if self.hold is not None and self.hold.on_waiters is not None:
            self.hold.on_waiters(count)

    def _on_revoked(self, reason: str) -> None:
        self.revoked = reason
        if self.hold is not None:
            self.hold.lose(lambda: Revoked(reason))
            self.hold = None


def _same(error: LptError) -> LptError:
    return error
