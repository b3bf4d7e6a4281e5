"""Conversation: bytes in → events out, without I/O."""

from __future__ import annotations

import random

import pytest

from lpt_client import events
from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import ConnectionLost, ConversationError, HelloRefused
from lpt_service.protocol import messages
from lpt_service.protocol.codec import (
    DAEMON_LIMITS,
    U32_MAX,
    Decoder,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
)
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification, Request, Response
from lpt_service.protocol.status import Status
from tests.clients.fake_daemon import FakeDaemon, interrupt, mark, notice, sync


def decode(data: bytes) -> list[object]:
    decoder = Decoder(DAEMON_LIMITS)
    decoder.receive(data)
    found: list[object] = []
    while (message := decoder.next_message()) is not None:
        found.append(message)
    return found


def drain(conversation: Conversation) -> list[ConversationEvent]:
    found = []
    while (event := conversation.next_event()) is not None:
        found.append(event)
    return found


def opened(daemon: FakeDaemon | None = None) -> Conversation:
    """A conversation past hello."""
    conversation = Conversation()
    daemon = daemon or FakeDaemon()
    conversation.receive(daemon.receive(conversation.hello(client="test")))
    assert isinstance(conversation.next_event(), events.SessionInfo)
    assert conversation.next_event() is None
    return conversation


def test_hello_says_who_and_what_and_leaves_out_what_is_not_given() -> None:
    (request,) = decode(Conversation().hello(client="me"))
    assert request == Request(1, "hello", ({"protocol": 1, "client": "me"},))
    (request,) = decode(Conversation().hello(client="me", port="LPT2", token="t", notifications=["closing"]))
    assert isinstance(request, Request)
    assert request.params == (
        {"protocol": 1, "client": "me", "port": "LPT2", "token": "t", "notifications": ("closing",)},
    )


def test_session_is_what_hello_was_answered() -> None:
    session = opened(FakeDaemon(session=5, stream=6)).session
    assert session == events.SessionInfo("fake 1", "LPT1", 5, 6, 1, 2, {}, ())


def test_hello_answered_with_more_and_less_than_known() -> None:
    conversation = Conversation()
    conversation.hello(client="me")
    conversation.receive(encode_result(1, {"port": "P", "session": 3, "stream": 4, "motd": "hi", "features": ["x"]}))
    session = conversation.next_event()
    assert isinstance(session, events.SessionInfo)
    assert (session.port, session.session, session.stream, session.features) == ("P", 3, 4, ("x",))


@pytest.mark.parametrize(
    "result", [None, 7, [], {}, {"port": "P", "session": "x", "stream": 1}, {"port": 1, "session": 1, "stream": 1}]
)
def test_hello_answered_in_another_shape(result: object) -> None:
    conversation = Conversation()
    conversation.hello(client="me")
    conversation.receive(encode_result(1, result))
    with pytest.raises(ConversationError):
        conversation.next_event()
    assert conversation.end_reason is not None


def test_a_refused_hello_is_an_exception_with_the_status_and_the_end() -> None:
    conversation = Conversation()
    conversation.hello(client="me")
    conversation.receive(encode_error(1, Status.STATUS_ACCESS_DENIED, "STATUS_ACCESS_DENIED", "token"))
    with pytest.raises(HelloRefused) as caught:
        conversation.next_event()
    assert caught.value.status == Status.STATUS_ACCESS_DENIED
    with pytest.raises(ConnectionLost):
        conversation.request("ping", (), "ping")


def test_a_request_and_its_answer() -> None:
    conversation = opened()
    msgid, data = conversation.request("ping", (), "ping")
    assert decode(data) == [Request(msgid, "ping", ())]
    conversation.receive(encode_result(msgid, [1, 2]))
    assert drain(conversation) == [Response(msgid, None, (1, 2))]


def test_answers_may_come_out_of_order() -> None:
    conversation = opened()
    first, _ = conversation.request("ping", (), "ping")
    second, _ = conversation.request("ping", (), "ping")
    conversation.receive(encode_result(second, [2, 2]) + encode_result(first, [1, 1]))
    assert [event.msgid for event in drain(conversation) if isinstance(event, Response)] == [second, first]


def test_cancel_is_a_notification() -> None:
    assert decode(opened().cancel(9)) == [Notification("cancel", (9,))]


def test_msgids_begin_anew_and_spare_those_that_are_pending() -> None:
    conversation = opened()
    pending, _ = conversation.request("ping", (), "ping")
    conversation._last_msgid = U32_MAX - 1
    assert [conversation.request("ping", (), "ping")[0] for _ in range(4)] == [U32_MAX, 0, 1, pending + 1]
    assert pending == 2


def test_every_notification() -> None:
    conversation = opened()
    conversation.receive(
        interrupt(7, 2)
        + mark(messages.KIND_MASKED, 9)
        + mark(77, 9)
        + sync("overrun", 20, 11)
        + sync("restarted", 0, None)
        + notice("port_check", 3, 0)
        + notice("queued", 5, 1)
        + notice("waiters", 4)
        + notice("revoked", "lease")
        + notice("disconnected", bytes(32), "port removed: unplugged")
        + notice("closing", "stopping")
    )
    assert drain(conversation) == [
        events.Interrupt(7, 2, 1007, 0xC0, 0x1C),
        events.Mark("masked", 9, 1000, 0xC0, 0x1C),
        events.Mark("kind 77", 9, 1000, 0xC0, 0x1C),
        events.Sync("overrun", 20, 11),
        events.Sync("restarted", 0, None),
        events.PortCheck(3, 0),
        events.Queued(5, 1),
        events.Waiters(4),
        events.RevokedNotice("lease"),
        events.DisconnectedNotice(bytes(32), "port removed: unplugged"),
        events.Closing("stopping"),
    ]
    assert conversation.closing_reason == "stopping"


def test_unknown_notifications_and_trailing_items_are_ignored() -> None:
    conversation = opened()
    conversation.receive(
        notice("weather", "rain")
        + notice("interrupt", 1, 2, 3, 4, 5, 0, "new")
        + notice("interrupt_sync", "connected", 1, 0, "new")
        + notice("waiters", 1, "new")
        + notice("closing", "bye", {"new": 1})
    )
    assert drain(conversation) == [
        events.Interrupt(1, 3, 2, 4, 5),
        events.Sync("connected", 1, 0),
        events.Waiters(1),
        events.Closing("bye"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        notice("interrupt", 1, 2, 3),
        notice("interrupt", 1, 2, "3", 4, 5, 0),
        notice("interrupt", 1, 2, True, 4, 5, 0),
        notice("interrupt_sync", 1, 2, 3),
        notice("interrupt_sync", "resumed", -2, 3),
        notice("queued"),
        notice("waiters", None),
        notice("revoked", 1),
        encode_notification("closing", {"reason": "x"}),  # type: ignore[arg-type]  # that is the point
        encode_request(1, "ping", ()),
        encode_result(99, None),
        b"\xc1",
        b"lpt",
    ],
)
def test_a_daemon_that_breaks_the_protocol(data: bytes) -> None:
    conversation = opened()
    msgid, _ = conversation.request("ping", (), "ping")
    conversation.receive(notice("waiters", 1) + data + notice("waiters", 2))
    assert conversation.next_event() == events.Waiters(1)  # what came before it counts
    with pytest.raises(ConversationError):
        conversation.next_event()
    assert conversation.next_event() is None  # and it is over
    error = conversation.connection_lost_for(msgid)
    assert error.may_have_run
    assert error.request == "ping"
    assert isinstance(error.__cause__, ConversationError)
    with pytest.raises(ConnectionLost) as caught:
        conversation.request("ping", (), "ping")
    assert not caught.value.may_have_run


def test_the_end_of_the_stream_tells_the_reason_that_the_daemon_gave() -> None:
    conversation = opened()
    conversation.receive(notice("closing", "the daemon stops"))
    drain(conversation)
    conversation.end_of_stream()
    assert conversation.end_reason == "the daemon closed the connection: the daemon stops"


def test_the_end_of_the_stream_within_a_frame() -> None:
    conversation = opened()
    conversation.receive(interrupt(1)[:-1])
    assert conversation.next_event() is None
    conversation.end_of_stream()
    assert conversation.end_reason is not None
    assert "in the middle of a frame" in conversation.end_reason


def test_the_first_reason_stands() -> None:
    conversation = opened()
    conversation.lose("first")
    conversation.end_of_stream()
    assert conversation.end_reason == "first"
    assert str(conversation.connection_lost("PULSE")) == "first (PULSE: it was not carried out)"


def test_any_chunking_gives_the_same_events() -> None:
    stream = b"".join(
        (notice("waiters", 300), interrupt(1), notice("weather", {"a": [1, 2]}), mark(1, 2), sync("resumed", 9, 7))
    )
    whole = opened()
    whole.receive(stream)
    expected = drain(whole)
    rng = random.Random(1)
    for size in (1, 2, 41, 43, *[0] * 20):
        conversation, found, at = opened(), [], 0
        while at < len(stream):
            step = size or rng.randint(1, 60)
            conversation.receive(stream[at : at + step])
            found += drain(conversation)
            at += step
        assert found == expected


def test_garbage_raises_only_what_is_documented() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        conversation = opened()
        data = bytearray(interrupt(1) + sync("resumed", 9, 7) + notice("queued", 1, 1))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        conversation.receive(bytes(data))
        try:
            drain(conversation)
        except ConversationError:
            assert conversation.end_reason is not None
        except RequestError as exc:  # pragma: no cover
            pytest.fail(f"undocumented {exc!r}")


# A session that goes on


def broken() -> Conversation:
    """One that may go on, with three requests unanswered (2, 3, 4), after its connection broke."""
    daemon = FakeDaemon()
    daemon.resume = "00112233445566778899aabbccddeeff"
    conversation = opened(daemon)
    for _ in range(3):
        conversation.request("ping", (), "ping")
    conversation.end_of_stream()
    return conversation


def test_hello_that_goes_on() -> None:
    """The bytes: a fixed map, and a msgid that none of the unanswered ones has."""
    data = Conversation(broken()).hello(client="me", hear_from=(77, 5))
    expected = {"protocol": 1, "client": "me", "resume": "00112233445566778899aabbccddeeff", "from": (77, 5)}
    assert data == encode_request(5, "hello", (expected,))
    (request,) = decode(Conversation(broken()).hello(client="me"))
    assert isinstance(request, Request)
    assert "from" not in request.params[0], "nothing is heard"
    (request,) = decode(Conversation(opened()).hello(client="me", hear_from=(77, 5)))
    assert isinstance(request, Request)
    assert request.params == ({"protocol": 1, "client": "me"},), "there was nothing to go on with"


def test_a_session_that_goes_on() -> None:
    conversation = Conversation(broken())
    conversation.hello(client="me")
    resumed = {"grant": 9, "position": None, "pending": [3], "registrations": [bytes(32)], "more": 1}
    answer = {"port": "P", "session": 3, "stream": 4, "resume": "ff" * 16, "resumed": resumed}
    conversation.receive(encode_result(5, answer))
    session = conversation.next_event()
    assert isinstance(session, events.SessionInfo)
    assert session.resumed == events.Resumed(9, None, (3,), (bytes(32),))
    assert [conversation.is_pending(msgid) for msgid in (1, 2, 3, 4, 5)] == [False, False, True, False, False]
    assert conversation.request("ping", (), "ping")[0] == 6
    conversation.receive(encode_result(3, [1, 2]))
    assert drain(conversation) == [Response(3, None, (1, 2))]
    conversation.lose("broken again")
    (request,) = decode(Conversation(conversation).hello(client="me"))
    assert isinstance(request, Request)
    assert request.params[0]["resume"] == "ff" * 16, "a fresh one each time"


def test_a_msgid_that_is_pending_is_not_used_again() -> None:
    former = broken()
    former._last_msgid = U32_MAX
    former._pending = {0: "ping", 2: "ping"}
    conversation = Conversation(former)
    assert conversation.hello(client="me")[2] == 1, "0 is unanswered"
    conversation.receive(encode_result(1, {"port": "P", "session": 3, "stream": 4, "resumed": {"pending": [2, 3]}}))
    assert isinstance(conversation.next_event(), events.SessionInfo)
    assert [conversation.request("ping", (), "ping")[0] for _ in range(2)] == [4, 5]


def test_a_fresh_session_has_nothing_pending() -> None:
    conversation = Conversation(broken())
    conversation.hello(client="me")
    conversation.receive(encode_result(5, {"port": "P", "session": 3, "stream": 4}) + encode_result(3, [1, 2]))
    assert isinstance(conversation.next_event(), events.SessionInfo)
    assert not conversation.can_be_resumed
    with pytest.raises(ConversationError, match="not made"):
        conversation.next_event()


@pytest.mark.parametrize(
    "resumed",
    [
        7,
        {"grant": "x"},
        {"grant": -1},
        {"pending": 3},
        {"pending": ["x"]},
        {"registrations": ["x"]},
        {"pending": [3, 3]},
    ],
)
def test_resumed_of_another_shape(resumed: object) -> None:
    conversation = Conversation(broken())
    conversation.hello(client="me")
    conversation.receive(encode_result(5, {"port": "P", "session": 3, "stream": 4, "resumed": resumed}))
    with pytest.raises(ConversationError):
        conversation.next_event()


def test_a_daemon_that_goes_on_unasked() -> None:
    conversation = Conversation()
    conversation.hello(client="me")
    conversation.receive(encode_result(1, {"port": "P", "session": 3, "stream": 4, "resumed": {}}))
    with pytest.raises(ConversationError, match="not asked"):
        conversation.next_event()


def test_bye_is_said_once_and_only_where_something_would_be_kept() -> None:
    assert opened().bye() == b""
    daemon = FakeDaemon()
    daemon.resume = "00" * 16
    conversation = opened(daemon)
    assert conversation.can_be_resumed
    assert conversation.bye() == b"\x93\x02\xa3bye\x90"
    assert conversation.bye() == b""
    assert not conversation.can_be_resumed


def test_what_broke_the_protocol_does_not_go_on() -> None:
    daemon = FakeDaemon()
    daemon.resume = "00" * 16
    conversation = opened(daemon)
    conversation.receive(b"\xc1")
    with pytest.raises(ConversationError):
        conversation.next_event()
    assert not conversation.can_be_resumed


def test_a_lease_is_told() -> None:
    conversation = opened()
    conversation.receive(b"\x93\x02\xa5lease\x92\xa4held\xcd\x13\x88" + notice("lease", "idle", 0, "more"))
    assert drain(conversation) == [events.LeaseWarning("held", 5000), events.LeaseWarning("idle", 0)]
