"""What a port of the trio client holds, and what becomes of it when the connection ends.

    link lost ─▶ every call under way raises ConnectionLost
              ─▶ the hold of the port is over: its block is cancelled and raises ConnectionLost
              ─▶ registrations: without `reconnect` they end with ConnectionLost; with it they are connected again
                 on the next link, from where they were

Ownership is never taken again silently: what the lines are meant to show is something only the program knows. But where
the daemon keeps the session for a while (and `reconnect` and `resume` are on), nothing of this happens at once:

    link lost ─▶ it is suspended: calls wait, the hold and the registrations stay
              ─▶ the next link's hello is answered: the session goes on. It takes over the calls (`resume.settle`), and
                 connects only what the daemon does not have
              ─▶ or it does not, or nobody answers for too long: as above
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio

from lpt_client import operations
from lpt_client.backoff import STABLE_AFTER_S, Backoff
from lpt_client.conversation import ConversationEvent
from lpt_client.errors import ConnectionLost, LptError, PortClosed, PortStopped
from lpt_client.events import (
    DisconnectedNotice,
    Interrupt,
    LeaseWarning,
    Mark,
    PortCheck,
    Resumed,
    RevokedNotice,
    Sync,
    Waiters,
)
from lpt_client.operations import Call, ConnectedInterrupt
from lpt_client.processes import register
from lpt_client.registrations import Registrations, may_pass
from lpt_client.resume import resume_within_s, settle
from lpt_client.trio_connector import Connector
from lpt_client.trio_context import Home
from lpt_client.trio_interrupts import Interrupts
from lpt_client.trio_link import Link
from lpt_client.trio_ownership import Ownership
from lpt_service.protocol.messages import Response
from lpt_service.protocol.structs import PARALLEL_PORT_INFORMATION

T = TypeVar("T")
_Connects = list[tuple[Interrupts, Call[ConnectedInterrupt]]]

# After the mark "stopped" the daemon is either about to close the connection and say why, or it goes on without the
# port; then a new connection is what finds out when the port is back.
_CLOSING_EXPECTED_S: Final = 1.0


class Keeper:
    """Keeps one port's link, what it owns and its registrations.

    Attributes:
        link: the connection, ready for calls; None while there is none.
        ownership: whether the port is owned.
        failure: what a callback of the program raised: the end of everything.
    """

    def __init__(self, connector: Connector, *, reconnect: bool, resume: bool) -> None:
        self.link: Link | None = None
        self.ownership = Ownership(self)
        self.registrations: Registrations[Interrupts] = Registrations()
        self.failure: Exception | None = None
        self.reconnect = reconnect
        self._resumes = reconnect and resume
        self._suspended: Link | None = None  # the last one, whose session may go on
        self._connector = connector
        self._backoff = Backoff()
        self._make_error: Callable[[], LptError] = lambda: PortClosed("the port has not been opened")
        self._is_over = False
        self._asks_why_stopped = False
        self.home = Home()
        self._changed = trio.Event()
        self._scope = trio.CancelScope()

    # Its life

    async def open(self) -> Link:
        """The first connection, to `run` next. Raises ConnectFailed or HelloRefused."""
        self.link = await self._connector.open(self._on_event, self._on_lost)
        register(self)
        return self.link

    async def run(self, first_link: Link, scope: trio.CancelScope) -> None:
        """Serve the connection, and connect again if that is asked for. Raises nothing; `scope` is the port's block."""
        self._scope = scope
        link: Link | None = first_link
        while link is not None:
            opened_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                if link is not first_link:
                    nursery.start_soon(self._connect_all, link, self._welcome(link))
                await link.run()
                nursery.cancel_scope.cancel()
            if trio.current_time() - opened_s >= STABLE_AFTER_S:
                self._backoff.reset()
            link = await self._open_again() if self.reconnect else None

    def close(self) -> None:
        """The port's block is left."""
        self._end(lambda: PortClosed("the port has been closed"))

    def leave_behind(self, source: object) -> None:
        """The process ends: so does its trio.run, and with that the block."""

    def disown(self, make_error: Callable[[], LptError]) -> None:
        """In a forked child: the port is the parent's, and over here."""
        links = [link for link in (self.link, self._suspended) if link is not None]
        self.link = self._suspended = None
        self._is_over, self._make_error = True, make_error
        for link in links:
            link.disown(str(make_error()))
        self.ownership.disown(make_error)
        for registration in self.registrations:
            registration.forget()
            registration.make_error = make_error
        if self.home.is_here():  # the child goes on with the loop: whoever waits in it is told
            self._end(make_error)
            self.ownership.end_block()
            for link in links:
                link.lose("")

    def _end(self, make_error: Callable[[], LptError]) -> None:
        """There will be no link any more."""
        if not self._is_over:
            self._is_over = True
            self._make_error = make_error
        self.link = None
        self._forsake()
        for registration in self.registrations:
            registration.fail(make_error)
        self._notify_changed()

    async def _open_again(self) -> Link | None:
        async with trio.open_nursery() as nursery:
            if self._suspended is not None:
                nursery.start_soon(self._forsake_after, resume_within_s(self._suspended.session))
            link = await self._try_to_open()
            nursery.cancel_scope.cancel()
        return link

    async def _try_to_open(self) -> Link | None:
        while True:
            await trio.sleep(self._backoff.next_delay_s())
            former = self._suspended
            try:
                link = await self._connector.open(self._on_event, self._on_lost, former, self.registrations.hear_from())
            except LptError as exc:
                if not may_pass(exc):
                    self._end(partial(_same, exc))
                    return None
            else:
                if link.session.resumed is None or self._suspended is not None:
                    return link
                with trio.CancelScope() as scope:  # it came too late: nobody relies on it any more
                    scope.cancel()
                    await link.run()

    # The session that may go on

    async def _forsake_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._forsake()
        self._notify_changed()

    def _forsake(self) -> None:
        """The session that might have gone on is lost."""
        link, self._suspended = self._suspended, None
        if link is not None:
            link.fail_calls()
            self.ownership.lose(link.error)

    def _welcome(self, link: Link) -> _Connects:
        """A new link, before anything has come on it but the answer to hello; returns what is to be connected."""
        resumed = link.session.resumed
        if resumed is not None and self._suspended is not None:
            return self._go_on(link, self._suspended, resumed)
        self._forsake()
        return self.registrations.calls_to_resume()

    def _go_on(self, link: Link, former: Link, resumed: Resumed) -> _Connects:
        ownership, registrations = self.ownership, self.registrations
        settlement = settle(
            former.unanswered(),
            resumed,
            ownership.last_grant,
            is_held=ownership.hold is not None,
            wanted=[each.structure for each in registrations],
        )
        self._suspended, self.link = None, link
        if not settlement.is_freed:
            ownership.on_resumed(resumed.grant)
        link.go_on(former, settlement)
        link.show_position(resumed.position)
        to_connect: _Connects = []
        try:
            session = link.session
            to_connect, to_disconnect = registrations.go_on(resumed.registrations, session.session, session.stream)
            for call in to_disconnect:
                link.post(call)
        except Exception as exc:
            self.fail(exc)
        self._notify_changed()
        return to_connect

    async def _connect_all(self, link: Link, calls: _Connects) -> None:
        """Connect registrations again, then let the program use the link."""
        for registration, call in calls:
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
        if not link.is_over:  # it may have ended before this task began
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
            self.fail(exc)

    # What the port asks

    @property
    def is_over(self) -> bool:
        """True once there will be no link any more."""
        return self._is_over

    def check(self) -> None:
        """Raise what ended it, or RuntimeError, in words, where the port cannot be waited for."""
        if self._is_over:
            raise self._error(None)
        self.home.check()

    def connected_link(self, what: str) -> Link:
        """The link to ask `what` on. Raises NotConnected, or the error that ended the attempts to reconnect."""
        if self.link is None:
            raise self._error(what)
        return self.link

    async def ready_link(self, what: str) -> Link:
        """The same, once it is known whether a session goes on whose connection broke."""
        while self.link is None and self._suspended is not None:
            self.home.check()
            await self._changed.wait()
        return self.connected_link(what)

    async def call(
        self,
        call: Call[T],
        *,
        answer_by: float = math.inf,
        on_queued: Callable[[int], object] | None = None,
        on_response: Callable[[Response], None] | None = None,
    ) -> T:
        """`Link.call`, on the link that there is or will be while the session may go on.

        `answer_by` (trio's time) is when the caller gives up.
        """
        while True:
            if self.link is None:
                await self.ready_link(call.what)
                call = operations.with_time_left(call, answer_by - trio.current_time())
            link = self.connected_link(call.what)
            try:
                return await link.call(call, on_queued=on_queued, on_response=on_response)
            except ConnectionLost as lost:
                if not self.can_be_asked_again(lost):
                    raise

    async def callbacks(self) -> PARALLEL_PORT_INFORMATION:
        """The structure that callbacks are called through; asked for once for each connection."""
        link = await self.ready_link(operations.PORT_INFO.what)
        if link.port_info is None:
            link.port_info = await self.call(operations.PORT_INFO)
        return link.port_info

    def can_be_asked_again(self, lost: ConnectionLost) -> bool:
        """True when a request was not sent, and its session may go on."""
        return not lost.may_have_run and self._suspended is not None

    def lose_link(self, reason: str, what: str) -> LptError:
        """End the connection, if there is one; returns what the caller is told who asked `what`."""
        if self.link is not None:
            self.link.lose(reason)
        return self._error(what)

    async def wait_connected(self) -> None:
        """Wait until there is a link. Raises what `connected_link` does if there will be none."""
        while self.link is None:
            if self._is_over:
                raise self._error(None)
            await self._changed.wait()

    async def wait_lost(self) -> LptError:
        """Wait until there is no link: why."""
        while self.link is not None:
            await self._changed.wait()
        return self._error(None)

    @property
    def is_suspended(self) -> bool:
        """True while there is no link, and its session may go on."""
        return self._suspended is not None

    def _error(self, what: str | None) -> LptError:
        error = self._make_error()
        if isinstance(error, ConnectionLost) and not self._is_over and self.reconnect:
            return ConnectionLost(f"{error.reason}; connecting again", what)
        return ConnectionLost(error.reason, what) if isinstance(error, ConnectionLost) else error

    def _notify_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What the link tells

    def _on_lost(self, link: Link) -> None:
        if self._resumes and link.can_be_resumed and not self._is_over:
            self._suspended = link
        else:
            link.fail_calls()
            self.ownership.lose(link.error)
        if self._is_over:
            return
        self._make_error = link.error
        if self.link is link:
            self.link = None
        if not self.reconnect:
            self._end(PortStopped if self._asks_why_stopped else link.error)
        self._notify_changed()

    def _on_event(self, link: Link, event: ConversationEvent) -> None:
        try:
            if isinstance(event, (Interrupt, Mark, Sync)):
                self.registrations.feed(event)
                if type(event) is Mark:
                    self._on_mark(link, event)
            elif type(event) is PortCheck:
                registration = self.registrations.find(event)
                if registration is not None:
                    registration.call_deferred()
            elif type(event) is DisconnectedNotice:
                self._on_disconnected(link, event)
            elif isinstance(event, (Waiters, RevokedNotice, LeaseWarning)):
                self.ownership.on_notice(event)
        except Exception as exc:
            self.fail(exc)

    def _on_disconnected(self, link: Link, notice: DisconnectedNotice) -> None:
        ended = self.registrations.find_ended(notice)
        if ended is None:
            return
        if self.reconnect:
            link.lose_after(_CLOSING_EXPECTED_S, notice.reason)  # a new connection is what finds out when it is back
        else:
            ended.fail(partial(PortStopped, notice.reason))

    def _on_mark(self, link: Link, mark: Mark) -> None:
        if not self.registrations.is_stopped_anew(mark):
            link.lose_not()  # it was heard again soon enough
            return
        if self.reconnect:
            link.lose_after(_CLOSING_EXPECTED_S, "the port was paused or removed")
        self._asks_why_stopped = True
        link.post(operations.PORT_STATUS, partial(self._on_stopped_status, link))

    def _on_stopped_status(self, link: Link, response: Response) -> None:
        """A paused port will be heard again; with any other, every registration has ended."""
        self._asks_why_stopped = False
        if operations.says_kept(response, link.session.session):
            link.lose_not()
        elif not self.reconnect:
            for registration in self.registrations:
                if registration.is_stopped:
                    registration.fail(PortStopped)

    def fail(self, error: Exception) -> None:
        """A routine of the program failed: that ends the port's block, as a task's exception ends its nursery."""
        self.failure = self.failure or error
        self._scope.cancel()


def _same(error: LptError) -> LptError:
    return error
