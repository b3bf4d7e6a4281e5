"""One connection of the trio client: it sends requests, hands out their answers, and ends once.

One task reads and passes on all that comes. A request is sent by the task that makes it, without waiting if the kernel
takes it; otherwise by the writer task, so that a caller who is cancelled never leaves half a frame behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import trio

from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import ConversationError, LptError, NotConnected
from lpt_client.events import Queued, SessionInfo
from lpt_client.operations import CLEANUP_TIMEOUT_S, PORT_INFO, Call
from lpt_client.sockets import why
from lpt_client.trio_transport import TRANSPORT_ERRORS, Transport
from lpt_service.protocol.messages import Response
from lpt_service.protocol.structs import PARALLEL_PORT_INFORMATION

T = TypeVar("T")

# Requests that the kernel has not taken yet; beyond this a caller waits before it adds another (frames to the daemon
# are at most 64 KiB).
MAX_UNSENT_BYTES: Final = 256 * 1024
_SEND_BYTES: Final = 64 * 1024
# When sending fails, what the daemon said last may still be there to read; it gets so long.
_LAST_WORDS_S: Final = 1.0


class _Waiter:
    """A caller whose request is under way: what it waits for, and where it is parked."""

    __slots__ = ("error", "on_response", "position", "response", "task")

    def __init__(self, on_response: Callable[[Response], None] | None) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.response: Response | None = None
        self.error: NotConnected | None = None
        self.position: int | None = None  # in the queue, where the caller has not been told yet
        self.on_response = on_response

    @property
    def is_done(self) -> bool:
        return self.response is not None or self.error is not None

    async def park(self) -> None:
        """Sleep until woken."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Let the caller go on, if it is parked."""
        if self.task is not None:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task)


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
        self._port_info: PARALLEL_PORT_INFORMATION | None = None
        self._transport = transport
        self._conversation = conversation
        self._on_event = on_event
        self._on_lost = on_lost
        self._waiters: dict[int, _Waiter] = {}
        self._unsent = bytearray()
        self._has_unsent = trio.Event()
        self._has_room = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._end_reason = "this program closed the connection"

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
        await trio.lowlevel.checkpoint_if_cancelled()
        while len(self._unsent) > MAX_UNSENT_BYTES and not self.is_over:
            await self._has_room.park()
        waiter = _Waiter(on_response)
        msgid, data = self._conversation.request(call.method, call.params, call.what)
        self._waiters[msgid] = waiter
        self._send(data)
        try:
            while not waiter.is_done:
                await waiter.park()
                if waiter.position is not None and not waiter.is_done:
                    position, waiter.position = waiter.position, None
                    if on_queued is not None:
                        on_queued(position)
        except BaseException:
            await self._give_up(msgid, waiter, call)
            raise
        if waiter.response is None:
            assert waiter.error is not None
            raise waiter.error
        try:
            return call.finish(waiter.response)
        except ConversationError as exc:
            self.lose(f"the daemon broke the protocol: {exc}", exc)
            raise

    async def ask_port_info(self) -> PARALLEL_PORT_INFORMATION:
        """The structure that callbacks are called through; asked for once."""
        if self._port_info is None:
            self._port_info = await self.call(PORT_INFO)
        return self._port_info

    async def _give_up(self, msgid: int, waiter: _Waiter, call: Call[Any]) -> None:
        """Withdraw a request whose caller goes away, and undo it if it had been carried out by then."""
        if self.is_over:
            return
        self._send(self._conversation.cancel(msgid))
        if call.undo is None:
            self._waiters.pop(msgid, None)  # its answer is for nobody
            return
        with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
            while not waiter.is_done:
                await waiter.park()
            await self._undo(waiter, call)
        if scope.cancelled_caught:
            # What a session holds dies with it: nothing can be left behind.
            self.lose(f"the daemon did not answer the cancelling of {call.what} within {CLEANUP_TIMEOUT_S:g} s")

    async def _undo(self, waiter: _Waiter, call: Call[Any]) -> None:
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
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.lose(self._end_reason)
            with trio.CancelScope(shield=True):  # closes by force: takes no time
                await self._transport.close()

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
                    waiter.response = event
                    waiter.wake()
                    if waiter.on_response is not None:
                        waiter.on_response(event)
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

    def lose_after(self, seconds: float, reason: str) -> None:
        """End the connection in a while, unless the daemon does."""
        # One deadline on the scope that is there anyway: a time-out around each receive would cost every request.
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)
        self._end_reason = reason

    def _ended(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for msgid, waiter in waiters.items():
            waiter.error = self._conversation.connection_lost_for(msgid)
            waiter.wake()
        self._has_room.unpark_all()
        self._scope.cancel()
        on_lost, self._on_lost = self._on_lost, _ignore
        on_lost(self)


def _ignore(_link: Link) -> None:
    """Nobody to tell."""
