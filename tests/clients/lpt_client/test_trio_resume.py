"""The trio client when the connection breaks and its session goes on."""

# ruff: noqa: PT012, SIM117 - what is tested is how blocks end, and in which order

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client.events import Interrupt, LeaseWarning, Reconnected, Sync
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from lpt_client.resume import RESUME_WITHIN_S
from lpt_client.trio_link import MAX_UNSENT_BYTES
from lpt_service.protocol import messages
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification, Request
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from lpt_service.protocol.url import Url
from tests.clients.fake_daemon import GRANT, FakeDaemon, interrupt, keeping, mark, notice, sync
from tests.clients.trio_harness import URL, Connection, FakeServer, serving

Clock = trio.testing.MockClock
CONNECT, DISCONNECT = "PARALLEL_CONNECT_INTERRUPT", "PARALLEL_DISCONNECT_INTERRUPT"
ALLOCATE, FREE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE"


def event(seq: int) -> Interrupt:
    return Interrupt(seq, 1, 1000 + seq, 0xC0, 0x1C)


def structures(server: FakeServer, connection: int = 0) -> list[bytes]:
    """The registrations that a connection was asked for."""
    return [each.params[1] for each in server.connections[connection].daemon.seen if each.params[:1] == (0x160034,)]


def grant_of(port: lpt_client.Port) -> int | None:
    return port.grant


async def unanswered(connection: Connection, *names: str) -> None:
    """Wait for requests that get no answer."""
    for name in names:
        await connection.seen(name)


# Ownership


async def test_a_holder_notices_nothing(autojump_clock: Clock) -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        server.make_daemon = keeping(grant=GRANT)
        async with server.open_port(reconnect=True) as port:
            async with port.allocated():
                server.refuse = ConnectionRefusedError(111, "Connection refused")
                await server.connections[0].drop()
                await trio.testing.wait_all_tasks_blocked()
                assert not port.is_connected
                assert port.grant == GRANT
                written: list[int] = []

                async def write() -> None:
                    written.append(await port.write_data(1))

                nursery.start_soon(write)
                await trio.sleep(5)
                assert written == []
                server.refuse = None
                await port.wait_connected()
                assert port.session.resumed is not None
                await server.connections[1].seen("WRITE_PORT_UCHAR")
                assert await port.read_data() == 0x40
                assert written == [99]
            assert server.connections[1].daemon.names == ["hello", "WRITE_PORT_UCHAR", "READ_PORT_UCHAR", FREE]
            hello = server.connections[1].daemon.request("hello")
            assert hello.params[0]["resume"] == f"{1:032x}"
            assert "from" not in hello.params[0]
            assert (
                len(
                    {
                        each.msgid
                        for daemon in server.connections
                        for each in daemon.daemon.seen
                        if isinstance(each, Request)
                    }
                )
                == 6
            )


async def test_it_may_break_again_and_again(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        async with server.open_port(reconnect=True) as port, port.allocated():
            for number in range(1, 5):
                await server.connections[-1].drop()
                await (await server.connection(number + 1)).seen("hello")
                await port.wait_connected()
                assert server.connections[-1].daemon.request("hello").params[0]["resume"] == f"{number:032x}"
            assert await port.write_data(1) == 99


class HastyStream(trio.abc.Stream):
    """To a daemon that answers what is sent at once, and ends then."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon
        self._answers = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._answers += self._daemon.receive(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        answers, self._answers = self._answers, b""
        return answers

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_connections_that_end_as_soon_as_they_are_there(autojump_clock: Clock) -> None:
    """Many, for it is chance which of the tasks that begin with a connection is the first to run."""
    async with serving() as server:
        make_daemon = server.make_daemon = keeping()

        async def open_stream(url: Url) -> trio.abc.Stream:
            server.attempts += 1
            if 1 < server.attempts < 30:
                return HastyStream(make_daemon(server.attempts))
            return await server.open_stream(url)

        async with lpt_client.open_port(URL, open_stream=open_stream, reconnect=True) as port:
            await server.connections[0].drop()
            while len(server.connections) < 2:
                await trio.sleep(0.03)
                await trio.testing.wait_all_tasks_blocked()
                assert not port.is_connected or len(server.connections) == 2
            assert await port.write_data(1) == 99


async def test_what_may_have_run_is_told(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        async with server.open_port(reconnect=True) as port, port.allocated():
            server.connections[0].daemon.answers["WRITE_PORT_UCHAR"] = None
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    with pytest.raises(lpt_client.ConnectionLost, match="may have been carried out") as caught:
                        await port.write_data(1)
                    assert caught.value.may_have_run
                    assert caught.value.goes_on
                    assert "the session goes on" in str(caught.value)

                nursery.start_soon(write)
                await unanswered(server.connections[0], "WRITE_PORT_UCHAR")
                await server.connections[0].drop()
            assert port.grant == GRANT
            assert await port.write_data(1) == 99


async def test_pending_requests_are_answered_on_the_new_connection(autojump_clock: Clock) -> None:
    async with serving() as server:
        msgids: list[int] = []
        server.make_daemon = keeping(pending=lambda: msgids, position=2)
        async with server.open_port(reconnect=True) as port, trio.open_nursery() as nursery:
            first = server.connections[0]
            first.daemon.answers[ALLOCATE] = None
            places: list[int] = []
            done: list[object] = []

            async def own() -> None:
                async with port.allocated(on_queued=places.append) as grant:
                    done.append(grant)
                    await port.write_data(1)

            nursery.start_soon(own)
            await first.seen(ALLOCATE)
            msgids.append(first.daemon.request(ALLOCATE).msgid)
            await first.drop()
            second = await server.connection(2)
            await second.seen("hello")
            await port.wait_connected()
            assert await port.ping() == (123, 456)
            assert (places, done) == ([2], [])
            await second.send(notice("queued", msgids[0], 1))
            await trio.testing.wait_all_tasks_blocked()
            assert places == [2, 1]
            await second.send(notice("waiters", 0) + first.daemon.answer(ALLOCATE, U64.pack(9)))
            await second.seen(FREE)
            assert done == [9]


async def test_an_allocate_whose_answer_was_lost_is_granted(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=9)
        async with server.open_port(reconnect=True) as port:
            server.connections[0].daemon.answers[ALLOCATE] = None
            async with trio.open_nursery() as nursery:

                async def own() -> None:
                    async with port.allocated() as grant:
                        assert grant == port.grant == 9

                nursery.start_soon(own)
                await server.connections[0].seen(ALLOCATE)
                await server.connections[0].drop()
            assert server.connections[1].daemon.names == ["hello", FREE]


async def test_a_caller_that_gave_up_meanwhile_leaves_nothing_behind(autojump_clock: Clock) -> None:
    """Granted while it was away, and its caller is gone."""
    async with serving() as server:
        server.make_daemon = keeping(grant=9)
        async with server.open_port(reconnect=True) as port:
            server.connections[0].daemon.answers[ALLOCATE] = None
            server.refuse = ConnectionRefusedError(111, "Connection refused")
            with trio.move_on_after(1) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(port.allocate)
                    await server.connections[0].seen(ALLOCATE)
                    await server.connections[0].drop()
            assert scope.cancelled_caught
            assert trio.current_time() == 1, "nobody is held up"
            server.refuse = None
            await (await server.connection(2)).seen(FREE)
            await port.wait_connected()
            assert grant_of(port) is None


async def test_a_caller_that_gave_up_a_pending_request_has_it_cancelled(autojump_clock: Clock) -> None:
    async with serving() as server:
        msgids: list[int] = []
        server.make_daemon = keeping(pending=lambda: msgids)
        async with server.open_port(reconnect=True) as port:
            first = server.connections[0]
            first.daemon.answers[ALLOCATE] = None
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(port.allocate)
                    await first.seen(ALLOCATE)
                    msgids.append(first.daemon.request(ALLOCATE).msgid)
                    await first.drop()
                    scope.cancel()
            second = await server.connection(2)
            await second.seen("cancel")
            assert second.daemon.seen[-1] == Notification("cancel", (msgids[0],))
            await second.send(first.daemon.answer(ALLOCATE, U64.pack(9)))  # the cancel has lost the race
            await second.seen(FREE)
            assert port.grant is None


async def test_a_pending_request_is_withdrawn_on_the_new_connection(autojump_clock: Clock) -> None:
    async with serving() as server:
        msgids: list[int] = []
        server.make_daemon = keeping(pending=lambda: msgids)
        async with server.open_port(reconnect=True) as port:
            first = server.connections[0]
            first.daemon.answers[ALLOCATE] = None
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(port.allocate)
                    await first.seen(ALLOCATE)
                    msgids.append(first.daemon.request(ALLOCATE).msgid)
                    await first.drop()
                    second = await server.connection(2)
                    await port.wait_connected()
                    nursery.start_soon(withdraw, first, second, scope)
            assert second.daemon.names == ["hello", "cancel", FREE]
            assert port.grant is None


async def withdraw(first: Connection, second: Connection, scope: trio.CancelScope) -> None:
    with trio.CancelScope(shield=True):
        scope.cancel()
        await second.seen("cancel")
        await second.send(first.daemon.answer(ALLOCATE, U64.pack(9)))  # the cancel has lost the race


async def test_the_connection_breaks_while_a_request_is_being_withdrawn(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=9)
        async with server.open_port(reconnect=True) as port:
            first = server.connections[0]
            first.daemon.answers[ALLOCATE] = None
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(port.allocate)
                    await first.seen(ALLOCATE)
                    scope.cancel()
                    with trio.CancelScope(shield=True):
                        await first.seen("cancel")
                        await first.drop()
            assert trio.current_time() < 1, "nobody is held up"
            await (await server.connection(2)).seen(FREE)


@pytest.mark.parametrize(("grant", "names"), [(GRANT, ["hello", FREE]), (None, ["hello"])])
async def test_the_answer_to_a_free_is_lost(grant: int | None, names: list[str], autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=grant)
        async with server.open_port(reconnect=True) as port:
            server.connections[0].daemon.answers[FREE] = None
            async with trio.open_nursery() as nursery:

                async def drop() -> None:
                    await server.connections[0].seen(FREE)
                    await server.connections[0].drop()

                nursery.start_soon(drop)
                async with port.allocated():
                    pass
            assert server.connections[1].daemon.names == names
            assert port.grant is None


async def test_a_block_that_is_left_while_there_is_no_connection(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        async with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.ConnectionLost, match="connecting again"):
                async with port.allocated():
                    server.refuse = ConnectionRefusedError(111, "Connection refused")
                    await server.connections[0].drop()
                    await trio.testing.wait_all_tasks_blocked()
            assert trio.current_time() == CLEANUP_TIMEOUT_S
            server.refuse = None
            await (await server.connection(2)).seen(FREE)


async def test_a_port_that_was_taken_away_meanwhile(autojump_clock: Clock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = keeping()(number)
            if number == 2:
                daemon.answers["hello"] = None
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port, trio.open_nursery() as nursery:

            async def play() -> None:
                again = await server.connection(2)
                await again.seen("hello")
                answer = again.daemon.answer("hello", again.daemon.hello())
                await again.send(answer + notice("revoked", "lease: held for 60 s"))

            nursery.start_soon(play)
            with pytest.raises(lpt_client.Revoked, match="lease: held for 60 s"):
                async with port.allocated():
                    await server.connections[0].drop()
                    await trio.sleep_forever()
            assert FREE not in server.connections[1].daemon.names


async def test_a_port_that_is_not_owned_any_more_for_no_reason_given(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=None)
        async with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.Revoked, match="while the connection was broken"):
                async with port.allocated():
                    await server.connections[0].drop()
                    await trio.sleep_forever()


# The session does not go on


async def test_a_fresh_session_is_as_without_resume(autojump_clock: Clock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon(session=number)
            daemon.resume = f"{number:032x}"
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port:
            server.connections[0].daemon.answers["PULSE"] = None
            async with trio.open_nursery() as nursery:

                async def pulse() -> None:
                    with pytest.raises(lpt_client.ConnectionLost, match="may have been") as caught:
                        await port.pulse(1, width_us=10)
                    assert not caught.value.goes_on

                with pytest.raises(lpt_client.ConnectionLost, match="without giving a reason"):
                    async with port.allocated():
                        nursery.start_soon(pulse)
                        await server.connections[0].seen("PULSE")
                        await server.connections[0].drop()
                        await trio.sleep_forever()
            await port.wait_connected()
            assert grant_of(port) is None
            assert port.session.session == 2
            assert server.connections[1].daemon.names == ["hello"]


async def test_a_session_that_is_away_for_too_long_is_lost(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        async with server.open_port(reconnect=True) as port:
            server.refuse = ConnectionRefusedError(111, "Connection refused")
            with pytest.raises(lpt_client.ConnectionLost):
                async with port.allocated():
                    await server.connections[0].drop()
                    await trio.sleep_forever()
            assert trio.current_time() == RESUME_WITHIN_S
            with pytest.raises(lpt_client.ConnectionLost, match="connecting again"):
                await port.ping()
            server.refuse = None
            server.make_daemon = lambda number: FakeDaemon(session=number)
            again = await server.connection(2)
            await again.seen("hello")
            assert "resume" not in again.daemon.request("hello").params[0]


async def test_an_answer_that_comes_after_the_session_was_given_up(autojump_clock: Clock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = keeping(grant=GRANT)(number) if number < 3 else FakeDaemon(session=3)
            if number == 2:
                daemon.answers["hello"] = None
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True, connect_timeout_s=1000) as port:
            with pytest.raises(lpt_client.ConnectionLost):
                async with port.allocated():
                    await server.connections[0].drop()
                    await trio.sleep_forever()
            second = server.connections[1]
            await second.answer("hello", second.daemon.hello())
            await second.seen("bye")
            await second.until(lambda: second.is_closed)
            await port.wait_connected()
            assert port.session.session == 3


async def test_hello_is_refused_for_good(autojump_clock: Clock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = keeping()(number)
            if number == 2:
                daemon.answers["hello"] = RequestError(Status.STATUS_ACCESS_DENIED, "token")
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.ConnectionLost):
                async with port.allocated():
                    await server.connections[0].drop()
                    await trio.sleep_forever()
            with pytest.raises(lpt_client.HelloRefused):
                await port.ping()


@pytest.mark.parametrize("options", [{}, {"reconnect": True, "resume": False}])
async def test_without_resume_the_daemon_is_told_at_once_that_nobody_comes_back(
    options: dict[str, Any], autojump_clock: Clock
) -> None:
    async with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        async with server.open_port(**options) as port:
            await server.connections[0].seen("bye")
            assert server.connections[0].daemon.names == ["hello", "bye"]
            with pytest.raises(lpt_client.ConnectionLost):
                async with port.allocated():
                    await server.connections[0].drop()
                    await trio.sleep_forever()
            if options:
                again = await server.connection(2)
                await again.seen("hello")
                assert "resume" not in again.daemon.request("hello").params[0]


# Closing


@pytest.mark.parametrize("way", ["left", "raised", "cancelled"])
async def test_closing_in_order_says_bye(way: str, autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping()
        with trio.CancelScope() as scope:
            try:
                async with server.open_port(reconnect=True) as port:
                    await port.ping()
                    if way == "raised":
                        raise ZeroDivisionError
                    if way == "cancelled":
                        scope.cancel()
                        await trio.sleep_forever()
            except ZeroDivisionError:
                assert way == "raised"
        await server.connections[0].until(lambda: server.connections[0].is_closed)
        assert server.connections[0].daemon.names == ["hello", "ping", "bye"]


async def test_a_session_that_is_not_kept_needs_no_bye(autojump_clock: Clock) -> None:
    async with serving() as server:
        async with server.open_port(reconnect=True):
            pass
        await server.connections[0].until(lambda: server.connections[0].is_closed)
        assert server.connections[0].daemon.names == ["hello"]


# Interrupts


async def take(interrupts: lpt_client.Interrupts, number: int) -> list[Any]:
    return [await interrupts.__anext__() for _ in range(number)]


async def test_registrations_are_not_connected_anew(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        async with server.open_port(reconnect=True) as port:
            async with port.connect_interrupt() as one, port.connect_interrupt() as other:
                await server.connections[0].send(interrupt(0) + interrupt(1))
                assert await take(one, 2) == [event(0), event(1)]
                await server.connections[0].drop()
                again = await server.connection(2)
                await again.seen("hello")
                assert again.daemon.request("hello").params[0]["from"] == (77, 2)
                # From an entry that it has seen on, as if there had been no `from`.
                await again.send(sync("resumed", 1, 0) + interrupt(1) + interrupt(2))
                assert await take(one, 3) == [Reconnected(1, 77), Sync("resumed", 2, 0), event(2)]
                assert [type(each) for each in await take(other, 5)] == [
                    Interrupt,
                    Interrupt,
                    Reconnected,
                    Sync,
                    Interrupt,
                ]
                assert [(each.received, each.lost) for each in (one, other)] == [(3, 0)] * 2
                again.daemon.answers[DISCONNECT] = U64.pack(3)
            assert again.daemon.names == ["hello", DISCONNECT, DISCONNECT]


async def test_the_account_holds_where_something_was_lost(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].send(interrupt(0, 5))
            await take(interrupts, 1)
            await server.connections[0].drop()
            again = await server.connection(2)
            await again.seen("hello")
            await again.send(sync("resumed", 9, 4) + interrupt(9))
            assert (await take(interrupts, 3))[1:] == [Sync("resumed", 9, 4), event(9)]
            assert (interrupts.received, interrupts.lost, interrupts.next_seq) == (6, 4, 10)
            again.daemon.answers[DISCONNECT] = U64.pack(10)


async def test_a_daemon_that_was_restarted(autojump_clock: Clock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = keeping(registrations=lambda: structures(server), grant=GRANT)(number)
            daemon.stream = 76 + number
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            async with port.allocated():
                await server.connections[0].send(interrupt(0) + mark(messages.KIND_STOPPED, 1))
                await server.connections[0].drop("the daemon is stopping")
                again = await server.connection(2)
                await again.seen("hello")
                await again.send(sync("restarted", 0, None) + interrupt(0))
                assert (await take(interrupts, 5))[2:] == [Reconnected(1, 78), Sync("restarted", 0, None), event(0)]
                assert interrupts.unknown_periods == 1
                assert port.grant == GRANT
                await again.drop()
                third = await server.connection(3)
                await third.seen("hello")
                assert third.daemon.request("hello").params[0]["from"] == (78, 1)
                third.daemon.answers[DISCONNECT] = U64.pack(1)


async def test_a_registration_that_the_daemon_does_not_have_is_connected_again(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(registrations=[])
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].send(interrupt(0))
            await take(interrupts, 1)
            await server.connections[0].drop()
            again = await server.connection(2)
            await again.seen(CONNECT)
            assert again.daemon.request(CONNECT).params[3] == {"from": (77, 1)}
            await again.send(sync("resumed", 1, 0))
            assert await take(interrupts, 2) == [Reconnected(1, 77), Sync("resumed", 1, 0)]
            again.daemon.answers[DISCONNECT] = U64.pack(1)


async def test_a_connect_whose_answer_was_lost_is_undone(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        async with server.open_port(reconnect=True) as port:
            server.connections[0].daemon.answers[CONNECT] = None
            async with trio.open_nursery() as nursery:

                async def connect() -> None:
                    with pytest.raises(lpt_client.ConnectionLost):
                        async with port.connect_interrupt():
                            pass

                nursery.start_soon(connect)
                await server.connections[0].seen(CONNECT)
                await server.connections[0].drop()
            await server.connections[1].seen(DISCONNECT)


async def test_a_block_left_while_there_is_no_connection_is_disconnected_later(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        async with server.open_port(reconnect=True) as port:
            async with port.connect_interrupt():
                server.refuse = ConnectionRefusedError(111, "Connection refused")
                await server.connections[0].drop()
                await trio.testing.wait_all_tasks_blocked()
            assert trio.current_time() == CLEANUP_TIMEOUT_S
            server.refuse = None
            await (await server.connection(2)).seen(DISCONNECT)


@pytest.mark.parametrize("is_connected", [True, False])
async def test_the_answer_to_a_disconnect_is_lost(is_connected: bool, autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server) if is_connected else [])
        async with server.open_port(reconnect=True) as port:
            server.connections[0].daemon.answers[DISCONNECT] = None
            async with trio.open_nursery() as nursery:

                async def drop() -> None:
                    await server.connections[0].seen(DISCONNECT)
                    await server.connections[0].drop()

                nursery.start_soon(drop)
                async with port.connect_interrupt():
                    pass
            await port.wait_connected()
            assert server.connections[1].daemon.names == ["hello"] + [DISCONNECT] * is_connected


async def test_a_pause_costs_one_new_connection_and_no_more(autojump_clock: Clock) -> None:
    """The mark is told again, and the registrations stay."""
    async with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].send(mark(messages.KIND_STOPPED, 0))
            again = await server.connection(2)
            await again.seen("hello")
            await again.send(sync("resumed", 0, 0) + mark(messages.KIND_STOPPED, 0))
            await trio.sleep(100)
            assert len(server.connections) == 2
            await again.send(mark(messages.KIND_UNHEARD, 0, 2000) + interrupt(0))
            assert (await take(interrupts, 5))[4] == event(0)
            again.daemon.answers[DISCONNECT] = U64.pack(1)


async def test_a_pause_that_is_over_soon_costs_nothing(autojump_clock: Clock) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port, port.connect_interrupt():
        await server.connections[0].send(mark(messages.KIND_STOPPED, 0) + mark(messages.KIND_UNHEARD, 0, 2000))
        await trio.sleep(100)
        assert len(server.connections) == 1


# Leases, administration


async def test_a_lease_is_told_to_the_owner(autojump_clock: Clock) -> None:
    async with serving() as server, server.open_port() as port:
        told: list[LeaseWarning] = []
        with pytest.raises(lpt_client.Revoked, match="lease: idle for 300 s"):
            async with port.allocated(on_lease=told.append):
                await server.connections[0].send(notice("lease", "idle", 5000))
                await trio.testing.wait_all_tasks_blocked()
                assert told == [("idle", 5000)]
                assert port.lease_warning == LeaseWarning("idle", 5000)
                await server.connections[0].send(notice("revoked", "lease: idle for 300 s"))
                await trio.sleep_forever()
        async with port.allocated():
            assert port.lease_warning is None


async def test_administration(autojump_clock: Clock) -> None:
    calls: list[tuple[Callable[[lpt_client.Port], Any], str, dict[str, Any]]] = [
        (lambda port: port.revoke(), "revoke", {}),
        (lambda port: port.revoke("why"), "revoke", {"reason": "why"}),
        (lambda port: port.kick(7), "kick", {"session": 7}),
        (lambda port: port.kick(7, "why"), "kick", {"session": 7, "reason": "why"}),
        (lambda port: port.pause(), "pause", {}),
        (lambda port: port.pause("why"), "pause", {"reason": "why"}),
        (lambda port: port.resume_port(), "resume", {}),
        (lambda port: port.queue(), "queue", {}),
        (lambda port: port.queue(1001), "queue", {"first": 1001}),
    ]
    async with serving() as server, server.open_port() as port:
        daemon = server.connections[0].daemon
        for call, method, params in calls:
            assert await call(port) == daemon.answers[method]
            assert daemon.request(method).params == (params,)
        daemon.answers["pause"] = RequestError(Status.STATUS_ACCESS_DENIED, "role")
        with pytest.raises(lpt_client.AccessDenied):
            await port.pause()
        daemon.answers["PULSE"] = RequestError(Status.STATUS_DEVICE_NOT_READY, "port LPT1 is paused")
        with pytest.raises(lpt_client.PortPaused):
            await port.pulse(1, width_us=1)


async def test_waiting_for_an_allocate_is_bounded_while_there_is_no_connection(autojump_clock: Clock) -> None:
    async with serving() as server:
        server.make_daemon = keeping()
        async with server.open_port(reconnect=True) as port:
            server.refuse = ConnectionRefusedError(111, "Connection refused")
            await server.connections[0].drop()
            with pytest.raises(lpt_client.ConnectionLost):
                await port.allocate(1)
            assert trio.current_time() == 1 + ANSWER_MARGIN_S


@pytest.mark.parametrize("ask", [lpt_client.Port.waiters, lpt_client.Port.try_allocate, lpt_client.Port.status])
async def test_what_was_not_sent_when_the_connection_broke_is_asked_on_the_next(
    ask: Callable[[lpt_client.Port], Any], autojump_clock: Clock
) -> None:
    """Every call alike, those through a callback's structure, too; the blocking client does so."""
    async with serving() as server, trio.open_nursery() as nursery:
        server.make_daemon = keeping()
        async with server.open_port(reconnect=True) as port:
            await port.waiters()
            link = port._keeper.link
            assert link is not None
            link._unsent += bytes(MAX_UNSENT_BYTES + 1)  # the kernel takes nothing: who asks, waits
            nursery.start_soon(ask, port)
            await trio.testing.wait_all_tasks_blocked()
            await server.connections[0].drop()
            await (await server.connection(2)).until(lambda: len(server.connections[1].daemon.names) >= 2)
            await port.ping()
        assert server.connections[1].daemon.names[1] in ("QUERY_NUM_WAITERS", "TRY_ALLOCATE_PORT", "status")


async def test_who_asks_while_it_is_away_waits_in_the_queue_for_the_time_that_is_left(autojump_clock: Clock) -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        server.make_daemon = keeping()
        async with server.open_port(reconnect=True) as port:
            server.refuse = ConnectionRefusedError(111, "Connection refused")
            await server.connections[0].drop()
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(port.allocate, 20)
            await trio.sleep(8)
            server.refuse = None
            connection = await server.connection(2)
            await connection.seen(ALLOCATE)
            await port.ping()  # the answer to the allocate is here before
            assert 5000 < connection.daemon.request(ALLOCATE).params[3]["timeout_ms"] <= 12_000
