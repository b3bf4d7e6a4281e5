"""One connection: read, dispatch, write, and clean up.

A *reader* (the session's own task) takes bytes, decodes them, dispatches each message through a table, and hands the
replies to the outbox. The outbox is sent at once, without blocking, by whoever filled it; only when the socket is full
does a *drain* task take over until it is empty. A send that fails marks the session, and the session's own task
releases what it holds.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from lpt_service.core.requests import SESSION_ENDED, SessionState, invalid
from lpt_service.log import SessionLogger
from lpt_service.protocol import messages
from lpt_service.protocol.codec import BEFORE_HELLO_LIMITS, DAEMON_LIMITS, Decoder, encode_error, encode_result
from lpt_service.protocol.errors import ConversationError, RequestError
from lpt_service.protocol.messages import Message, Notification, Request
from lpt_service.protocol.status import Status
from lpt_service.server.identity import Origin
from lpt_service.server.methods import METHODS
from lpt_service.server.outbox import Outbox
from lpt_service.server.stream import Stream
from lpt_service.server.tls import FIRST_BYTE as TLS_FIRST_BYTE

if TYPE_CHECKING:
    from lpt_service.server.daemon import Daemon
    from lpt_service.server.port_worker import PortWorker

# After this many messages and reads without a wait, the replies are sent and other tasks have their turn: without it,
# one pipelining client raised the others' round trip from 24 µs to 8 ms.
TURN_MESSAGES: Final = 64
HELLO_TIMEOUT_S: Final = 10.0
FRAME_TIMEOUT_S: Final = 30.0  # from a frame's first byte to its last
CLOSE_TIMEOUT_S: Final = 2.0  # for the last frames of a conversation

_PEER_GONE = (OSError, trio.ClosedResourceError, trio.BrokenResourceError)
_log = logging.getLogger(__name__)


class Session:
    """One conversation with one client.

    Attributes:
        number: below 2^53, unique while the daemon runs.
        origin: where its connection comes from.
        rules: by which its hello is judged.
        identity: who it is; before hello, as far as the connection tells.
        state: what it holds of its port; None before hello.
        worker: its port; None before hello and after the end.
        why_released: for the account of what it owned at its end.
        may_drain: it was the administrator of every port when it said hello.
        is_leaving: the client has said goodbye: nothing is kept for it.
    """

    def __init__(self, number: int, stream: Stream, origin: Origin, daemon: Daemon) -> None:
        self.number = number
        self.origin = origin
        self.identity = origin.identity
        self.daemon = daemon
        self.rules = daemon.admission.rules
        self.state: SessionState | None = None
        self.worker: PortWorker | None = None
        self.may_drain = False
        self.why_released = SESSION_ENDED
        self.is_leaving = False
        self.outbox = Outbox()
        self.log = SessionLogger(_log, number, str(origin.identity))
        self._stream = stream
        self._decoder = Decoder(BEFORE_HELLO_LIMITS)
        self._reading = trio.CancelScope()  # its deadline is the hello's, later that of a frame that has begun
        self._lingering = trio.CancelScope()  # at the end, with a client that does not read
        self._has_deadline = False
        self._deadline_reason = f"no hello within {HELLO_TIMEOUT_S:.0f} s"
        self._end_reason: str | None = None  # set when the conversation is to end from this side
        self._ends_with_log = False
        self._turn_left = TURN_MESSAGES
        self._messages = 0
        self._is_noted = False  # it is worth lines in the log
        self._is_lost = False  # nothing can be sent any more
        self._is_blocked = False  # the socket is full: the drain task sends, nobody else
        self._room = trio.lowlevel.ParkingLot()  # who waits for the drain task to get on
        # Since when the client has taken nothing while a reply waits, and what was unsent at the last look.
        self._unread_since_s = math.inf
        self._unsent_bytes = 0

    # The life of a session

    async def run(self) -> None:
        """Converse until the end, whoever brings it about. Never raises, except Cancelled."""
        try:
            await self._read()
            if self._end_reason is not None:
                self._note()
                await self._close(self._end_reason)
        except _PEER_GONE as exc:
            if self._is_noted:
                self.log.info("connection lost: %s", str(exc) or type(exc).__name__)
        except Exception:
            self.log.exception("internal error while closing")
        finally:
            self._is_lost = True
            self._release(is_kept=not self.is_leaving)
            self._stream.close()
            if self._is_noted:
                self.log.info("ended")
            else:
                self.daemon.strangers.left_silently += 1
                self.log.debug("%s connected and left without a word", self.origin.peer)

    def _note(self) -> None:
        """Log it from now on: it has said something, or is sent away. A silent health check is no news."""
        if not self._is_noted:
            self._is_noted = True
            self.log = SessionLogger(self.daemon.strangers.logger(_log), self.number, str(self.identity))
            self.log.info("connected from %s", self.origin.peer)

    def end(self, reason: str, *, with_log: bool = False) -> None:
        """End the conversation from this side: what is there is sent, then `closing` with `reason`.

        `with_log`: the event log is sent up to its end, too. Said again, it has a client that is slow to read waited
        for no longer.
        """
        if self._end_reason is None:
            self._end_reason, self._ends_with_log = reason, with_log
            self.is_leaving = True
            self._reading.cancel()
        else:
            self._lingering.cancel()

    def enter(self, worker: PortWorker, state: SessionState) -> None:
        """Hello was good: this connection speaks for `state` from now on."""
        self.worker, self.state, self.number = worker, state, state.session
        self.log = SessionLogger(_log, self.number, state.identity)
        self.log.said_hello(worker.name, state.client)
        self._set_deadline(math.inf)
        self._decoder.limits = DAEMON_LIMITS

    def yield_to(self, successor: Session) -> None:
        """Another connection speaks for this session now, and has what it held; this one ends."""
        self.worker = self.state = None
        self.end(f"resumed on another connection, from {successor.origin.peer}")

    def end_turn(self) -> None:
        """The request being answered took as long, and answers as much, as a whole turn."""
        self._turn_left = 0

    def set_dead_peer_s(self, dead_peer_s: float) -> None:
        """Another limit for a peer that cannot be reached."""
        with suppress(*_PEER_GONE):  # the session's own task finds out
            self._stream.set_dead_peer_s(dead_peer_s)

    def check_peer(self, now_s: float) -> None:
        """End the session if its peer cannot be reached, or has not read its replies for too long.

        To be called now and then. `now_s`: trio's time.
        """
        limits = self.daemon.limits
        try:
            if self._stream.is_unreachable(limits.dead_peer_s):
                self._lose(f"it cannot be reached: no answer for {limits.dead_peer_s:g} s")
            elif self._reads_replies(now_s):
                self._unread_since_s = math.inf
            elif now_s - self._unread_since_s >= limits.unread_reply_s:
                self.end(f"its replies were not read for {limits.unread_reply_s:g} s")
        except _PEER_GONE as exc:
            self._lose(str(exc) or type(exc).__name__)

    def _reads_replies(self, now_s: float) -> bool:
        """Whether no reply waits, or the client has taken something since the last look, be it part of a frame."""
        is_ending = self._is_lost or self._end_reason is not None
        if is_ending or not self._is_blocked or not self.outbox.owes_reply:
            return True
        before, self._unsent_bytes = self._unsent_bytes, self._stream.unsent_bytes()
        if self._unread_since_s == math.inf or self._unsent_bytes < before:
            self._unread_since_s = now_s
        return False

    def _lose(self, why: str) -> None:
        """The peer is gone. May be called in any task; the session's own one does what follows."""
        if self._is_lost:
            return
        if self._is_noted:
            self.log.info("connection lost: %s", why)
        self._is_lost = True
        self._end_reason = None  # nothing can be said; `is_leaving` stays
        self._reading.cancel()
        self._lingering.cancel()
        self._room.unpark_all()

    def _release(self, *, is_kept: bool = False) -> None:
        """Let go of the port. `is_kept`: the connection broke, and the client may come back."""
        worker = self.worker
        if worker is None:
            return
        if self.state in worker.parking.spared:
            worker.forget(self)
        elif not (is_kept and worker.parking.park(self)):
            worker.remove_session(self)
        self.worker = None

    async def _close(self, reason: str) -> None:
        """Release what is held, then deliver what can be delivered."""
        self._release()
        self.outbox.finish(reason, with_log=self._ends_with_log)
        self.log.info("closing: %s", reason)
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            self.flush()
            while self._is_blocked and not self._is_lost:
                await self._room.park()
        if self._is_blocked and not self._is_lost:
            self.outbox.drop_log()
            self._stream.make_room()
            self._is_blocked = not self.outbox.pump(self._stream.try_send)
        is_patient = self.state is not None and not self._ends_with_log
        with self._lingering:
            self._lingering.deadline = trio.current_time() + (
                self.daemon.limits.unread_reply_s if is_patient else CLOSE_TIMEOUT_S
            )
            await self._see_off(is_patient=is_patient)

    async def _see_off(self, *, is_patient: bool) -> None:
        """Shut the socket down once it has everything. `is_patient`: keep it until the client has taken that."""
        while self._is_blocked and not self._is_lost:
            await self._room.park()
        if not self._is_lost:
            await self._stream.finish()
        if is_patient and not self._is_lost:
            await self._stream.wait_until_taken()

    # Reading

    async def _read(self) -> None:
        """Converse until the stream ends, or a reason to end it from this side is found. _PEER_GONE passes."""
        self._set_deadline(trio.current_time() + HELLO_TIMEOUT_S)
        try:
            with self._reading:
                await self._converse()
        except _PEER_GONE:
            raise
        except Exception:
            self.log.exception("internal error: this session is closed, the others go on")
            self._end_reason = "internal error"
        if self._reading.cancelled_caught and not self._is_lost:
            self._end_reason = self._end_reason or self._deadline_reason

    async def _converse(self) -> None:
        messages_before = 0
        data = await self._receive()
        if data:
            self._note()
        if data[:1] == TLS_FIRST_BYTE:
            self.end("this listener does not speak TLS: use lpt:// in place of lpts://")
            return
        while data:
            self._decoder.receive(data)
            await self._take_turns()
            if self.state is not None:
                self._keep_frame_deadline(is_new_frame=self._messages != messages_before)
                messages_before = self._messages
            data = await self._receive()

    def _keep_frame_deadline(self, *, is_new_frame: bool) -> None:
        """A frame that has begun must end in time, however its bytes drip in."""
        if not self._decoder.is_mid_frame:
            if self._has_deadline:
                self._set_deadline(math.inf)
        elif is_new_frame or not self._has_deadline:
            self._set_deadline(trio.current_time() + FRAME_TIMEOUT_S)
            self._deadline_reason = f"a frame was not finished within {FRAME_TIMEOUT_S:.0f} s"

    def _set_deadline(self, at_s: float) -> None:
        self._reading.deadline = at_s
        self._has_deadline = at_s != math.inf

    async def _receive(self) -> bytes:
        """Bytes; empty at the end of the stream."""
        data = self._stream.try_receive()  # a busy client's next request is often here: no need to ask the scheduler
        if data is not None:
            self._turn_left -= 1
            return data
        self._turn_left = TURN_MESSAGES
        return await self._stream.receive()

    async def _take_turns(self) -> None:
        """Dispatch what has been received, and send the replies, a turn at a time."""
        is_dry = False
        while not is_dry:
            is_dry = self._take_turn()
            self.flush()
            if self._is_blocked and self._is_backlogged:
                await self._wait_for_room()
            if self._turn_left <= 0:
                await trio.lowlevel.checkpoint()
                self._turn_left = TURN_MESSAGES

    @property
    def _is_backlogged(self) -> bool:
        return self.outbox.backlog_bytes >= self.daemon.limits.max_backlog_bytes

    async def _wait_for_room(self) -> None:
        """Read nothing until the client has read: meanwhile its next frame cannot come, so that may be late."""
        if self.state is not None:
            self._set_deadline(math.inf)
        while self._is_blocked and self._is_backlogged and not self._is_lost:
            await self._room.park()

    def _take_turn(self) -> bool:
        """Dispatch until the turn is over, or (True) nothing is left."""
        while self._turn_left > 0:
            try:
                message = self._decoder.next_message()
                if message is None or self._end_reason is not None:
                    return True
                self._turn_left -= 1
                self._messages += 1
                self._dispatch(message)
            except ConversationError as exc:
                self.end(str(exc))
                return True
        return False

    # Dispatching

    def _dispatch(self, message: Message) -> None:
        if type(message) is Request:
            self._answer(message)
        elif type(message) is Notification and message.method == messages.CANCEL:
            self._cancel(message.params)
        elif type(message) is Notification and message.method == messages.BYE:
            self.is_leaving = True
        # Other notifications are unknown, and a response answers nothing that was asked: both are ignored.

    def _answer(self, request: Request) -> None:
        state = self.state
        if state is not None and request.msgid in state.pending:
            raise ConversationError(f"msgid {request.msgid} is still pending, and was used again")
        if request.msgid in self.outbox.unread:
            self.outbox.forget_answer(request.msgid)
        try:
            method = METHODS.get(request.method)
            if state is None and request.method != messages.HELLO:
                raise RequestError(Status.STATUS_INVALID_DEVICE_STATE, "hello must be the first request")
            if method is None:
                raise invalid(f"method: {request.method[:40]!r} is not known")
            result = method(self, request)
        except RequestError as exc:
            self.outbox.add_reply(encode_error(request.msgid, exc.status, exc.status_name, exc.detail))
        else:
            if result is not None:
                self.outbox.add_reply(encode_result(request.msgid, result))
        worker = self.worker
        if worker is not None and worker.driver.effects:
            worker.carry_out()

    def _cancel(self, params: Any) -> None:
        if self.state is not None and self.worker is not None and type(params) is tuple and len(params) == 1:
            msgid = params[0]
            if type(msgid) is int:
                self.worker.driver.cancel(self.state, msgid, self.daemon.clock.monotonic_ns())
                self.worker.carry_out()

    # Writing

    def flush(self) -> None:
        """Send what can be sent at once; never waits, never raises. May be called in any task."""
        if self._is_blocked or self._is_lost:
            return
        try:
            is_done = self.outbox.pump(self._stream.try_send)
        except _PEER_GONE as exc:
            self._lose(str(exc) or type(exc).__name__)
            return
        except Exception as exc:  # it may be another session's task that runs here
            self.log.exception("internal error while sending")
            self._lose(f"internal error: {exc!r}")
            return
        if not is_done:
            self._is_blocked = True
            self.daemon.spawn(self._drain)

    async def _drain(self) -> None:
        """Send the outbox as the socket takes it, until it is empty."""
        if self._is_lost:  # the session may have ended before this task began
            return
        try:
            while True:
                await self._stream.wait_writable()
                self._unread_since_s = math.inf
                if self.outbox.pump(self._stream.try_send):
                    break
                self._room.unpark_all()
        except _PEER_GONE as exc:
            self._lose(str(exc) or type(exc).__name__)
        except Exception as exc:
            self.log.exception("internal error while sending")
            self._lose(f"internal error: {exc!r}")
        else:
            self._is_blocked = False
            self._room.unpark_all()
