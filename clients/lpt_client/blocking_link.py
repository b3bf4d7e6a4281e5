"""One connection of the blocking client: a call sends, and receives until its answer is there.

No thread reads in the background: handing an answer from one thread to another costs more than the whole round trip.
What else comes while a call waits (interrupts, notices) is passed on to `on_event`, which must not call back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from lpt_client.blocking_transport import Transport
from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import (
    ConnectionLost,
    ConversationError,
    LptError,
    NotConnected,
)
from lpt_client.events import Queued, SessionInfo
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call
from lpt_client.resume import Settlement, Unanswered
from lpt_client.sockets import why
from lpt_service.protocol.messages import Response
from lpt_service.protocol.structs import PARALLEL_PORT_INFORMATION

T = TypeVar("T")

IN_USE: Final = "this port is in use: by another thread (open a port for each), or by a callback"

# When sending fails, what the daemon said last may still be there to read; it gets so long.
_LAST_WORDS_S: Final = 1.0
# Saying goodbye: a daemon that takes nothing for so long does without.
_BYE_S: Final = 1.0
# How much that has come is looked at before a call, for the end behind it, in receives.
_LOOKS: Final = 16


class Link:
    """A connection on which hello has been answered.

    `reply_timeout_s` bounds the wait for the answer to a request that does not wait for anybody: a daemon that says
    nothing for so long is taken for lost.

    Attributes:
        conversation: on it; the next link may go on with its session.
        unanswered: once it is over, the requests whose answers have not come, by msgid; until then those of them that
            were given up and have something to undo.

    Synchronization: one thread at a time; a second one gets RuntimeError, unless it closes.
    """

    def __init__(
        self,
        transport: Transport,
        conversation: Conversation,
        *,
        reply_timeout_s: float,
        on_event: Callable[[ConversationEvent], None],
    ) -> None:
        assert conversation.session is not None
        self.session: SessionInfo = conversation.session
        self.opened_s = time.monotonic()
        self.port_info: PARALLEL_PORT_INFORMATION | None = None  # of this session, once asked for
        self.conversation = conversation
        self.unanswered: dict[int, Unanswered] = {}
        self._early: dict[int, Response] = {}
        self._transport = transport
        self._reply_timeout_s = reply_timeout_s
        self._on_event = on_event
        self._in_use = threading.Lock()

    @property
    def is_over(self) -> bool:
        """True once the connection has ended."""
        return self.conversation.end_reason is not None

    def error(self, what: str | None = None) -> NotConnected:
        """A fresh exception that says why it ended."""
        return self.conversation.connection_lost(what)

    def call(
        self,
        call: Call[T],
        deadline_s: float | None = None,
        *,
        on_queued: Callable[[int], object] | None = None,
        msgid: int | None = None,
    ) -> T:
        """Carry out one operation, by `deadline_s`: None stands for the reply time-out.

        `msgid`: it was asked by that on the connection before, and is answered on this one.

        Raises RequestError, ConnectionLost, ConversationError. If something else is raised in it (KeyboardInterrupt,
        or what `on_queued` raises), the request is cancelled, and undone if it had succeeded.
        """
        in_use = self._in_use
        if not in_use.acquire(False):
            raise RuntimeError(IN_USE)
        try:
            if deadline_s is None:
                deadline_s = time.monotonic() + self._reply_timeout_s
            return self._exchange(call, deadline_s, on_queued, msgid)
        finally:
            self._leave(in_use)

    def _exchange(
        self,
        call: Call[T],
        deadline_s: float,
        on_queued: Callable[[int], object] | None = None,
        msgid: int | None = None,
    ) -> T:
        is_sent = msgid is not None
        data = b""
        if msgid is None:
            msgid, data = self.conversation.request(call.method, call.params, call.what)
        else:
            self.unanswered.pop(msgid, None)
        try:
            if not is_sent:
                self._transport.send(data, deadline_s)
                is_sent = True
            response = self._early.pop(msgid, None) or self._await(msgid, deadline_s, on_queued)
        except OSError as exc:
            if not is_sent and type(exc) is not TimeoutError:
                self._hear_last_words()
            self._lose_by(exc, call.what)
            self.unanswered[msgid] = Unanswered(call)
            raise self.conversation.connection_lost_for(msgid) from exc
        except ConversationError as exc:
            self._transport.close()
            raise self.conversation.connection_lost_for(msgid) from exc
        except ConnectionLost:
            self._transport.close()
            self.unanswered[msgid] = Unanswered(call)
            raise
        except BaseException:
            if is_sent:
                self._give_up(msgid, call)
            else:
                self.lose(f"the sending of {call.what} was interrupted")  # half a frame may be on its way
                self._note_given_up(msgid, call)
            raise
        try:
            return call.finish(response)
        except ConversationError as exc:
            self.lose(f"the daemon broke the protocol: {exc}", exc)
            raise

    def _await(self, msgid: int, deadline_s: float, on_queued: Callable[[int], object] | None = None) -> Response:
        """Receive until the answer to `msgid` is there. What has come by the deadline is looked at, and no more."""
        conversation = self.conversation
        has_received = False
        while True:
            event = conversation.next_event()
            if event is None:
                if has_received and time.monotonic() >= deadline_s:
                    raise TimeoutError
                has_received = True
                self._receive(deadline_s, msgid)
            elif type(event) is Response:
                if event.msgid == msgid:
                    return event
                self._take_late(event)
            elif type(event) is not Queued:
                self._on_event(event)
            elif event.msgid == msgid and on_queued is not None:
                on_queued(event.position)

    def _receive(self, deadline_s: float, msgid: int | None = None) -> None:
        """Hand what comes next to the conversation. Raises TimeoutError, another OSError, or ConnectionLost."""
        data = self._transport.receive(deadline_s)
        if data:
            self.conversation.receive(data)
            return
        if data is None:
            return
        self.conversation.end_of_stream()
        raise self.error() if msgid is None else self.conversation.connection_lost_for(msgid)

    def _hear_last_words(self) -> None:
        """Sending failed: take what the daemon sent before it closed, the reason among it."""
        deadline_s = time.monotonic() + _LAST_WORDS_S
        with suppress(OSError, LptError):
            while time.monotonic() < deadline_s:
                self._dispatch()
                self._receive(deadline_s)

    def _give_up(self, msgid: int, call: Call[Any]) -> None:
        """Withdraw a request, and undo it if it had been carried out by then."""
        if self.is_over:
            self._note_given_up(msgid, call)
            return
        deadline_s = time.monotonic() + CLEANUP_TIMEOUT_S
        try:
            self._transport.send(self.conversation.cancel(msgid), deadline_s)
            if call.undo is None:
                return
            response = self._await(msgid, deadline_s)
            if response.error is None:
                undo = call.undo(call.finish(response))
                if undo is not None:
                    self._exchange(undo, deadline_s)
        except (OSError, LptError) as exc:
            if not isinstance(exc, LptError):
                self._lose_by(exc, f"the cancelling of {call.what}")
            self._note_given_up(msgid, call)
        except BaseException:
            # What a session holds dies with it, or is given back when it goes on: nothing can be left behind.
            self.lose(f"the cancelling of {call.what} was interrupted")
            self._note_given_up(msgid, call)
            raise

    def _note_given_up(self, msgid: int, call: Call[Any]) -> None:
        """If it is over and the session goes on, the next link is to withdraw or undo this request.

        The one that was to undo it is forgotten: the next link sees what is left to do.
        """
        if not self.is_over:
            return
        self.unanswered = {number: each for number, each in self.unanswered.items() if each.is_given_up}
        self.unanswered[msgid] = Unanswered(call, is_given_up=True)

    def _take_late(self, response: Response) -> None:
        """The answer to a request that was given up: give back what it acquired. Or one that comes too soon."""
        late = self.unanswered.pop(response.msgid, None) if self.unanswered else None
        if late is not None and not late.is_given_up:
            self._early[response.msgid] = response  # its caller waits from the connection before, and asks for it next
            return
        if late is None or late.call.undo is None:
            return
        with suppress(LptError):
            undo = late.call.undo(late.call.finish(response))
            if undo is not None:
                self.post(undo, time.monotonic() + CLEANUP_TIMEOUT_S)

    def post(self, call: Call[Any], deadline_s: float) -> None:
        """Carry out an operation whose answer nobody waits for. If it cannot be sent in time, the link is over."""
        if not self.is_over:
            self._push(self.conversation.request(call.method, call.params, call.what)[1], call.what, deadline_s)

    def _push(self, data: bytes, what: str, deadline_s: float) -> None:
        try:
            self._transport.send(data, deadline_s)
        except OSError as exc:
            self._lose_by(exc, what)
        except BaseException:
            self.lose(f"the sending of {what} was interrupted")  # half a frame may be on its way
            raise

    def go_on(self, former: Link, settlement: Settlement, deadline_s: float) -> None:
        """Go on with the session of `former`."""
        for msgid in (*settlement.waiting, *settlement.again):
            self.unanswered[msgid] = former.unanswered[msgid]
        for call in settlement.undo:
            self.post(call, deadline_s)
        for msgid in settlement.again:
            if former.unanswered[msgid].is_given_up:
                self.post(self.unanswered.pop(msgid).call, deadline_s)
        for msgid in settlement.given_up:
            if not self.is_over:
                self._push(self.conversation.cancel(msgid), "a cancel", deadline_s)

    def give_up(self) -> None:
        """Nobody waits any more for what has not been answered on it."""
        self.unanswered = {msgid: each._replace(is_given_up=True) for msgid, each in self.unanswered.items()}

    def close(self, reason: str) -> None:
        """End the connection, and have the daemon keep nothing of this session.

        If a call is under way, in another thread or below this one, the connection is shut down, which wakes it: it
        closes the socket itself, whose descriptor would otherwise be somebody else's while it still waits for it. Then
        no goodbye is said, for half a frame may be on its way.
        """
        if not self._in_use.acquire(False):
            self.conversation.lose(reason)
            self._transport.shut_down()
            if not self._in_use.acquire(False):
                return
        try:
            self._say_bye()
            self.lose(reason)
        finally:
            self._in_use.release()

    def _say_bye(self) -> None:
        if not self.is_over and (bye := self.conversation.bye()):
            with suppress(OSError):
                self._transport.send(bye, time.monotonic() + _BYE_S)

    def _leave(self, in_use: threading.Lock) -> None:
        """The end of a use. If another thread has closed meanwhile, the socket is left to this one."""
        in_use.release()
        if self.is_over:
            self._transport.close()

    def disown(self, reason: str) -> None:
        """In a forked child: end without a byte. The parent's connection is not touched."""
        self._in_use = threading.Lock()  # a thread that is not here any more may have held it
        self.conversation.lose(reason)

    def pump(self, deadline_s: float) -> bool:
        """Pass on what has come, and if nothing has, wait for it; False if nothing came by the deadline.

        Raises ConnectionLost.
        """
        in_use = self._in_use
        if not in_use.acquire(False):
            raise RuntimeError(IN_USE)
        try:
            if self.is_over:
                raise self.error()
            if self._dispatch():
                return True
            self._receive(deadline_s)
            return self._dispatch()
        except TimeoutError as exc:
            if exc.errno is None:
                return False
            self._lose_by(exc, "a receive")
            raise self.error() from exc
        except OSError as exc:
            self._lose_by(exc, "a receive")
            raise self.error() from exc
        except ConversationError as exc:
            self._transport.close()
            raise self.error() from exc
        except ConnectionLost:
            self._transport.close()
            raise
        finally:
            self._leave(in_use)

    def look(self) -> None:
        """Notice the end of the connection before something is sent that then may or may not have been carried out."""
        with suppress(ConnectionLost):
            for _ in range(_LOOKS):
                if self.is_over or not self.pump(time.monotonic()):
                    return

    def _dispatch(self) -> bool:
        has_come = False
        while (event := self.conversation.next_event()) is not None:
            has_come = True
            if type(event) is Response:
                self._take_late(event)
            elif type(event) is not Queued:
                self._on_event(event)
        return has_come

    def _lose_by(self, error: OSError, what: str) -> None:
        if isinstance(error, TimeoutError) and error.errno is None:  # ours; the kernel's has one
            self.lose(f"the daemon did not answer {what} in time", error)
        else:
            self.lose(f"the connection broke: {why(error)}", error)

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """End the connection. The first reason stands."""
        self.conversation.lose(reason, cause)
        self._transport.close()
