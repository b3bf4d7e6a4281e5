"""The trio client, over streams in memory: cancellation, and the end of a connection."""

# ruff: noqa: PT012 - what is tested is how blocks end, and in which order

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client.operations import CLEANUP_TIMEOUT_S
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.fake_daemon import GRANT, notice
from tests.clients.trio_harness import serving

# No time passes but what is waited for.
pytestmark = pytest.mark.usefixtures("autojump_clock")

Port = lpt_client.Port
ALLOCATE, FREE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE"


def grant_of(port: Port) -> int | None:
    """Its grant, looked up anew (mypy takes an attribute for one that stays as it was)."""
    return port.grant


# Cancellation


async def test_a_cancelled_request_is_withdrawn() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers["PULSE"] = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: port.pulse(1, width_us=10))
            await connection.seen("PULSE")
            nursery.cancel_scope.cancel()
        await connection.seen("cancel")
        assert connection.daemon.seen[-1] == Notification("cancel", (connection.daemon.request("PULSE").msgid,))
        await connection.answer("PULSE", RequestError(Status.STATUS_CANCELLED))
        assert await port.read_data() == 0x40, "the late answer is for nobody"


async def test_a_call_that_is_cancelled_already_sends_nothing() -> None:
    async with serving() as server, server.open_port() as port:
        with trio.CancelScope() as scope:
            scope.cancel()
            await port.pulse(1, width_us=10)
        assert scope.cancelled_caught
        await port.ping()
        assert "PULSE" not in server.connections[0].daemon.names


async def test_a_cancelled_allocate_that_was_withdrawn_in_time() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[ALLOCATE] = None

        async def play(scope: trio.CancelScope) -> None:
            await connection.seen(ALLOCATE)
            scope.cancel()
            await connection.seen("cancel")
            await connection.answer(ALLOCATE, RequestError(Status.STATUS_CANCELLED))

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(play, scope)
                await port.allocate()
        assert scope.cancelled_caught
        assert grant_of(port) is None
        assert connection.daemon.names[-2:] == [ALLOCATE, "cancel"]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (ALLOCATE, lambda port: port.allocate()),
        ("TRY_ALLOCATE_PORT", lambda port: port.try_allocate()),
    ],
)
async def test_a_cancel_that_loses_the_race_frees_the_port(
    name: str, call: Callable[[Port], Awaitable[object]]
) -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        granted = connection.daemon.answers[name]
        connection.daemon.answers[name] = None

        async def play(scope: trio.CancelScope) -> None:
            await connection.seen(name)
            scope.cancel()
            await connection.seen("cancel")
            await connection.answer(name, granted)

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(play, scope)
                await call(port)
        assert scope.cancelled_caught
        assert grant_of(port) is None
        assert connection.daemon.names[-2:] == ["cancel", FREE]
        assert await port.allocate() == GRANT if name != ALLOCATE else True


async def test_a_daemon_that_does_not_answer_a_cancel_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers[ALLOCATE] = None
        with trio.move_on_after(1) as scope:
            await port.allocate()
        assert scope.cancelled_caught
        assert trio.current_time() == 1 + CLEANUP_TIMEOUT_S
        with pytest.raises(lpt_client.ConnectionLost, match="cancelling of PARALLEL_PORT_ALLOCATE"):
            await port.ping()


async def test_a_cancelled_block_frees_the_port() -> None:
    async with serving() as server, server.open_port() as port:
        with trio.CancelScope() as scope:
            async with port.allocated():
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert server.connections[0].daemon.names[-1] == FREE


async def test_a_free_that_is_not_answered_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers[FREE] = None
        with pytest.raises(lpt_client.ConnectionLost):
            async with port.allocated():
                pass
        assert trio.current_time() == CLEANUP_TIMEOUT_S
        assert server.connections[0].is_closed or not port.is_connected


# The end of a connection


async def test_a_lost_connection_ends_every_call() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        for name in ("PULSE", ALLOCATE, "ping", "READ_PORT_UCHAR", "PARALLEL_CONNECT_INTERRUPT"):
            connection.daemon.answers[name] = None
        lost: list[lpt_client.ConnectionLost] = []

        async def lose(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(lpt_client.ConnectionLost) as caught:
                await call()
            lost.append(caught.value)

        async def connect() -> None:
            async with port.connect_interrupt():
                pass

        async with trio.open_nursery() as nursery:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: port.pulse(1, width_us=10),
                port.allocate,
                port.ping,
                port.read_data,
                connect,
            ]
            for call in calls:
                nursery.start_soon(lose, call)
            await connection.until(lambda: len(connection.daemon.names) == 1 + len(calls))
            await connection.drop("the daemon stops")
        assert all("the daemon closed the connection: the daemon stops" in str(each) for each in lost)
        assert all(each.may_have_run for each in lost)
        assert {each.request for each in lost} == {
            "PULSE",
            ALLOCATE,
            "ping",
            "READ_PORT_UCHAR",
            "PARALLEL_CONNECT_INTERRUPT",
        }
        with pytest.raises(lpt_client.ConnectionLost) as caught:
            await port.ping()
        assert not caught.value.may_have_run
        with pytest.raises(lpt_client.ConnectionLost):
            await port.wait_connected()
        with pytest.raises(lpt_client.ConnectionLost):
            _ = port.session
        assert not port.is_connected


async def test_a_holder_is_told_at_once_that_the_connection_is_lost() -> None:
    async with serving() as server, server.open_port() as port:
        with pytest.raises(lpt_client.ConnectionLost, match="the daemon stops"):
            async with port.allocated():
                await server.connections[0].drop("the daemon stops")
                await trio.sleep_forever()
        assert grant_of(port) is None


async def test_a_holder_that_does_not_wait_is_told_on_leaving() -> None:
    async with serving() as server, server.open_port() as port:
        with pytest.raises(lpt_client.ConnectionLost):
            async with port.allocated():
                await server.connections[0].drop()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()


async def test_the_connection_is_lost_together_with_the_grant() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[ALLOCATE] = None

        async def play() -> None:
            await connection.seen(ALLOCATE)
            await connection.send(connection.daemon.answer(ALLOCATE, U64.pack(7)) + notice("revoked", "lease"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            with pytest.raises(lpt_client.Revoked, match="lease"):
                async with port.allocated():
                    await trio.sleep_forever()


async def test_a_port_that_is_taken_away() -> None:
    async with serving() as server, server.open_port() as port:
        with pytest.raises(lpt_client.Revoked) as caught:
            async with port.allocated():
                await server.connections[0].send(notice("revoked", "held for too long"))
                await trio.sleep_forever()
        assert caught.value.reason == port.revoked == "held for too long"
        server.connections[0].daemon.answers["WRITE_PORT_UCHAR"] = RequestError(Status.STATUS_ACCESS_DENIED, "owner")
        with pytest.raises(lpt_client.Revoked):
            await port.write_data(1)
        assert FREE not in server.connections[0].daemon.names
        async with port.allocated():
            assert port.revoked is None


async def test_a_port_that_is_taken_away_while_it_is_freed() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[FREE] = None

        async def play() -> None:
            await connection.seen(FREE)
            refused = connection.daemon.answer(FREE, RequestError(Status.STATUS_INVALID_DEVICE_STATE))
            await connection.send(notice("revoked", "lease") + refused)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            with pytest.raises(lpt_client.Revoked):
                async with port.allocated():
                    pass


async def test_cancelled_by_a_daemon_that_stops() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[ALLOCATE] = None

        async def play() -> None:
            await connection.seen(ALLOCATE)
            await connection.answer(ALLOCATE, RequestError(Status.STATUS_CANCELLED, "the daemon is stopping"))
            await connection.drop("the daemon is stopping")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            with pytest.raises(lpt_client.RequestCancelled, match="the daemon is stopping"):
                await port.allocate()
        with pytest.raises(lpt_client.ConnectionLost, match="the daemon is stopping"):
            await port.ping()


async def test_a_daemon_that_breaks_the_protocol_is_left() -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers["ping"] = None
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                await server.connections[0].seen("ping")
                await server.connections[0].send(b"\xc1")

            nursery.start_soon(play)
            with pytest.raises(lpt_client.ConnectionLost, match="broke the protocol") as caught:
                await port.ping()
        assert isinstance(caught.value.__cause__, lpt_client.ConversationError)
        await server.connections[0].until(lambda: server.connections[0].is_closed)


async def test_an_answer_of_another_shape_ends_the_conversation() -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers["ping"] = "pong"
        with pytest.raises(lpt_client.ConversationError):
            await port.ping()
        with pytest.raises(lpt_client.ConnectionLost):
            await port.ping()


async def test_after_its_block_a_port_is_closed() -> None:
    async with serving() as server:
        async with server.open_port() as port:
            pass
        with pytest.raises(lpt_client.PortClosed):
            await port.ping()
        with pytest.raises(lpt_client.PortClosed):
            await port.wait_connected()
        await server.connections[0].until(lambda: server.connections[0].is_closed)


async def test_leaving_the_block_ends_calls_of_other_tasks() -> None:
    async with serving() as server, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(lpt_client.NotConnected):
                await port.pulse(1, width_us=10)

        async with server.open_port() as port:
            server.connections[0].daemon.answers["PULSE"] = None
            nursery.start_soon(wait)
            await server.connections[0].seen("PULSE")
