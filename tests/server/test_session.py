"""One conversation: hello, dispatch, order, the end; in memory, on a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import LimitsConfig
from lpt_service.server import session as module
from lpt_service.server.daemon import Daemon
from tests.server.fakes import Peer, closing, enter, is_open, request, status

# Hello


async def test_hello_is_answered(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = Peer(daemon)
    welcome = await peer.say_hello(client="me", something_new=[1, 2])
    assert welcome["protocol"] == 1
    assert welcome["port"] == "LPT1"
    assert welcome["session"] == peer.session.number
    assert set(welcome["clock"]) == {"monotonic_ns", "realtime_ns"}
    assert 0 < welcome["stream"] < 2**53
    assert status(daemon)["sessions"] == 1


@pytest.mark.parametrize("method", ["ping", "status", "internal_device_control", "device_control", "no_such"])
async def test_error_row_a_request_before_hello(daemon: Daemon, autojump_clock: MockClock, method: str) -> None:
    peer = Peer(daemon)
    assert await peer.status_of(peer.send(method)) == "STATUS_INVALID_DEVICE_STATE"
    await peer.say_hello()


async def test_error_row_a_second_hello(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    assert await peer.status_of(peer.send("hello", {"protocol": 1})) == "STATUS_INVALID_DEVICE_STATE"
    assert await peer.result(peer.send("ping"))


async def test_a_hello_of_the_wrong_shape_may_be_followed_by_a_good_one(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = Peer(daemon)
    assert await peer.status_of(peer.send("hello")) == "STATUS_INVALID_PARAMETER"
    await peer.say_hello()


async def test_notifications_and_responses_before_hello_are_ignored(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = Peer(daemon)
    peer.stream.feed(b"\x93\x02\xa3foo\x90", b"\x93\x02\xa6cancel\x91\x01", b"\x94\x01\x05\xc0\xc0")
    assert await peer.messages() == []
    await peer.say_hello()


async def test_error_row_no_hello_within_ten_seconds(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = Peer(daemon)
    await trio.sleep(9.99)
    assert await peer.messages() == []
    await trio.sleep(0.02)
    assert closing(await peer.messages()) == "no hello within 10 s"
    assert peer.stream.is_closed


async def test_error_row_no_hello_within_ten_seconds_whatever_else_is_sent(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """Refused requests and ignored notifications do not put the deadline off, even in a stream that never pauses."""
    talker, flooder = Peer(daemon), Peer(daemon)

    def receive_after_a_millisecond() -> bytes:
        autojump_clock.jump(0.001)
        return b"\x93\x02\xa3foo\x90"

    flooder.stream.try_receive = receive_after_a_millisecond  # type: ignore[method-assign]
    talker.send("ping")
    await trio.sleep(11)
    assert closing(await flooder.messages()) == "no hello within 10 s"
    assert closing(await talker.messages()) == "no hello within 10 s"


async def test_the_hello_deadline_holds_while_replies_are_not_read(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = Peer(daemon, room=100)
    for _ in range(5000):
        peer.send("ping")
    await trio.sleep(10.1)
    assert peer.session.outbox.backlog_bytes < LimitsConfig().max_backlog_bytes * 2
    await trio.sleep(module.CLOSE_TIMEOUT_S)
    assert peer.stream.is_closed


async def test_once_hello_is_said_silence_may_last(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    await trio.sleep(80_000)
    assert await peer.result(peer.send("ping"))


async def test_hello_at_the_last_moment_with_much_behind_it(daemon: Daemon, autojump_clock: MockClock) -> None:
    """The deadline passes while the daemon is at what came with it."""
    peer = Peer(daemon)
    await trio.sleep(9.999)
    try_send = peer.stream.try_send

    def send_in_a_millisecond(data: bytes | memoryview) -> int:
        autojump_clock.jump(0.001)
        return try_send(data)

    peer.stream.try_send = send_in_a_millisecond  # type: ignore[method-assign]
    peer.stream.feed(request(1, "hello", {"protocol": 1}) + request(2, "ping") * 1000)
    assert len(await peer.messages()) == 1001
    await trio.sleep(100)
    assert is_open(peer)


async def test_error_row_hello_refused_ends_after_the_reply(daemon: Daemon, autojump_clock: MockClock) -> None:
    for keys, name in (({"protocol": 2}, "STATUS_NOT_SUPPORTED"), ({"port": "LPT9"}, "STATUS_NO_SUCH_DEVICE")):
        peer = Peer(daemon)
        peer.send("hello", {"protocol": 1, **keys})
        peer.send("ping")
        reply, last = await peer.messages()
        assert (reply[1], reply[2][1]) == (1, name)
        assert last[:2] == [2, "closing"]
        assert peer.stream.is_closed


async def test_frames_after_hello_may_be_larger_even_in_the_same_read(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = Peer(daemon)
    peer.stream.feed(request(1, "hello", {"protocol": 1}) + request(2, "ping", b"x" * 10_000))
    messages = await peer.messages()
    assert [message[1] for message in messages] == [1, 2]
    assert messages[1][2][1] == "STATUS_INVALID_PARAMETER"


# Frames: order, reuse, deadlines


async def test_pipelined_requests_are_answered_in_order(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    msgids = [peer.send("ping") for _ in range(300)]
    assert [message[1] for message in await peer.messages()] == msgids


async def test_requests_that_come_a_byte_at_a_time_are_answered(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    frames = b"".join(request(msgid, "ping") for msgid in (7, 8, 9))
    peer.stream.feed(*(frames[i : i + 1] for i in range(len(frames))))
    assert [message[1] for message in await peer.messages()] == [7, 8, 9]


async def test_a_request_that_waits_holds_up_none_of_the_others(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    waiting = waiter.allocate()
    assert await waiter.result(waiter.send("ping"))
    owner.free()
    assert await waiter.result(waiting) == [0, b""]


async def test_error_row_a_frame_not_finished_within_thirty_seconds(daemon: Daemon, autojump_clock: MockClock) -> None:
    """Dribbling does not help: it counts from the frame's first byte."""
    peer = await enter(daemon)
    frame = request(5, "ping")
    for byte in frame[:-1]:
        peer.stream.feed(bytes((byte,)))
        await trio.sleep(29.9 / (len(frame) - 1))
    assert await peer.messages() == []
    await trio.sleep(0.2)
    assert closing(await peer.messages()) == "a frame was not finished within 30 s"
    assert peer.stream.is_closed


async def test_each_frame_has_thirty_seconds_of_its_own(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    frame = request(5, "ping")
    peer.stream.feed(frame[:3])
    for _ in range(5):
        await trio.sleep(29)
        peer.stream.feed(frame[3:] + frame[:3])
        assert [message[1] for message in await peer.messages()] == [5]
    await trio.sleep(29)
    peer.stream.feed(frame[3:])
    assert [message[1] for message in await peer.messages()] == [5]
    await trio.sleep(1000)
    assert is_open(peer)


async def test_a_frame_is_not_late_while_the_daemon_does_not_read(daemon: Daemon, autojump_clock: MockClock) -> None:
    """A client that reads slowly is not read from; the frame that it has begun to send cannot go on."""
    peer = await enter(daemon, room=1000)
    frame = request(5, "ping")
    sent = frame * 20_000 + frame[:4]
    peer.stream.feed(*(sent[start : start + 1001] for start in range(0, len(sent), 1001)))  # never on a frame's end
    await wait_all_tasks_blocked()
    assert peer.session.outbox.backlog_bytes >= LimitsConfig().max_backlog_bytes
    for _ in range(60):
        await trio.sleep(1)
        peer.read(1)
    assert is_open(peer)
    while peer.session.outbox.backlog_bytes:
        await peer.messages()
    peer.stream.feed(frame[4:])
    assert [message[1] for message in await peer.messages()] == [5]


async def test_error_row_a_msgid_that_is_still_pending_is_used_again(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    before, waiting = waiter.send("ping"), waiter.allocate()
    waiter.send("ping", msgid=waiting)
    waiter.send("ping")
    messages = await waiter.messages()
    assert [message[1] for message in messages if message[0] == 1] == [before, waiting]
    assert messages[-2][2][1] == "STATUS_CANCELLED"
    assert closing(messages) == f"msgid {waiting} is still pending, and was used again"
    assert waiter.stream.is_closed
    assert status(daemon)["waiting"] == 0


async def test_a_msgid_may_be_used_again_once_it_is_answered(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    for _ in range(3):
        assert await peer.result(peer.send("ping", msgid=1))


# Cancel, ping, status


async def test_cancel_ends_a_waiting_request(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    waiting = waiter.allocate()
    await waiter.messages()
    waiter.stream.feed(b"\x93\x02\xa6cancel\x91" + bytes((waiting,)))
    assert await waiter.status_of(waiting) == "STATUS_CANCELLED"


@pytest.mark.parametrize("params", [b"\x91\x63", b"\x90", b"\x91\xa1x", b"\x92\x01\x01", b"\x91\xc3", b"\x81\x01\x01"])
async def test_cancel_of_an_unknown_msgid_or_of_the_wrong_shape_changes_nothing(
    daemon: Daemon, autojump_clock: MockClock, params: bytes
) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    waiter.allocate()
    await waiter.messages()
    waiter.stream.feed(b"\x93\x02\xa6cancel" + params)
    assert await waiter.messages() == []
    assert status(daemon)["waiting"] == 1


async def test_ping_answers_both_clocks(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    first = await peer.result(peer.send("ping"))
    await trio.sleep(2)
    second = await peer.result(peer.send("ping"))
    assert [after - before for before, after in zip(first, second, strict=True)] == [2_000_000_000] * 2


@pytest.mark.parametrize(
    ("method", "params"), [("ping", [1]), ("status", [{"verbose": True}]), ("status", [1]), ("status", [{}, {}])]
)
async def test_error_row_params_of_the_wrong_shape(
    daemon: Daemon, autojump_clock: MockClock, method: str, params: list[Any]
) -> None:
    peer = await enter(daemon)
    assert await peer.status_of(peer.send(method, *params)) == "STATUS_INVALID_PARAMETER"
    assert await peer.result(peer.send("status", {}))


async def test_error_row_unknown_method(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    error, _ = await peer.answer(peer.send("x" * 1000))
    assert error[:2] == [0xC000000D, "STATUS_INVALID_PARAMETER"]
    assert len(error[2]) < 100
