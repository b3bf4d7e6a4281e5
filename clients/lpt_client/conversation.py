"""The conversation with a daemon, without I/O: bytes in → events out, requests → bytes out.

Both front ends drive it, and it knows neither sockets nor tasks nor the time:

    conversation.hello(…)    → bytes to send     first, and once
    conversation.request(…)  → msgid, bytes      from hello's answer on
    conversation.cancel(…)   → bytes
    conversation.receive(…)  ← bytes received
    conversation.next_event()→ SessionInfo (hello's answer), Response, or something of `events`

A conversation ends once, and for good: `lose` ends it from outside, a break of the protocol by the daemon ends it from
inside. From then on every request raises ConnectionLost. Its session may outlive it: then the next conversation, which
is given this one, asks the daemon to go on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from lpt_client.errors import ConnectionLost, HelloRefused, apart
from lpt_client.events import (
    Closing,
    DisconnectedNotice,
    Interrupt,
    LeaseWarning,
    Mark,
    Notice,
    PortCheck,
    Queued,
    Resumed,
    RevokedNotice,
    SessionInfo,
    Sync,
    Waiters,
    mark_name,
)
from lpt_service.protocol import messages
from lpt_service.protocol.codec import CLIENT_LIMITS, U32_MAX, Decoder, encode_notification, encode_request
from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.messages import Message, Notification, Response

ConversationEvent = SessionInfo | Response | Interrupt | Mark | Sync | Notice


class Conversation:
    """One conversation, from hello to its end.

    `previous` is the conversation whose session this one is to go on with, if the daemon has kept it.

    Attributes:
        session: what hello was answered; None before.
        closing_reason: what the daemon said that it closes for; None while it has not.
        end_reason: why the conversation is over; None while it goes on.

    Error handling: `next_event` raises ConversationError when the daemon breaks the protocol, and HelloRefused when it
    gives no session. Either ends the conversation.
    """

    def __init__(self, previous: Conversation | None = None) -> None:
        self.session: SessionInfo | None = None
        self.closing_reason: str | None = None
        self.end_reason: str | None = None
        self._end_cause: BaseException | None = None
        self._decoder = Decoder(CLIENT_LIMITS)
        self._hello: int | None = None
        self._secret: str | None = None  # by which a later conversation may go on with this session
        self._previous_secret: str | None = None
        self._last_msgid = 0
        self._pending: dict[int, str] = {}  # msgid → what was asked, for people
        self._former: dict[int, str] = {}  # the same, of the conversation before: not answered there
        if previous is not None:
            self._previous_secret = previous._secret
            self._last_msgid = previous._last_msgid
            self._former = {**previous._former, **previous._pending}
            self._former.pop(-1 if previous._hello is None else previous._hello, None)

    # Requests → bytes

    def hello(
        self,
        *,
        client: str,
        port: str | None = None,
        token: str | None = None,
        notifications: Sequence[str] | None = None,
        hear_from: tuple[int, int] | None = None,
    ) -> bytes:
        """The first request. `client` is how this program calls itself, for people to read; left out is None.

        `hear_from` is where a session that goes on is to hear interrupts from: the stream, and the next number in it.
        """
        assert self._hello is None, "hello is said once"
        given: dict[str, Any] = {"protocol": messages.PROTOCOL_VERSION, "client": client}
        given.update(port=port, token=token, notifications=None if notifications is None else tuple(notifications))
        if self._previous_secret is not None:
            given.update({"resume": self._previous_secret, "from": hear_from})
        params = {name: value for name, value in given.items() if value is not None}
        self._hello, data = self.request(messages.HELLO, (params,), "hello")
        return data

    def request(self, method: str, params: tuple[Any, ...], what: str) -> tuple[int, bytes]:
        """A request's msgid and bytes. `what` names it in the text of errors.

        Raises ConnectionLost when the conversation is over.
        """
        if self.end_reason is not None:
            raise self.connection_lost(what)
        msgid = self._last_msgid + 1
        # After four thousand million requests it begins anew.
        while msgid > U32_MAX or msgid in self._pending or msgid in self._former:
            msgid = msgid + 1 if msgid < U32_MAX else 0
        data = encode_request(msgid, method, params)
        self._last_msgid = msgid
        self._pending[msgid] = what
        return msgid, data

    def cancel(self, msgid: int) -> bytes:
        """Ask the daemon to end a request early (CancelIoEx). Its answer comes all the same, one way or the other."""
        return encode_notification(messages.CANCEL, (msgid,))

    @property
    def can_be_resumed(self) -> bool:
        """True when a later conversation may go on with this session, after the connection has broken."""
        return self._secret is not None and not isinstance(self._end_cause, ConversationError)

    def bye(self) -> bytes:
        """Say that this session ends with its connection, whatever becomes of that; nothing if it does so anyway."""
        if self._secret is None:
            return b""
        self._secret = None
        return encode_notification(messages.BYE, ())

    def is_pending(self, msgid: int) -> bool:
        """True while this conversation is to bring the answer to `msgid`."""
        return msgid in self._pending

    # Bytes → events

    def receive(self, data: bytes) -> None:
        """Take bytes, at least one; `next_event` must have returned None since the last call."""
        self._decoder.receive(data)

    def next_event(self) -> ConversationEvent | None:
        """The next event, or None when more bytes are needed or the conversation is over."""
        if self.end_reason is not None:
            return None
        try:
            while (message := self._decoder.next_message()) is not None:
                if type(message) is Response:
                    if self._pending.pop(message.msgid, None) is None:
                        raise ConversationError(f"an answer to a request that was not made: msgid {message.msgid}")
                    return message if message.msgid != self._hello else self._begin_session(message)
                event = self._event_of(message)
                if event is not None:
                    return event
        except ConversationError as exc:
            self.lose(f"the daemon broke the protocol: {exc}", exc)
            raise
        return None

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """End the conversation. The first reason stands."""
        if self.end_reason is None:
            self.end_reason = reason
            self._end_cause = None if cause is None else apart(cause)

    def end_of_stream(self) -> None:
        """The daemon has closed the connection: end the conversation with the reason that it gave."""
        if self.closing_reason is not None:
            self.lose(f"the daemon closed the connection: {self.closing_reason}")
        elif self._decoder.is_mid_frame:
            self.lose("the daemon closed the connection in the middle of a frame")
        else:
            self.lose("the daemon closed the connection without giving a reason")

    def connection_lost(self, what: str | None = None) -> ConnectionLost:
        """A fresh exception for one caller that wants to ask `what` of a conversation that is over."""
        return self._lost(what, may_have_run=False)

    def connection_lost_for(self, msgid: int, *, goes_on: bool = False) -> ConnectionLost:
        """A fresh exception for the caller who waits for the answer to `msgid`."""
        return self._lost(self._pending.get(msgid), may_have_run=True, goes_on=goes_on)

    def _lost(self, what: str | None, *, may_have_run: bool, goes_on: bool = False) -> ConnectionLost:
        reason = self.end_reason or "the connection was lost"
        error = ConnectionLost(reason, what, may_have_run=may_have_run, goes_on=goes_on)
        error.__cause__ = self._end_cause
        return error

    def _begin_session(self, response: Response) -> SessionInfo:
        if response.error is not None:
            error = messages.error_of(response.error)
            self.lose(f"hello was refused: {error}")
            raise HelloRefused(error.status, error.detail)
        self.session = _session_info(response.result)
        self._secret = _optional_text(response.result.get("resume"))
        if self.session.resumed is not None:
            self._go_on(self.session.resumed.pending)
        self._former = {}
        return self.session

    def _go_on(self, pending: Collection[int]) -> None:
        if self._previous_secret is None:
            raise ConversationError("the daemon goes on with a session that it was not asked for")
        for msgid in pending:
            if msgid in self._pending:
                raise ConversationError(f"a request is said to be pending that was never made: msgid {msgid}")
            self._pending[msgid] = self._former.get(msgid, "a request")

    def _event_of(self, message: Message) -> ConversationEvent | None:
        if type(message) is not Notification:
            raise ConversationError("the daemon sent a request")
        read = _NOTIFICATIONS.get(message.method)
        if read is None:
            return None  # a newer daemon's
        params = message.params
        try:
            event = read(params)
        except (TypeError, ValueError, LookupError):
            raise ConversationError(f"{message.method} with other params than agreed: {params!r:.100}") from None
        if type(event) is Closing:
            self.closing_reason = event.reason
        return event


def _session_info(result: Any) -> SessionInfo:
    try:
        clock = result.get("clock", {})
        return SessionInfo(
            server=_text(result.get("server", "")),
            port=_text(result["port"]),
            session=_number(result["session"]),
            stream=_number(result["stream"]),
            monotonic_ns=_number(clock.get("monotonic_ns", 0)),
            realtime_ns=_number(clock.get("realtime_ns", 0)),
            limits=MappingProxyType(dict(result.get("limits", {}))),
            features=tuple(_text(name) for name in result.get("features", ())),
            resumed=_resumed(result.get("resumed")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConversationError(f"hello was answered in another shape than agreed: {result!r:.100}") from None


def _resumed(value: Any) -> Resumed | None:
    if value is None:
        return None
    registrations = _items(value.get("registrations", ()))
    if not all(type(each) is bytes for each in registrations):
        raise TypeError
    return Resumed(
        grant=_optional_number(value.get("grant")),
        position=_optional_number(value.get("position")),
        pending=tuple(_number(each) for each in _items(value.get("pending", ()))),
        registrations=registrations,
    )


# One reader for each notification. Items that it does not know it leaves alone; what is wrong raises TypeError,
# ValueError or LookupError (a map is no array, and says so differently from one Python to the next).


def _number(value: Any) -> int:
    if type(value) is int and value >= 0:
        return value
    raise TypeError


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise TypeError


def _optional_number(value: Any) -> int | None:
    return None if value is None else _number(value)


def _optional_text(value: Any) -> str | None:
    return value if type(value) is str else None


def _items(params: Any) -> tuple[Any, ...]:
    if type(params) is tuple:
        return params
    raise TypeError


def _interrupt(params: Any) -> Interrupt | Mark:
    seq, timestamp_ns, count, status, control, kind = params[:6]
    if not type(seq) is type(timestamp_ns) is type(count) is type(status) is type(control) is type(kind) is int:
        raise TypeError
    if kind == messages.KIND_EVENT:
        return Interrupt(seq, count, timestamp_ns, status, control)
    return Mark(mark_name(kind), seq, timestamp_ns, status, control)


def _sync(params: Any) -> Sync:
    reason, next_seq, lost = _items(params)[:3]
    return Sync(_text(reason), _number(next_seq), None if lost is None else _number(lost))


def _port_check(params: Any) -> PortCheck:
    routine, context = _items(params)[:2]
    return PortCheck(_number(routine), _number(context))


def _queued(params: Any) -> Queued:
    msgid, position = _items(params)[:2]
    return Queued(_number(msgid), _number(position))


def _disconnected(params: Any) -> DisconnectedNotice:
    structure, reason = _items(params)[:2]
    if type(structure) is not bytes:
        raise TypeError
    return DisconnectedNotice(structure, _text(reason))


def _lease(params: Any) -> LeaseWarning:
    reason, remaining_ms = _items(params)[:2]
    return LeaseWarning(_text(reason), _number(remaining_ms))


_NOTIFICATIONS: Final[Mapping[str, Callable[[Any], Interrupt | Mark | Sync | Notice]]] = {
    messages.INTERRUPT: _interrupt,
    messages.INTERRUPT_SYNC: _sync,
    messages.PORT_CHECK: _port_check,
    messages.QUEUED: _queued,
    messages.WAITERS: lambda params: Waiters(_number(_items(params)[0])),
    messages.REVOKED: lambda params: RevokedNotice(_text(_items(params)[0])),
    messages.DISCONNECTED: _disconnected,
    messages.LEASE: _lease,
    messages.CLOSING: lambda params: Closing(_text(_items(params)[0])),
}
