"""One connection of the trio client: it sends requests, hands out their answers, and ends once.

One task reads and passes on all that comes. A request is sent by the task that makes it, without waiting if the kernel
takes it; otherwise by the writer task, so that a caller who is cancelled never leaves half a frame behind.

A link whose session may go on is *suspended* when its connection ends: its callers wait on, until the next link takes
them over (`go_on`) or it is clear that there will be none (`fail_calls`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import trio

from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import ConversationError, LptError, NotConnected
from lpt_client.events import Queued, SessionInfo
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call
from lpt_client.resume import Settlement, Unanswered, code_of
from lpt_client.sockets import DEAD_PEER_S, why
from lpt_client.trio_context import Home
from lpt_client.trio_transport import TRANSPORT_ERRORS, Transport
from lpt_client.trio_waiter import Waiter
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import Response
from lpt_service.protocol.structs import PARALLEL_PORT_INFORMATION

T = TypeVar("T")

# Requests that the kernel has not taken yet; beyond this a caller waits before it adds another (frames to the daemon
# are at most 64 KiB).
MAX_UNSENT_BYTES: Final = 256 * 1024
_SEND_BYTES: Final = 64 * 1024
# When sending fails, what the daemon said last may still be there to read; it gets so long.
_LAST_WORDS_S: Final = 1.0
# Saying goodbye: a daemon that takes nothing for so long does without.
_BYE_S: Final = 1.0
# So often in DEAD_PEER_S: it is noticed a fifth late at the most.
_LOOKS: Final = 5


class Link:
    """A connection on which hello has been answered.

    `on_event` is called, in the reader's task, for all that is neither an answer nor a place in the queue; what it
    raises ends `run`. `on_lost` is called once, when the connection has ended.

    Synchronization: any number of tasks may `call`; one runs `run`.
    """

    def __init__(
        self,
        transport: Transport,
        conversation: Conversation,
        session: SessionInfo,
        *,
        on_event: Callable[[Link, ConversationEvent], None],
        on_lost: Callable[[Link], None],
    ) -> None:
        self.session = session
        self.port_info: PARALLEL_PORT_INFORMATION | None = None  # of this session, once asked for
        self._transport = transport
        self._conversation = conversation
        self._on_event = on_event
        self._on_lost = on_lost
        self._waiters: dict[int, Waiter] = {}
        self._unsent = bytearray()
        self._has_unsent = trio.Event()
        self._has_room = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._end_reason = "this program closed the connection"
        self._home = Home()
        self._is_disowned = False

    @property
    def is_over(self) -> bool:
        """True once the connection has ended."""
        return self._conversation.end_reason is not None

    def error(self, what: str | None = None) -> NotConnected:
        """A fresh exception that says why it ended."""
        return self._conversation.connection_lost(what)

    # Calls

    async def call(
        self,
        call: Call[T],
        *,
        on_queued: Callable[[int], object] | None = None,
        on_response: Callable[[Response], None] | None = None,
    ) -> T:
        """Carry out one operation.

        `on_queued` is called in this task with the place in the queue; `on_response` in the reader's task with the
        answer, before anything that came after it is looked at.

        Raises RequestError, ConnectionLost, ConversationError. A caller who is cancelled has the request cancelled;
        where it succeeded all the same it is undone before this returns (in at most CLEANUP_TIMEOUT_S).
        """
        if threading.get_ident() != self._home.thread:
            self._home.check()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except RuntimeError:
            self._home.check()
            raise
        while len(self._unsent) > MAX_UNSENT_BYTES and not self.is_over:
            await self._has_room.park()
        waiter = Waiter(self, call, on_response)
        self._ask(waiter)
        try:
            while not waiter.is_done:
                await waiter.park()
                if waiter.position is not None and not waiter.is_done:
                    position, waiter.position = waiter.position, None
                    if on_queued is not None:
                        on_queued(position)
        except BaseException:
            await waiter.link._give_up(waiter)
            raise
        if waiter.response is None:
            assert waiter.error is not None
            raise waiter.error
        try:
            return call.finish(waiter.response)
        except ConversationError as exc:
            waiter.link.lose(f"the daemon broke the protocol: {exc}", exc)
            raise

    def post(self, call: Call[Any], on_response: Callable[[Response], None] | None = None) -> None:
        """Carry out an operation whose answer nobody waits for; `on_response` as in `call`."""
        if self.is_over:
            return
        if on_response is not None:
            self._ask(Waiter(self, call, on_response))
            return
        _, data = self._conversation.request(call.method, call.params, call.what)
        self._send(data)

    def _ask(self, waiter: Waiter) -> None:
        call = waiter.call
        waiter.msgid, data = self._conversation.request(call.method, call.params, call.what)
        self._waiters[waiter.msgid] = waiter
        self._send(data)

    async def _give_up(self, waiter: Waiter) -> None:
        """Withdraw a request whose caller goes away, and undo it if it had been carried out by then."""
        call = waiter.call
        waiter.is_given_up = True
        if self.is_over:
            return  # if the session goes on, the next link sees to it
        self._send(self._conversation.cancel(waiter.msgid))
        if call.undo is None:
            self._waiters.pop(waiter.msgid, None)  # its answer is for nobody
            return
        with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
            while not waiter.is_done and not self.is_over:
                await waiter.park()
            await self._undo(waiter, call)
        if scope.cancelled_caught:
            # What a session holds dies with it, or is given back when it goes on: nothing can be left behind.
            self.lose(f"the daemon did not answer the cancelling of {call.what} within {CLEANUP_TIMEOUT_S:g} s")

    async def _undo(self, waiter: Waiter, call: Call[Any]) -> None:
        if waiter.response is None or waiter.response.error is not None:
            return
        try:
            undo = call.undo and call.undo(call.finish(waiter.response))
            if undo is not None:
                await self.call(undo)
        except LptError:
            return  # refused: there is nothing to undo any more

    def _send(self, data: bytes) -> None:
        """Send, or leave it to the writer task; what was left to it earlier goes first."""
        if not self._unsent:
            try:
                sent = self._transport.try_send(data)
            except TRANSPORT_ERRORS:
                sent = 0  # the writer task will meet the same error and deal with it
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent += data
        self._has_unsent.set()

    # Tasks

    async def run(self) -> None:
        """Read and write until the connection has ended; then close it. Raises nothing but what a callback raised."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self.is_over:
                    return
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)
                await self._read()
                nursery.cancel_scope.cancel()
        except BaseException:  # ended from outside: the program leaves
            await self._say_bye()
            raise
        finally:
            self.lose(self._end_reason)
            with trio.CancelScope(shield=True):  # closes by force: takes no time
                if not self._is_disowned:
                    await self._transport.close()

    async def _say_bye(self) -> None:
        """Have the daemon keep nothing of this session. Says nothing where half a frame may be on its way."""
        if self.is_over or self._unsent:
            return
        if bye := self._conversation.bye():
            with trio.move_on_after(_BYE_S, shield=True), suppress(*TRANSPORT_ERRORS):
                await self._transport.send(bye)

    async def _read(self) -> None:
        self._dispatch()  # what came together with the answer to hello
        while not self.is_over:
            try:
                data = await self._transport.receive()
            except TRANSPORT_ERRORS as exc:
                self._conversation.lose(f"the connection broke: {why(exc)}", exc)
                break
            if data:
                self._conversation.receive(data)
                self._dispatch()
            else:
                self._conversation.end_of_stream()
        self._ended()

    async def _watch(self) -> None:
        """Look, now and then, whether the daemon's computer still answers; a kernel's bound of its own would not do."""
        while not self.is_over:
            await trio.sleep(DEAD_PEER_S / _LOOKS)
            with suppress(*TRANSPORT_ERRORS):  # the reader tells of those
                if self._transport.is_unreachable():
                    self.lose(f"the connection broke: the daemon's computer has not answered for {DEAD_PEER_S} s")

    async def _write(self) -> None:
        try:
            while True:
                await self._has_unsent.wait()
                chunk = bytes(self._unsent[:_SEND_BYTES])
                await self._transport.send(chunk)
                del self._unsent[: len(chunk)]
                if not self._unsent:
                    self._has_unsent = trio.Event()
                self._has_room.unpark_all()
        except TRANSPORT_ERRORS as exc:
            await trio.sleep(_LAST_WORDS_S)
            self.lose(f"the connection broke: {why(exc)}", exc)

    def _dispatch(self) -> None:
        """Pass on every event that has come."""
        conversation = self._conversation
        while True:
            try:
                event = conversation.next_event()
            except ConversationError:
                return  # it has ended the conversation
            if event is None:
                return
            if type(event) is Response:
                waiter = self._waiters.pop(event.msgid, None)
                if waiter is not None:
                    waiter.answer(event)
            elif type(event) is Queued:
                waiter = self._waiters.get(event.msgid)
                if waiter is not None:
                    waiter.position = event.position
                    waiter.wake()
            else:
                self._on_event(self, event)

    # The end

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """End the connection; every caller is told. The first reason stands."""
        self._conversation.lose(reason, cause)
        self._ended()

    def disown(self, reason: str) -> None:
        """In a forked child: end without a byte. The loop may not be there, or be another: nobody is woken."""
        # Closing a stream would have trio take it out of the epoll that parent and child share.
        self._is_disowned = True
        self._conversation.lose(reason)

    def lose_after(self, seconds: float, reason: str) -> None:
        """End the connection in a while, unless the daemon does."""
        # One deadline on the scope that is there anyway: a time-out around each receive would cost every request.
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)
        self._end_reason = reason

    def lose_not(self) -> None:
        """Undo `lose_after`."""
        self._scope.deadline = math.inf

    def _ended(self) -> None:
        self._has_room.unpark_all()
        self._scope.cancel()
        for waiter in self._waiters.values():
            if waiter.is_given_up:
                waiter.wake()
        on_lost, self._on_lost = self._on_lost, _ignore
        on_lost(self)

    # The session, which may outlive it

    @property
    def can_be_resumed(self) -> bool:
        """True when another link may go on with this session."""
        return self._conversation.can_be_resumed

    @property
    def conversation(self) -> Conversation:
        """For the next link, that is to go on with this one's session."""
        return self._conversation

    def unanswered(self) -> dict[int, Unanswered]:
        """The requests whose answers have not come, by msgid, in the order in which they were sent."""
        return {msgid: Unanswered(each.call, each.is_given_up) for msgid, each in self._waiters.items()}

    def fail_calls(self) -> None:
        """The session is lost with the connection: every caller is told."""
        self._conversation.bye()
        waiters, self._waiters = self._waiters, {}
        for msgid in waiters:
            self._fail(waiters[msgid], msgid, goes_on=False)

    def go_on(self, former: Link, settlement: Settlement) -> None:
        """Go on with the session of `former`, and take over its callers."""
        waiters, former._waiters = former._waiters, {}
        for msgid in settlement.waiting:
            waiter = self._waiters[msgid] = waiters[msgid]
            waiter.link = self
        for msgid in settlement.given_up:
            self._send(self._conversation.cancel(msgid))
            waiters[msgid].on_response = partial(self._undo_late, waiters[msgid].call)
        for msgid in settlement.lost:
            former._fail(waiters[msgid], msgid, goes_on=True)
        for response in settlement.answers:
            waiters[response.msgid].answer(response)
        for call in settlement.undo:
            self.post(call)
        for msgid in settlement.again:
            if waiters[msgid].is_given_up:
                self.post(waiters[msgid].call)
            else:
                waiters[msgid].link = self
                self._ask(waiters[msgid])

    def show_position(self, position: int | None) -> None:
        """The place in the queue, as the answer to hello told it, of the allocate that waits."""
        for waiter in self._waiters.values() if position is not None else ():
            if code_of(waiter.call) == Ioctl.PARALLEL_PORT_ALLOCATE:
                waiter.position = position
                waiter.wake()

    def _fail(self, waiter: Waiter, msgid: int, *, goes_on: bool) -> None:
        waiter.error = self._conversation.connection_lost_for(msgid, goes_on=goes_on)
        waiter.wake()

    def _undo_late(self, call: Call[Any], response: Response) -> None:
        """Give back what a request acquired whose caller has gone away."""
        with suppress(LptError):
            undo = call.undo and call.undo(call.finish(response))
            if undo is not None:
                self.post(undo)


def _ignore(_link: Link) -> None:
    """Nobody to tell."""
