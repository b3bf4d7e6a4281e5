"""What a port of the blocking client holds, and what becomes of it when the connection ends.

The rules are those of `trio_keeper`. The difference is when: without tasks of its own this learns of a loss, and
connects again, only while the program is in one of its calls. A call that meets the loss of a session that may go on
connects again itself, within the time that it has.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from lpt_client import operations
from lpt_client.blocking_connector import Connector, Reopening
from lpt_client.blocking_interrupts import Interrupts
from lpt_client.blocking_link import IN_USE, Link
from lpt_client.blocking_ownership import Ownership
from lpt_client.conversation import ConversationEvent
from lpt_client.errors import ConnectionLost, LptError, PortClosed, PortStopped, apart
from lpt_client.events import (
    DisconnectedNotice,
    Interrupt,
    LeaseWarning,
    Mark,
    PortCheck,
    Resumed,
    RevokedNotice,
    SessionInfo,
    Sync,
    Waiters,
)
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call, ConnectedInterrupt
from lpt_client.processes import register
from lpt_client.registrations import Registrations, may_pass
from lpt_client.resume import resume_within_s, settle
from lpt_client.waits import Attempt
from lpt_service.protocol.messages import Response

T = TypeVar("T")

# As in trio_keeper: after the mark "stopped" the daemon has so long to close the connection itself.
_CLOSING_EXPECTED_S: Final = 1.0
_CLOSED: Final = "this program closed the connection"


class _Broken:
    """A call that was under way when the connection broke, and what has become of it.

    `msgid`: by which its answer is still to come; None: it is to be asked, for it has not been carried out. Otherwise
    there is an `answer`, or an `error`, or the session has been lost with the connection (`is_lost`).
    """

    def __init__(self, msgid: int | None) -> None:
        self.msgid = msgid
        self.answer: Response | None = None
        self.error: ConnectionLost | None = None
        self.is_lost = False


class Keeper:
    """Keeps one port's link, what it owns and its registrations.

    Attributes:
        link: the connection; it may be over.
        ownership: whether the port is owned.
    """

    link: Link

    def __init__(
        self, connector: Connector, opened_at: str, *, reconnect: bool, resume: bool, reply_timeout_s: float
    ) -> None:
        self.ownership = Ownership(self)
        self.registrations: Registrations[Interrupts] = Registrations()
        self.reconnect = reconnect
        self._resumes = reconnect and resume
        self._reply_timeout_s = reply_timeout_s
        self._broken: _Broken | None = None
        self._suspended: Link | None = None  # the last one, whose session may go on
        self._suspended_until_s = 0.0
        self._connector = connector
        self._opened_at = opened_at
        self._is_closed = False
        self._make_error: Callable[[], LptError] | None = None  # of why there will be no connection any more
        self._reopening = Reopening()
        self._is_reopening = threading.Lock()
        self._former: Link | None = None  # whose session the attempt to connect is to go on with
        self._stopped_at_s: float | None = None
        self._runs_routines = False
        link = connector.attempt(self._on_event).go_on()
        assert link is not None, "an attempt that is not left halfway succeeds or raises"
        self.link = link
        register(self)

    @property
    def session(self) -> SessionInfo:
        """What hello was answered, last."""
        if self._is_closed and self._make_error:
            raise self._make_error()
        return self.link.session

    def close(self) -> None:
        """Close the connection, for good. May be called from any thread, and again."""
        if not self._is_closed:
            self._end(partial(PortClosed, "the port has been closed"))
        self.link.close(_CLOSED)
        self._reopening.abandon()

    def leave_behind(self, source: object) -> None:
        """Close the port, if the program has dropped it without doing so; the warning of it has this source."""
        try:
            if not self._is_closed and not self.link.is_over:
                text = f"{self._connector.url}, opened at {self._opened_at}, was left without being closed"
                warnings.warn(text, ResourceWarning, stacklevel=3, source=source)
        finally:
            self.close()

    def disown(self, make_error: Callable[[], LptError]) -> None:
        """In a forked child: the port is the parent's, and over here."""
        self._end(make_error)
        self._is_reopening = threading.Lock()
        self.link.disown(str(make_error()))
        self.ownership.disown()
        for registration in self.registrations:
            registration.forget()

    def _end(self, make_error: Callable[[], LptError]) -> None:
        self._is_closed = True
        self._make_error = make_error
        for registration in self.registrations:
            registration.make_error = registration.make_error or make_error

    def error(self, lost: LptError) -> LptError:
        """What a caller is told whose call met `lost`."""
        return self._make_error() if self._is_closed and self._make_error else lost

    @property
    def is_suspended(self) -> bool:
        """True while the connection has ended, and its session may go on."""
        link = self.link
        if not link.is_over or not self._resumes or self._make_error or not link.conversation.can_be_resumed:
            return False
        now_s = time.monotonic()
        if self._suspended is not link:
            self._suspended, self._suspended_until_s = link, now_s + resume_within_s(link.session)
        return now_s < self._suspended_until_s

    # Calls

    def call(
        self,
        call: Call[T],
        deadline_s: float | None = None,
        *,
        on_queued: Callable[[int], object] | None = None,
    ) -> T:
        """`Link.call`, on the link that there is or, while the session may go on, on the next; by the one deadline."""
        if deadline_s is None:
            deadline_s = time.monotonic() + self._reply_timeout_s
        msgid = None
        while True:
            link = self.link
            try:
                if msgid is None and self._resumes and link.conversation.can_be_resumed:
                    link.look()
                if link.is_over:
                    raise link.error(call.what)
                return link.call(call, deadline_s, on_queued=on_queued, msgid=msgid)
            except ConnectionLost as lost:
                broken = self._mend(link, call, lost, deadline_s)
                if broken is None:
                    raise self.error(lost) from lost.__cause__
            if broken.error is not None:
                try:
                    raise broken.error
                finally:
                    del broken  # or the error would hold this frame, and the frame the error
            if broken.answer is not None:
                return call.finish(broken.answer)
            msgid = broken.msgid
            if msgid is None:
                call = operations.with_time_left(call, deadline_s - time.monotonic())

    def _mend(self, link: Link, call: Call[Any], lost: ConnectionLost, deadline_s: float) -> _Broken | None:
        """Connect again for a call that met the loss; None if that does not help."""
        if link is not self.link or not self.is_suspended:
            return None
        # Not whatever was asked last: Ctrl-C may have hit its caller before it could be given up.
        sent = [msgid for msgid, each in link.unanswered.items() if each.call is call and not each.is_given_up]
        broken = self._broken = _Broken(sent[-1] if sent else None)
        is_mended = False
        try:
            is_mended = self.reopen(min(deadline_s, self._suspended_until_s), lost)
        except LptError:
            return None
        finally:
            self._broken = None
            if not is_mended:
                self.link.give_up()
        if not is_mended or broken.is_lost:
            return None
        if broken.msgid is None and sent:
            self.link.unanswered.pop(sent[-1], None)  # it is asked again, by another msgid
        return broken

    # Receiving

    def poll(self, deadline_s: float) -> bool:
        """Receive what has come, or wait for it; then run routines. False if nothing came by `deadline_s`.

        Connects again where that is asked for. Raises what ended the connection, and what the routines raise.
        """
        has_come = self.pump(deadline_s)
        for registration in self.registrations:
            if registration.has_isr or not registration.hears:
                registration.check(deadline_s)
        return has_come

    def pump(self, deadline_s: float) -> bool:
        """The same, without the check whether a routine waits in vain."""
        if self._run_routines():  # for what came during calls: it is not to wait for more
            return True
        has_come = self._receive(deadline_s)
        while not has_come and time.monotonic() < deadline_s:  # half a frame came, or nothing by the time to look again
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
            self._stopped_at_s = stops_at_s = None
            if not self.ask_kept(deadline_s):
                self.link.lose("the port was paused or removed")
        try:
            return self.link.pump(deadline_s if stops_at_s is None else min(deadline_s, stops_at_s))
        except ConnectionLost as lost:
            if self._make_error is not None:
                raise self._make_error() from None
            if not self.reconnect:
                raise
            return self.reopen(deadline_s, lost)

    def ask_kept(self, deadline_s: float) -> bool:
        """Ask why the port has stopped: True if it will be heard again. A daemon that stops may not answer.

        May take CLEANUP_TIMEOUT_S longer than the deadline: a question is not left halfway.
        """
        now_s = time.monotonic()
        deadline_s = min(now_s + self._reply_timeout_s, max(deadline_s, now_s + CLEANUP_TIMEOUT_S))
        try:
            return operations.is_kept(self.link.call(operations.PORT_STATUS, deadline_s), self.link.session.session)
        except LptError:
            return False

    def reopen(self, deadline_s: float, lost: ConnectionLost) -> bool:
        """Connect again; False if `deadline_s` came first: the attempt under way is gone on with next time.

        Only what follows hello's answer is not left halfway: connecting registrations again, by the reply time-out.
        """
        is_reopening = self._is_reopening
        if not is_reopening.acquire(False):
            raise RuntimeError(IN_USE)
        try:
            return self._reopen(deadline_s, lost)
        finally:
            is_reopening.release()

    def _reopen(self, deadline_s: float, lost: ConnectionLost) -> bool:
        while True:
            try:
                link = self._reopening.go_on(deadline_s, time.monotonic() - self.link.opened_s, self._attempt)
                self._check_not_closed(link)
                if link is None:
                    return False
                self._welcome(link, self._former, time.monotonic() + self._reply_timeout_s)
            except LptError as exc:  # noqa: PERF203 - seldom
                self._check_not_closed(None)
                if not may_pass(exc):
                    self._make_error = partial(apart, apart(exc))
                    raise exc from lost
            else:
                self._check_not_closed(link)
                return True

    def _check_not_closed(self, link: Link | None) -> None:
        """Another thread may have closed the port while this one connected again."""
        if self._is_closed and self._make_error:
            self._reopening.abandon()
            if link is not None:
                link.close(_CLOSED)
            raise self._make_error()

    def _attempt(self) -> Attempt[Link]:
        self._former = self.link if self.is_suspended else None
        return self._connector.attempt(self._on_event, self._former, self.registrations.hear_from())

    def _welcome(self, link: Link, former: Link | None, deadline_s: float) -> None:
        """A new link, before anything has come on it but the answer to hello."""
        self._stopped_at_s = None
        resumed = link.session.resumed
        try:
            if former is not None and resumed is not None:
                self._go_on(link, former, resumed, deadline_s)
                return
            if self._broken is not None:
                self._broken.is_lost = True
            self.ownership.hold = None
            self._connect_all(link, self.registrations.calls_to_resume(), deadline_s)
            self.link = link
        except BaseException:
            link.lose("connecting again was interrupted")
            raise

    def _go_on(self, link: Link, former: Link, resumed: Resumed, deadline_s: float) -> None:
        live = None if self._broken is None else self._broken.msgid
        unanswered = {
            msgid: each if msgid == live else each._replace(is_given_up=True)
            for msgid, each in former.unanswered.items()
        }
        former.unanswered = unanswered
        hold = self.ownership.hold
        settlement = settle(
            unanswered,
            resumed,
            self.ownership.last_grant,
            is_held=hold is not None and hold.revoked is None,
            wanted=[each.structure for each in self.registrations],
        )
        self.link = link  # from here on this one's session is the one to go on with
        self.ownership.on_resumed(link, resumed.grant, is_freed=settlement.is_freed)
        link.go_on(former, settlement, deadline_s)
        if self._broken is not None and live is not None:
            if live in settlement.again:
                self._broken.msgid = None
            elif live in settlement.lost:
                self._broken.error = former.conversation.connection_lost_for(live, goes_on=True)
            elif live not in settlement.waiting:
                self._broken.answer = next(each for each in settlement.answers if each.msgid == live)
        session = link.session
        to_connect, to_disconnect = self.registrations.go_on(resumed.registrations, session.session, session.stream)
        for call in to_disconnect:
            link.post(call, deadline_s)
        self._connect_all(link, to_connect, deadline_s)

    def _connect_all(
        self, link: Link, calls: list[tuple[Interrupts, Call[ConnectedInterrupt]]], deadline_s: float
    ) -> None:
        """Connect registrations again."""
        for registration, call in calls:
            try:
                connected = link.call(call, deadline_s)
            except LptError as exc:  # noqa: PERF203 - a handful of registrations
                if may_pass(exc):
                    link.lose(f"interrupts could not be connected again yet: {exc}", exc)
                    raise
                self.registrations.discard(registration)
                registration.make_error = partial(apart, apart(exc))
            else:
                self.registrations.resumed(registration, connected, link.session.session, link.session.stream)

    def _on_event(self, event: ConversationEvent) -> None:
        if isinstance(event, (Interrupt, Mark, Sync)):
            self.registrations.feed(event)
            if type(event) is Mark and self.reconnect:
                is_stopped = self.registrations.is_stopped_anew(event)
                self._stopped_at_s = time.monotonic() + _CLOSING_EXPECTED_S if is_stopped else None
        elif type(event) is PortCheck:
            registration = self.registrations.find(event)
            if registration is not None:
                registration.is_check_due = True
        elif type(event) is DisconnectedNotice:
            self._on_disconnected(event)
        elif isinstance(event, (Waiters, RevokedNotice, LeaseWarning)):
            self.ownership.on_notice(event)

    def _on_disconnected(self, notice: DisconnectedNotice) -> None:
        ended = self.registrations.find_ended(notice)
        if ended is None:
            return
        if self.reconnect:
            self._stopped_at_s = time.monotonic() + _CLOSING_EXPECTED_S
        else:
            ended.make_error = ended.make_error or partial(PortStopped, notice.reason)
