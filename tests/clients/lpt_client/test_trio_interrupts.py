"""Interrupts under trio: iteration, routines, the fence, loss."""

# ruff: noqa: PT012, SIM117 - what is tested is how blocks end, and in which order

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client.events import Event, Interrupt, Mark, Sync
from lpt_service.protocol import messages
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.fake_daemon import connected, interrupt, mark, notice, sync
from tests.clients.trio_harness import serving

# No time passes but what is waited for.
pytestmark = pytest.mark.usefixtures("autojump_clock")

CONNECT, DISCONNECT = "PARALLEL_CONNECT_INTERRUPT", "PARALLEL_DISCONNECT_INTERRUPT"


def event(seq: int, count: int = 1) -> Interrupt:
    return Interrupt(seq, count, 1000 + seq, 0xC0, 0x1C)


async def take(interrupts: lpt_client.Interrupts, number: int) -> list[Event]:
    return [await interrupts.__anext__() for _ in range(number)]


async def test_iteration() -> None:
    async with serving() as server, server.open_port() as port:
        daemon = server.connections[0].daemon
        daemon.answers[CONNECT] = connected(5)
        daemon.answers[DISCONNECT] = U64.pack(8)
        async with port.connect_interrupt() as interrupts:
            await server.connections[0].send(
                sync("connected", 5) + interrupt(5, 2) + mark(messages.KIND_MASKED, 7) + interrupt(7)
            )
            assert await take(interrupts, 3) == [event(5, 2), Mark("masked", 7, 1000, 0xC0, 0x1C), event(7)]
            assert (interrupts.received, interrupts.lost, interrupts.unknown_periods) == (3, 0, 1)
            assert interrupts.first_seq == 5
        assert [each async for each in interrupts] == []
        assert daemon.names[-2:] == [CONNECT, DISCONNECT]
        assert daemon.request(CONNECT).params[1] == daemon.request(DISCONNECT).params[1]


async def test_events_right_behind_the_answer_are_heard() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[CONNECT] = None

        async def play() -> None:
            await connection.seen(CONNECT)
            answer = connection.daemon.answer(CONNECT, connected(5))
            await connection.send(interrupt(4) + answer + sync("connected", 5) + interrupt(5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            async with port.connect_interrupt() as interrupts:
                assert await take(interrupts, 1) == [event(5)]


async def test_a_function_is_called_for_each_event() -> None:
    heard: list[Any] = []
    async with (
        serving() as server,
        server.open_port() as port,
        port.connect_interrupt(
            lambda each, context: heard.append((each, context)),
            "rig",
            on_other=lambda each, context: heard.append((each, context)),
        ) as interrupts,
    ):
        await server.connections[0].send(interrupt(0, 3) + mark(messages.KIND_MASKED, 3) + sync("overrun", 9, 6))
        await port.ping()
        assert heard == [
            (event(0, 3), "rig"),
            (Mark("masked", 3, 1000, 0xC0, 0x1C), "rig"),
            (Sync("overrun", 9, 6), "rig"),
        ]
        assert (interrupts.received, interrupts.lost, interrupts.buffered) == (3, 6, 0)
        with pytest.raises(RuntimeError, match="isr"):
            await take(interrupts, 1)


async def test_what_a_function_raises_ends_the_port() -> None:
    def fail(_interrupt: Interrupt, _context: object) -> None:
        raise OSError(28, "No space left on device")

    async with serving() as server:
        with pytest.raises(OSError, match="No space left"):
            async with server.open_port() as port, port.connect_interrupt(fail):
                await server.connections[0].send(interrupt(0))
                await trio.sleep_forever()


async def test_deferred_port_checks() -> None:
    heard: list[str] = []
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        async with port.connect_interrupt(deferred=heard.append, context="both") as interrupts:
            async with port.connect_port_check(heard.append, "only"):
                structures = [each.params[1] for each in connection.daemon.seen if each.params[0] == 0x160034]
                tokens = [U64.unpack_from(each, 16)[0] for each in structures]
                assert U64.unpack_from(structures[1])[0] == 0, "hears no interrupts"
                for token in (*tokens, 99):
                    await connection.send(notice("port_check", token, 0))
                await connection.send(interrupt(0))
                await port.ping()
                assert heard == ["both", "only"]
                assert interrupts.buffered == 1


async def test_two_registrations_share_the_stream_and_count_for_themselves() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        async with port.connect_interrupt() as first:
            connection.daemon.answers[CONNECT] = connected(10)
            async with port.connect_interrupt() as second:
                await connection.send(interrupt(0, 10) + sync("overrun", 20, 10) + interrupt(20))
                await port.ping()
                assert (first.buffered, first.lost) == (11, 10)
                assert (second.buffered, second.lost) == (1, 10)
                assert await take(second, 2) == [Sync("overrun", 20, 10), event(20)]
                connection.daemon.answers[DISCONNECT] = U64.pack(21)


async def test_who_joins_while_the_port_is_masked_is_told() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt():
        await server.connections[0].send(mark(messages.KIND_MASKED, 0))
        heard: list[Event] = []
        async with port.connect_interrupt(lambda *_: None, on_other=lambda each, _: heard.append(each)):
            assert heard == [Mark("masked", 0, 1000, 0xC0, 0x1C)]


async def test_a_function_that_fails_as_it_joins_ends_the_port() -> None:
    def fail(_event: object, _context: object) -> None:
        raise ZeroDivisionError

    async with serving() as server:
        with pytest.raises(ZeroDivisionError):
            async with server.open_port() as port, port.connect_interrupt():
                await server.connections[0].send(mark(messages.KIND_MASKED, 0))
                async with port.connect_interrupt(lambda *_: None, on_other=fail):
                    await trio.sleep_forever()


async def test_leaving_waits_for_what_is_still_to_come() -> None:
    """The reply to a disconnect that is not the session's last may precede events before its end_seq."""
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[DISCONNECT] = U64.pack(2)
        async with port.connect_interrupt():
            async with trio.open_nursery() as nursery:

                async def play() -> None:
                    await connection.seen(DISCONNECT)
                    await trio.testing.wait_all_tasks_blocked()
                    await connection.send(interrupt(0, 2) + interrupt(2))

                nursery.start_soon(play)
                async with port.connect_interrupt() as second:
                    pass
            assert (second.buffered, second.next_seq) == (2, 2)
            assert [each async for each in second] == [event(0, 2)]
            connection.daemon.answers[DISCONNECT] = U64.pack(3)


async def test_leaving_a_daemon_that_does_not_send_the_rest(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers[DISCONNECT] = U64.pack(2)
        async with port.connect_interrupt() as interrupts:
            pass
        assert trio.current_time() == 5
        assert not port.is_connected
        assert [each async for each in interrupts] == []


async def test_a_refused_connect() -> None:
    async with serving() as server, server.open_port() as port:
        daemon = server.connections[0].daemon
        daemon.answers[CONNECT] = RequestError(Status.STATUS_UNSUCCESSFUL, "disabled; set enable_connect_interrupt")
        with pytest.raises(lpt_client.Unsuccessful, match="enable_connect_interrupt"):
            async with port.connect_interrupt():
                pass
        assert DISCONNECT not in daemon.names


async def test_a_connect_that_is_cancelled_is_undone() -> None:
    async with serving() as server, server.open_port() as port:
        connection = server.connections[0]
        connection.daemon.answers[CONNECT] = None

        async def play(scope: trio.CancelScope) -> None:
            await connection.seen(CONNECT)
            scope.cancel()
            await connection.seen("cancel")
            await connection.answer(CONNECT, connected())

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(play, scope)
                async with port.connect_interrupt():
                    pytest.fail("it was cancelled")
        assert connection.daemon.names[-2:] == ["cancel", DISCONNECT]
        assert list(port._keeper.registrations) == []


async def test_a_slow_program_loses_the_oldest_and_knows() -> None:
    async with serving() as server, server.open_port() as port:
        server.connections[0].daemon.answers[DISCONNECT] = U64.pack(10)
        async with port.connect_interrupt(max_buffered_events=3) as interrupts:
            await server.connections[0].send(b"".join(interrupt(seq) for seq in range(10)))
            await port.ping()
            assert await take(interrupts, 4) == [Sync("dropped", 7, 7), event(7), event(8), event(9)]
        assert (interrupts.received, interrupts.lost) == (3, 7)


async def test_answers_come_through_a_flood_that_nobody_takes() -> None:
    async with serving() as server, server.open_port() as port:
        flood = b"".join(interrupt(seq) for seq in range(50_000))
        server.connections[0].daemon.answers[DISCONNECT] = U64.pack(50_000)
        async with port.connect_interrupt(max_buffered_events=100) as interrupts:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.connections[0].send, flood)
                for _ in range(10):
                    assert await port.read_data() == 0x40
            await port.ping()
            assert (interrupts.buffered, interrupts.lost) == (100, 49_900)


async def test_one_task_reads() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, interrupts, 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await take(interrupts, 1)
            await server.connections[0].send(interrupt(0))


async def test_a_reader_lets_others_run() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        await server.connections[0].send(b"".join(interrupt(seq) for seq in range(1000)))
        await port.ping()
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await take(interrupts, 1000)
            nursery.cancel_scope.cancel()
        assert turns > 20
        server.connections[0].daemon.answers[DISCONNECT] = U64.pack(1000)
