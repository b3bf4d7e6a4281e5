"""Interrupts under trio when the connection ends: told, or going on where they were."""

# ruff: noqa: PT012, SIM117 - what is tested is how blocks end, and in which order

from __future__ import annotations

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client.events import Event, Interrupt, Mark, Reconnected, Sync
from lpt_service.protocol import messages
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.fake_daemon import FakeDaemon, connected, interrupt, mark, notice, sync
from tests.clients.trio_harness import FakeServer, serving

# No time passes but what is waited for.
pytestmark = pytest.mark.usefixtures("autojump_clock")

CONNECT, DISCONNECT = "PARALLEL_CONNECT_INTERRUPT", "PARALLEL_DISCONNECT_INTERRUPT"


def event(seq: int, count: int = 1) -> Interrupt:
    return Interrupt(seq, count, 1000 + seq, 0xC0, 0x1C)


async def take(interrupts: lpt_client.Interrupts, number: int) -> list[Event]:
    return [await interrupts.__anext__() for _ in range(number)]


# The end of a connection, without reconnecting


async def test_iteration_ends_with_the_connection_after_what_had_come() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        await server.connections[0].send(interrupt(0))
        await server.connections[0].drop("stopping")
        await trio.testing.wait_all_tasks_blocked()
        assert await take(interrupts, 1) == [event(0)]
        for _ in range(2):
            with pytest.raises(lpt_client.ConnectionLost, match="stopping"):
                await take(interrupts, 1)


async def test_a_waiting_reader_is_told() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(lpt_client.ConnectionLost):
                    await take(interrupts, 1)

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await server.connections[0].drop()


async def test_a_block_with_a_function_ends_with_the_connection() -> None:
    async with serving() as server, server.open_port() as port:
        with pytest.raises(lpt_client.ConnectionLost, match="stopping"):
            async with port.connect_interrupt(lambda *_: None):
                await server.connections[0].drop("stopping")
                await trio.sleep_forever()


async def test_the_mark_stopped_is_the_last_of_a_registration() -> None:
    async with serving() as server, server.open_port() as port:
        async with port.connect_interrupt() as interrupts:
            await server.connections[0].send(mark(messages.KIND_STOPPED, 0))
            assert await take(interrupts, 1) == [Mark("stopped", 0, 1000, 0xC0, 0x1C)]
            with pytest.raises(lpt_client.PortStopped):
                await take(interrupts, 1)
        with pytest.raises(lpt_client.PortStopped):
            async with port.connect_interrupt(lambda *_: None):
                await server.connections[0].send(mark(messages.KIND_STOPPED, 0))
                await trio.sleep_forever()
        assert DISCONNECT not in server.connections[0].daemon.names


REMOVED = "port removed: the device was unplugged"


async def send_disconnected(server: FakeServer) -> None:
    """The daemon tells of the last registration of the first connection that it has ended."""
    structure = server.connections[0].daemon.request(CONNECT).params[1]
    await server.connections[0].send(notice("disconnected", structure, REMOVED))


async def test_a_deferred_check_whose_port_is_removed_ends_its_block() -> None:
    async with serving() as server, server.open_port() as port:
        async with port.connect_interrupt() as interrupts:
            with pytest.raises(lpt_client.PortStopped, match="port removed: the device was unplugged"):
                async with port.connect_port_check(lambda _: None):
                    await send_disconnected(server)
                    await trio.sleep_forever()
            assert not interrupts.is_over
            await server.connections[0].send(notice("disconnected", interrupts.structure, REMOVED) + interrupt(0))
            assert await take(interrupts, 1) == [event(0)], "the mark tells those that hear"
            server.connections[0].daemon.answers[DISCONNECT] = U64.pack(1)


async def test_a_deferred_check_whose_port_is_removed_is_connected_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port:
        async with port.connect_port_check(lambda _: None):
            await send_disconnected(server)
            await (await server.connection(2)).seen(CONNECT)


PAUSED = {"port": "LPT1", "state": "ready", "paused": ""}


RESUMED = {"paused": None, "registrations": [{"session": 9}, {"session": 1, "interrupt": True}]}


@pytest.mark.parametrize("status", [PAUSED, RESUMED], ids=["paused", "resumed already"])
@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_registration_outlives_a_pause(
    reconnect: bool, status: dict[str, object], autojump_clock: trio.testing.MockClock
) -> None:
    async with serving() as server, server.open_port(reconnect=reconnect) as port:
        async with port.connect_interrupt() as interrupts:
            connection = server.connections[0]
            connection.daemon.answers["status"] = status
            await connection.send(mark(messages.KIND_STOPPED, 0))
            await trio.sleep(100)
            assert await take(interrupts, 1) == [Mark("stopped", 0, 1000, 0xC0, 0x1C)]
            await connection.send(mark(messages.KIND_UNHEARD, 0, 2000) + interrupt(0))
            assert await take(interrupts, 2) == [Mark("unheard", 0, 2000, 0xC0, 0x1C), event(0)]
            connection.daemon.answers[DISCONNECT] = U64.pack(1)
        assert DISCONNECT in connection.daemon.names
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    "status",
    [PAUSED | {"state": "absent"}, RequestError(Status.STATUS_ACCESS_DENIED, ""), 7, None],
    ids=["removed", "refused", "no status", "no answer"],
)
async def test_a_paused_port_that_is_removed_ends_it(status: object) -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        connection = server.connections[0]
        connection.daemon.answers["status"] = PAUSED
        await connection.send(mark(messages.KIND_STOPPED, 0))
        await connection.seen("status")
        connection.daemon.answers["status"] = status
        await connection.send(mark(messages.KIND_STOPPED, 0, 2000))
        await connection.seen("status", 2)
        if status is None:
            await connection.drop("stopping")
        assert [type(each) for each in await take(interrupts, 2)] == [Mark, Mark]
        with pytest.raises(lpt_client.PortStopped, match="removed, or its daemon stops"):
            await take(interrupts, 1)


async def test_a_paused_port_whose_connection_breaks() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        connection = server.connections[0]
        connection.daemon.answers["status"] = PAUSED
        await connection.send(mark(messages.KIND_STOPPED, 0))
        await trio.testing.wait_all_tasks_blocked()
        await connection.drop()
        await take(interrupts, 1)
        with pytest.raises(lpt_client.ConnectionLost):
            await take(interrupts, 1)


# Reconnecting


async def test_the_loss_of_a_connection_can_be_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port:
        await server.connections[0].drop("restarting")
        assert "restarting; connecting again" in str(await port.wait_lost())
        assert not port.goes_on, "this daemon keeps no session"
        await port.wait_connected()
        assert port.session.session == 2
    assert isinstance(await port.wait_lost(), lpt_client.PortClosed)


async def test_interrupts_go_on_where_they_were(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port:
        async with port.connect_interrupt() as interrupts, port.connect_interrupt() as second:
            await server.connections[0].send(interrupt(0, 5))
            assert await take(interrupts, 1) == [event(0, 5)]
            await server.connections[0].drop("restarting")
            again = await server.connection(2)
            await again.seen(CONNECT, 2)
            requests = [each for each in again.daemon.seen if each.params[0] == 0x160034]
            assert requests[0].params[3] == {"from": (77, 5)}
            assert len(requests[1].params) == 3, "one place in the log a session"
            await again.send(sync("resumed", 7, 2) + interrupt(7))
            assert await take(interrupts, 3) == [Reconnected(2, 77), Sync("resumed", 7, 2), event(7)]
            assert await take(second, 4) == [event(0, 5), Reconnected(2, 77), Sync("resumed", 7, 2), event(7)]
            for each in (interrupts, second):
                assert (each.received, each.lost, each.unknown_periods) == (6, 2, 0)
            await port.wait_connected()
            assert await port.read_data() == 0x40
            assert port.session.session == 2
            again.daemon.answers[DISCONNECT] = U64.pack(8)


async def test_the_sync_may_come_together_with_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon(session=number)
            if number == 2:
                daemon.answers[CONNECT] = None
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].drop()
            again = await server.connection(2)
            await again.seen(CONNECT)
            await again.send(again.daemon.answer(CONNECT, connected(0)) + sync("resumed", 0, 0) + interrupt(0))
            assert await take(interrupts, 3) == [Reconnected(2, 77), Sync("resumed", 0, 0), event(0)]
            again.daemon.answers[DISCONNECT] = U64.pack(1)


async def test_a_daemon_that_was_restarted(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:
        server.make_daemon = lambda number: FakeDaemon(session=number, stream=76 + number)
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].send(interrupt(0, 9))
            await take(interrupts, 1)
            await server.connections[0].drop()
            again = await server.connection(2)
            await again.seen(CONNECT)
            assert again.daemon.request(CONNECT).params[3] == {"from": (77, 9)}
            await again.send(sync("restarted", 3, None) + interrupt(3))
            assert await take(interrupts, 3) == [Reconnected(2, 78), Sync("restarted", 3, None), event(3)]
            assert (interrupts.received, interrupts.lost, interrupts.unknown_periods) == (10, 0, 1)
            await again.drop()
            third = await server.connection(3)
            await third.seen(CONNECT)
            assert third.daemon.request(CONNECT).params[3] == {"from": (78, 4)}
            third.daemon.answers[DISCONNECT] = U64.pack(4)


async def test_attempts_go_on_with_growing_pauses(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port:
        server.refuse = ConnectionRefusedError(111, "Connection refused")
        await server.connections[0].drop("restarting")
        await trio.sleep(60)
        assert 12 <= server.attempts <= 30
        with pytest.raises(lpt_client.ConnectionLost, match="restarting; connecting again") as caught:
            await port.ping()
        assert not caught.value.may_have_run
        server.refuse = None
        await port.wait_connected()
        assert await port.ping() == (123, 456)


async def test_ownership_is_not_taken_again(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port:
        with pytest.raises(lpt_client.ConnectionLost):
            async with port.allocated():
                await server.connections[0].drop()
                await trio.sleep_forever()
        await port.wait_connected()
        assert port.grant is None
        assert server.connections[1].daemon.names == ["hello"]


async def test_a_block_that_shields_itself_does_not_free_what_a_later_session_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving() as server, server.open_port(reconnect=True) as port:
        with pytest.raises(lpt_client.ConnectionLost):
            async with port.allocated():
                with trio.CancelScope(shield=True):
                    await server.connections[0].drop()
                    await server.connection(2)
                    await port.wait_connected()
        assert "PARALLEL_PORT_FREE" not in server.connections[1].daemon.names


async def test_reconnecting_ends_when_hello_is_refused_for_good(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon()
            if number == 2:
                daemon.answers["hello"] = RequestError(Status.STATUS_INSUFFICIENT_RESOURCES, "full for now")
            if number == 3:
                daemon.answers["hello"] = RequestError(Status.STATUS_ACCESS_DENIED, "token")
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].drop()
            with pytest.raises(lpt_client.HelloRefused, match="token"):
                await take(interrupts, 1)
            with pytest.raises(lpt_client.HelloRefused):
                await port.ping()
            with pytest.raises(lpt_client.HelloRefused):
                await port.wait_connected()
            assert len(server.connections) == 3


async def test_a_registration_that_cannot_be_made_again_ends_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon(session=number)
            if number == 2:
                daemon.answers[CONNECT] = RequestError(Status.STATUS_UNSUCCESSFUL, "disabled")
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port:
            async with port.connect_interrupt() as interrupts:
                await server.connections[0].drop()
                with pytest.raises(lpt_client.Unsuccessful):
                    await take(interrupts, 1)
                await port.wait_connected()
                assert await port.read_data() == 0x40
            assert DISCONNECT not in server.connections[1].daemon.names


async def test_a_port_that_is_away_for_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """Unplugged: the mark, a session that goes on without the port, refusals, and then it is back."""
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon(session=number)
            if number in (2, 3):
                daemon.answers[CONNECT] = RequestError(Status.STATUS_DEVICE_NOT_CONNECTED, "not there")
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].send(mark(messages.KIND_STOPPED, 0))
            back = await server.connection(4)
            await back.seen(CONNECT)
            await back.send(sync("resumed", 0, 0) + mark(messages.KIND_UNHEARD, 0, 2000) + interrupt(0))
            assert await take(interrupts, 5) == [
                Mark("stopped", 0, 1000, 0xC0, 0x1C),
                Reconnected(4, 77),
                Sync("resumed", 0, 0),
                Mark("unheard", 0, 2000, 0xC0, 0x1C),
                event(0),
            ]
            assert interrupts.unknown_periods == 1
            back.daemon.answers[DISCONNECT] = U64.pack(1)


async def test_a_block_left_while_connecting_again(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon(session=number)
            if number == 2:
                daemon.answers[CONNECT] = None
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port:
            async with port.connect_interrupt():
                await server.connections[0].drop()
                again = await server.connection(2)
                await again.seen(CONNECT)
            await again.answer(CONNECT, connected())
            await again.seen(DISCONNECT)
            await port.wait_connected()


async def test_a_function_that_fails_at_a_reconnection_ends_the_port(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def fail(_event: object, _context: object) -> None:
        raise ZeroDivisionError

    async with serving() as server:
        with pytest.raises(ZeroDivisionError):
            async with server.open_port(reconnect=True) as port:
                async with port.connect_interrupt(lambda *_: None, on_other=fail):
                    await server.connections[0].drop()
                    await trio.sleep_forever()


@pytest.mark.parametrize("cut", ["answer", "before"])
async def test_the_next_connection_breaks_too(cut: str, autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:

        def make(number: int) -> FakeDaemon:
            daemon = FakeDaemon(session=number)
            if number == 2:
                daemon.answers[CONNECT] = None
            return daemon

        server.make_daemon = make
        async with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            await server.connections[0].send(interrupt(0))
            await server.connections[0].drop()
            second = await server.connection(2)
            await second.seen(CONNECT)
            if cut == "answer":
                await second.answer(CONNECT, connected(1))
            await second.drop()
            third = await server.connection(3)
            await third.seen(CONNECT)
            assert third.daemon.request(CONNECT).params[3] == {"from": (77, 1)}
            await third.send(sync("resumed", 1, 0) + interrupt(1))
            await take(interrupts, 4 if cut == "answer" else 3)
            await trio.testing.wait_all_tasks_blocked()
            assert interrupts.received + interrupts.buffered == 2
            third.daemon.answers[DISCONNECT] = U64.pack(2)
