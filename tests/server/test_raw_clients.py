"""Clients whose MessagePack has no bin (raw: true in hello): everything that they are sent can be read by them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Origin
from tests.protocol.old_raw import OldDecoder, encode
from tests.server.fakes import INTERNAL, MEMORY, ROOT, Peer, enter, routine, simulated
from tests.server.resuming import graceful

LONG = "a reason that is longer than the 31 bytes that fit into the first byte of a raw"


class OldPeer(Peer):
    """A client that knows nothing but raw."""

    def __init__(self, daemon: Daemon, origin: Origin = MEMORY) -> None:
        super().__init__(daemon, origin=origin)
        self._decoder = OldDecoder()

    def send(self, method: str, *params: Any, msgid: int | None = None) -> int:
        msgid = next(self._msgids) if msgid is None else msgid
        self.stream.feed(encode([0, msgid, method, params]))
        return msgid

    def read(self, at_most: int | None = None) -> list[Any]:
        return self._decoder.feed(self.stream.take(at_most))

    async def say_hello(self, **keys: Any) -> Any:
        return await super().say_hello(raw=True, **keys)


async def come(daemon: Daemon, origin: Origin = MEMORY, **keys: Any) -> OldPeer:
    peer = OldPeer(daemon, origin)
    welcome = await peer.say_hello(**keys)
    assert b"raw" in welcome[b"features"]
    return peer


async def test_a_whole_conversation_in_raw(daemon: Daemon, autojump_clock: MockClock) -> None:
    """Buffers in both directions, long texts, maps, interrupts, the fence, an error, the end."""
    peer = await come(daemon, client="x" * 100)
    assert (await peer.result(peer.allocate(timeout_ms=5)))[0] == 0
    assert await peer.result(peer.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\xc3")) == [0, b""]
    assert await peer.result(peer.control(Ioctl.READ_PORT_UCHAR, b"\x00", 1)) == [1, b"\xc3"]
    assert await peer.result(peer.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x41")) == [0, b""]
    information, output = await peer.result(peer.connect_interrupt())
    assert (information, len(output)) == (40, 40)
    simulated(daemon).raise_interrupt()
    (interrupt,) = await peer.messages()
    assert interrupt[:2] == [2, b"interrupt"]
    assert (await peer.result(peer.disconnect_interrupt()))[0] == 8
    report = await peer.result(peer.send("status"))
    assert report[b"owner"][b"client"] == b"x" * 100
    error, result = await peer.answer(peer.control(Ioctl.WRITE_PORT_UCHAR, b"\x01\x80"))
    assert result is None
    assert error[1] == b"STATUS_INVALID_PARAMETER"
    assert len(error[2]) > 31
    other = await enter(daemon, client="y" * 100)
    late = await other.answer(other.allocate(timeout_ms=0))
    assert late[0][1] == "STATUS_IO_TIMEOUT"
    daemon.stop()
    messages = await peer.messages()
    assert messages[-1] == [2, b"closing", [b"the daemon is stopping"]]


@pytest.mark.parametrize("buffer", [b"\0\xc3\xa9", b"\0\xff", b"\0\x80\x80", b"\0\xed\xa0\x80", bytes(range(256))])
async def test_every_buffer_is_its_bytes(daemon: Daemon, autojump_clock: MockClock, buffer: bytes) -> None:
    """Also such as are UTF-8 by chance."""
    peer = await come(daemon)
    await peer.result(peer.allocate())
    await peer.result(peer.control(Ioctl.WRITE_PORT_UCHAR, buffer))
    assert simulated(daemon).read_data() == buffer[1]


async def test_without_having_said_so_what_is_not_certain_is_refused_and_the_conversation_goes_on(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = await enter(daemon)
    for buffer, is_taken in ((b"\x00", True), (b"\x00\x7f", True), (b"\x00\x80", False), (b"\x00\xc3\xa9", False)):
        peer.stream.feed(encode([0, 99, INTERNAL, [int(Ioctl.READ_PORT_UCHAR), buffer, 1]]))
        error, _ = await peer.answer(99)
        assert (error is None) == is_taken
        if error is not None:
            assert error[1] == "STATUS_INVALID_PARAMETER"
            assert "say raw: true in hello" in error[2]
    await peer.result(peer.send("ping"))


async def test_long_reasons_are_raw_too(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Notices, and the answers of requests that had to wait; what is refused of hello."""
    daemon = await graceful(nursery)
    owner, waiter, admin = await come(daemon), await come(daemon), await come(daemon, ROOT)
    await owner.result(owner.allocate())
    waiting = waiter.allocate()
    await admin.result(admin.send("revoke", {"reason": LONG}))
    assert [2, b"revoked", [f"administrator: {LONG}".encode()]] in await owner.messages()
    await waiter.result(waiting)
    timed_out = owner.allocate(timeout_ms=1000)
    await trio.sleep(2)
    error, _ = await owner.answer(timed_out)
    assert error[1] == b"STATUS_IO_TIMEOUT"
    stranger = OldPeer(daemon)
    error, _ = await stranger.answer(stranger.send("hello", {"protocol": 9, "raw": True}))
    assert error[1] == b"STATUS_NOT_SUPPORTED"


async def test_it_is_said_anew_on_each_connection(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The session goes on, and the client that comes back may have another library."""
    daemon = await graceful(nursery)
    peer = OldPeer(daemon)
    secret = (await peer.say_hello())[b"resume"].decode()
    await peer.result(peer.allocate())
    await peer.result(peer.control(Ioctl.PARALLEL_CONNECT_INTERRUPT, routine(5), 32))
    peer.stream.end()
    await wait_all_tasks_blocked()
    modern = Peer(daemon)
    welcome = await modern.say_hello(resume=secret)
    assert welcome["resumed"]["registrations"] == [routine(5)]
    assert "raw" not in welcome["features"]
    assert (await modern.result(modern.control(Ioctl.READ_PORT_UCHAR, b"\x00", 1)))[1] == b"\x00"
    modern.stream.end()
    await wait_all_tasks_blocked()
    again = OldPeer(daemon)
    answer = await again.say_hello(resume=welcome["resume"])
    assert answer[b"resumed"][b"registrations"] == [routine(5)]


async def test_an_answer_that_was_not_read_is_told_again_in_the_words_of_the_new_connection(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await graceful(nursery)
    for first, second in ((Peer, OldPeer), (OldPeer, Peer)):
        peer = first(daemon)
        welcome = await peer.say_hello()
        welcome = {str(key, "ascii") if isinstance(key, bytes) else key: value for key, value in welcome.items()}
        secret = welcome["resume"] if isinstance(welcome["resume"], str) else welcome["resume"].decode()
        await peer.result(peer.allocate())
        await peer.result(peer.connect_interrupt())
        fence = peer.disconnect_interrupt()
        await wait_all_tasks_blocked()
        peer.stream.break_(OSError("reset"))
        await wait_all_tasks_blocked()
        back = second(daemon)
        back.send("hello", {"protocol": 1, "resume": secret, "from": [welcome["stream"], 0], "raw": second is OldPeer})
        answers = {message[1]: message[2:] for message in await back.messages() if message[0] == 1}
        assert answers[fence] == [None, [8, bytes(8)]]
        await back.result(back.send("ping"))
        back.stream.feed(encode([2, "bye", []]))
        back.stream.end()
        await wait_all_tasks_blocked()
