"""The trio client, over streams in memory: calls, ownership, opening."""

# ruff: noqa: PT012 - what is tested is how blocks end, and in which order

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from lpt_client.trio_transport import StreamTransport
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.fake_daemon import GRANT, FakeDaemon, notice
from tests.clients.trio_harness import URL, serving

# No time passes but what is waited for.
pytestmark = pytest.mark.usefixtures("autojump_clock")

Port = lpt_client.Port
ALLOCATE, FREE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE"


def grant_of(port: Port) -> int | None:
    """Its grant, looked up anew (mypy takes an attribute for one that stays as it was)."""
    return port.grant


async def test_the_vocabulary() -> None:
    async with serving() as server, server.open_port() as port:
        assert port.session.session == 1
        assert str(port.url) == "lpt://daemon:5378/LPT1"
        assert port.is_connected
        assert await port.ping() == (123, 456)
        assert await port.status() == {"port": "LPT1"}
        assert (await port.port_info()).Context == 4711
        assert await port.waiters() == 2
        assert await port.try_allocate() == GRANT
        assert port.grant == GRANT
        await port.free()
        assert grant_of(port) is None
        assert await port.allocate() == GRANT
        assert [await port.read_data(), await port.read_status(), await port.read_control()] == [0x40, 0x41, 0x42]
        assert await port.read(2) == 0x42
        assert await port.write_data(0x55, grant=GRANT) == 99
        assert await port.write_control(0x0C) == 99
        assert await port.write(0, 1) == 99
        assert await port.frob_control(4, 4) == 0x0C
        assert await port.pulse(1, 0, width_us=10) == (1000, 3000)
        assert await port.ioctl(0x162040, b"\0", 1, internal=False) == (1, b"\x40")
        assert await port.ioctl(0x1600A0, timeout_ms=5) == (0, b"")
    daemon = server.connections[0].daemon
    (hello,) = daemon.request("hello").params
    assert hello == {"protocol": 1, "client": "test", "port": "LPT1"}
    assert daemon.names.count("GET_PARALLEL_PORT_INFO") == 2, "once asked for, once for the callbacks"


async def test_information_structures() -> None:
    async with serving() as server, server.open_port() as port:
        daemon = server.connections[0].daemon
        daemon.answers["GET_MORE_PARALLEL_PORT_INFO"] = bytes(32)
        daemon.answers["GET_PARALLEL_PNP_INFO"] = bytes(112)
        assert (await port.more_port_info()).InterruptVector == 0
        assert (await port.pnp_info()).PortNumber == 0


async def test_a_block_owns_the_port_and_frees_it() -> None:
    async with serving() as server, server.open_port() as port:
        async with port.allocated() as grant:
            assert grant == port.grant == GRANT
        assert grant_of(port) is None
        assert server.connections[0].daemon.names[-2:] == [ALLOCATE, FREE]


async def test_a_block_that_raises_frees_and_its_exception_comes_out_as_it_is() -> None:
    async with serving() as server:
        with pytest.raises(KeyError):
            async with server.open_port() as port, port.allocated():
                raise KeyError
        assert server.connections[0].daemon.names[-1] == FREE


async def test_a_block_that_freed_the_port_itself() -> None:
    async with serving() as server, server.open_port() as port:
        async with port.allocated():
            await port.free()
        assert server.connections[0].daemon.names.count(FREE) == 1


async def test_errors_carry_their_status() -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers["PULSE"] = RequestError(Status.STATUS_ACCESS_DENIED, "not yours")
        with pytest.raises(lpt_client.AccessDenied) as caught:
            await port.pulse(1, width_us=10)
        assert caught.value.status == Status.STATUS_ACCESS_DENIED
        assert await port.read_data() == 0x40, "the conversation goes on"


async def test_requests_are_pipelined_and_answers_find_their_callers() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers["READ_PORT_UCHAR"] = None
        values: dict[int, int] = {}

        async def read(offset: int) -> None:
            values[offset] = await port.read(offset)

        async with trio.open_nursery() as nursery:
            for offset in range(3):
                nursery.start_soon(read, offset)
            await connection.seen("READ_PORT_UCHAR", 3)
            requests = [each for each in connection.daemon.seen if not isinstance(each, Notification)][1:]
            for request in reversed(requests):
                connection.daemon.seen.append(request)
                await connection.answer("READ_PORT_UCHAR", bytes([request.params[1][0] + 0x10]))
        assert values == {0: 0x10, 1: 0x11, 2: 0x12}


async def test_places_in_the_queue_are_told_in_the_callers_task() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[ALLOCATE] = None
        places: list[int] = []
        task = trio.lowlevel.current_task()

        def on_queued(place: int) -> None:
            assert trio.lowlevel.current_task() is task
            places.append(place)

        async def play() -> None:
            await connection.seen(ALLOCATE)
            msgid = connection.daemon.request(ALLOCATE).msgid
            for place in (2, 1):
                await connection.send(notice("queued", msgid, place))
                await trio.testing.wait_all_tasks_blocked()
            await connection.send(notice("queued", 9999, 7))
            await connection.answer(ALLOCATE, U64.pack(GRANT))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            async with port.allocated(on_queued=on_queued):
                assert places == [2, 1]


async def test_what_on_queued_raises_ends_the_waiting() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[ALLOCATE] = None

        def on_queued(place: int) -> None:
            raise KeyError(place)

        async def play() -> None:
            await connection.seen(ALLOCATE)
            await connection.send(notice("queued", connection.daemon.request(ALLOCATE).msgid, 2))
            await connection.seen("cancel")
            await connection.answer(ALLOCATE, RequestError(Status.STATUS_CANCELLED))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            with pytest.raises(KeyError):
                await port.allocate(on_queued=on_queued)
        assert connection.daemon.names[-1] == "cancel"


async def test_waiters_are_told_to_the_owner() -> None:
    async with serving() as server, server.open_port() as port:
        told: list[int] = []
        async with port.allocated(on_waiters=told.append):
            await server.connections[0].send(notice("waiters", 3))
            await trio.testing.wait_all_tasks_blocked()
            assert (told, port.waiting) == ([3], 3)
        await server.connections[0].send(notice("waiters", 4))
        await port.ping()
        assert told == [3]


async def test_a_timeout_is_the_daemons(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[ALLOCATE] = RequestError(Status.STATUS_IO_TIMEOUT, "not begun within 1500 ms")
        with pytest.raises(lpt_client.TimedOut):
            await port.allocate(1.5)
        assert connection.daemon.request(ALLOCATE).params[3] == {"timeout_ms": 1500}


async def test_a_daemon_that_does_not_keep_its_timeout_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers[ALLOCATE] = None
        with pytest.raises(lpt_client.ConnectionLost) as caught:
            await port.allocate(1)
        assert trio.current_time() == 1 + ANSWER_MARGIN_S + CLEANUP_TIMEOUT_S
        assert "did not answer" in str(caught.value)
        assert not port.is_connected


# Opening


async def test_a_daemon_that_is_not_there() -> None:
    async with serving() as server:
        server.refuse = ConnectionRefusedError(111, "Connection refused")
        with pytest.raises(lpt_client.ConnectFailed, match="lpt://daemon:5378/LPT1: Connection refused"):
            async with server.open_port():
                pass


async def test_a_daemon_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:

        def silent(number: int) -> FakeDaemon:
            daemon = FakeDaemon()
            daemon.answers["hello"] = None
            return daemon

        server.make_daemon = silent
        with pytest.raises(lpt_client.ConnectFailed, match="no answer within 3 s"):
            async with server.open_port(connect_timeout_s=3):
                pass
        assert trio.current_time() == 3
        await server.connections[0].until(lambda: server.connections[0].is_closed)


async def test_a_hello_that_is_refused() -> None:
    async with serving() as server:

        def refusing(number: int) -> FakeDaemon:
            daemon = FakeDaemon()
            daemon.answers["hello"] = RequestError(Status.STATUS_NO_SUCH_DEVICE, "no such port")
            return daemon

        server.make_daemon = refusing
        with pytest.raises(lpt_client.HelloRefused) as caught:
            async with server.open_port(reconnect=True):
                pass
        assert caught.value.status == Status.STATUS_NO_SUCH_DEVICE


@pytest.mark.parametrize(
    ("answer", "text"),
    [(notice("closing", "too many sessions"), "too many sessions"), (b"HTTP/1.1 400", "no daemon of this protocol")],
)
async def test_somebody_else_answers_or_the_daemon_is_full(answer: bytes, text: str) -> None:
    async with serving() as server:

        def closing(number: int) -> FakeDaemon:
            daemon = FakeDaemon()
            daemon.answers["hello"] = None
            return daemon

        server.make_daemon = closing
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                connection = await server.connection(1)
                await connection.seen("hello")
                await connection.send(answer)
                await connection.drop()

            nursery.start_soon(play)
            with pytest.raises(lpt_client.ConnectFailed, match=text):
                async with server.open_port():
                    pass


async def test_an_address_that_is_none() -> None:
    with pytest.raises(lpt_client.UrlError):
        async with lpt_client.open_port("tcp://daemon"):
            pass


async def test_a_callback_that_raises_ends_the_block() -> None:
    async with serving() as server:

        def fail(count: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async with server.open_port() as port, port.allocated(on_waiters=fail):
                await server.connections[0].send(notice("waiters", 1))
                await port.pulse(1, width_us=10)
                await trio.sleep_forever()


async def test_many_requests_at_once_wait_for_room() -> None:
    """A connection that takes nothing: callers wait instead of filling memory, and all are ended with it."""
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers["READ_PORT_UCHAR"] = None
        block = trio.Event()

        async def stuck() -> None:
            await block.wait()

        stream: Any = connection._stream.receive_stream
        stream.receive_some_hook = stuck
        lost = 0

        async def call() -> None:
            nonlocal lost
            with pytest.raises(lpt_client.ConnectionLost):
                await port.ioctl(0x162040, bytes(60_000), 1)
            lost += 1

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            link: Any = port._keeper.link
            assert len(link._unsent) < 400_000
            block.set()
            await connection.drop()
        assert lost == 50


async def test_a_daemon_that_cannot_be_reached_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a call waits for an answer without end."""
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers[ALLOCATE] = None
        monkeypatch.setattr(StreamTransport, "is_unreachable", lambda transport: True)
        with pytest.raises(lpt_client.ConnectionLost, match="computer has not answered for 15 s"):
            await port.allocate()
        assert not port.is_connected


async def test_the_client_has_a_name_and_shows_its_token() -> None:
    async with serving() as server:
        async with lpt_client.open_port(URL, token="secret", open_stream=server.open_stream):
            pass
        (hello,) = server.connections[0].daemon.request("hello").params
        assert hello["token"] == "secret"
        assert hello["client"].endswith("]")
