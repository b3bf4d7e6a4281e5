"""The trio client where it cannot be used: under asyncio, in another thread, in a forked child, without its block."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client import blocking
from tests.clients import uses
from tests.clients.fake_daemon import interrupt
from tests.clients.trio_harness import serving

WAYS_OUT = ("lpt_client.blocking", "asyncio.to_thread", "start_guest_run", "trio.run")
STATE = {"goes_on": "False", "grant": "None", "is_connected": "False", "lease_warning": "None", "revoked": "None"}
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
# Python 3.12 and later warn of forks beside threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


async def outcome(use: Callable[[], Any]) -> str:
    """What a use comes to, as `uses.outcome` has it."""
    try:
        value = use()
        if isinstance(value, Coroutine):
            value = await value
        elif hasattr(value, "__aenter__"):
            async with value:
                pass
    except Exception as exc:
        return type(exc).__name__
    return repr(value)


async def outcome_text(use: Callable[[], Any]) -> str:
    """The error's text."""
    value = use()
    with pytest.raises(RuntimeError) as caught:
        await (value.__aenter__() if hasattr(value, "__aenter__") else value)
    return str(caught.value)


def outcome_at_once(use: Callable[[], Any]) -> str:
    """The same, where there is no loop: a use that waits fails."""
    try:
        outcome(use).send(None)
    except StopIteration as done:
        return str(done.value)
    return "it waits"


# No loop of trio's


def _open(url: str = "lpt://127.0.0.1:1/LPT1") -> Any:
    return lpt_client.open_port(url)


async def _enter() -> None:
    async with _open():
        pass


def test_under_asyncio_the_ways_out_are_told() -> None:
    with pytest.raises(RuntimeError, match="this is a task of asyncio") as caught:
        asyncio.run(_enter())
    assert all(way in str(caught.value) for way in WAYS_OUT)


def test_without_a_loop_the_ways_out_are_told() -> None:
    with pytest.raises(RuntimeError, match="this is no task") as caught:
        _enter().send(None)
    assert all(way in str(caught.value) for way in WAYS_OUT)


def test_the_ways_out_are_ways_out() -> None:
    with pytest.raises(lpt_client.ConnectFailed):
        asyncio.run(asyncio.to_thread(blocking.open_port, "lpt://127.0.0.1:1/LPT1"))
    with pytest.raises(lpt_client.ConnectFailed):
        asyncio.run(asyncio.to_thread(trio.run, _enter))


def test_as_the_guest_of_another_loop() -> None:
    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        results: list[Any] = []

        def finish(result: Any) -> None:
            results.append(result)
            done.set()

        async def visit() -> None:
            async with serving() as server, server.open_port() as port:
                ports.append(port)
                host_may.set()
                await visit_may.wait()
                assert await port.ping() == (123, 456)

        ports: list[lpt_client.Port] = []
        visit_may = trio.Event()
        host_may = asyncio.Event()
        trio.lowlevel.start_guest_run(visit, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=finish)
        await asyncio.wait_for(host_may.wait(), 30)
        told = [await outcome_text(use) for use in uses.methods(ports[0]).values()]
        ports[0]._keeper.home._token.run_sync_soon(visit_may.set)
        await asyncio.wait_for(done.wait(), 30)
        results[0].unwrap()
        assert len(told) > 25
        assert all("this is a task of asyncio" in text for text in told), told

    asyncio.run(main())


# Not its block


@pytest.mark.parametrize("name", ["ping", "allocated", "url", "read_data"])
def test_before_the_block_there_is_no_port(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"has no '{name}' before it is entered: write `async with open_port"):
        getattr(_open(), name)


async def test_what_is_not_the_block() -> None:
    with pytest.raises(TypeError, match=r"for `async with`, not for `with`: write `async with open_port"), _open():
        pass
    with pytest.raises(TypeError, match="is not awaited: write `async with"):
        await _open()
    async with serving() as server, server.open_port() as port:
        for use in (port.allocated, port.connect_interrupt, partial(port.connect_port_check, print)):
            block: Any = use()
            with pytest.raises(TypeError, match="not for `with`"), block:
                pass
            with pytest.raises(TypeError, match="is not iterated over before it is entered"):
                async for _ in block:
                    pass
            async with block:
                pass
            with pytest.raises(TypeError, match="entered before"):
                async with block:
                    pass


def test_blocking_blocks_are_not_asynchronous() -> None:
    from tests.clients.blocking_harness import serving as serving_sockets

    async def enter(block: Any) -> None:
        async with block:
            pass

    with serving_sockets() as server, server.open_port() as port:
        for block in (port, port.allocated(), port.connect_interrupt()):
            with pytest.raises(TypeError, match="for `with`"):
                enter(block).send(None)
        wrong: Any = port.connect_interrupt()
        with pytest.raises(TypeError, match="is not iterated over before it is entered: write `with connect_interrupt"):
            list(wrong)
        with pytest.raises(AttributeError, match="has no 'received' before it is entered"):
            wrong.received  # noqa: B018 - the access is the test
        with wrong:
            pass
        with pytest.raises(TypeError, match="entered before"), wrong:
            pass
        assert port.ping() == (123, 456)


# After its block


@pytest.mark.parametrize("options", [{}, {"reconnect": True}])
async def test_everything_is_refused_after_the_block(options: dict[str, Any]) -> None:
    async with serving() as server:
        async with server.open_port(**options) as port:
            await port.allocate()
            async with port.connect_interrupt() as interrupts:
                pass
        outcomes = {name: await outcome(use) for name, use in uses.methods(port).items()}
        lost = outcomes.pop("wait_lost")
        assert lost.startswith("PortClosed(")
        assert len(outcomes) > 25
        assert set(outcomes.values()) == {"PortClosed"}, outcomes
        state = {name: uses.outcome(partial(getattr, port, name)) for name in uses.properties(port)}
        assert state == STATE | {"session": "PortClosed", "waiting": "0", "url": repr(port.url)}
        assert [event async for event in interrupts] == []


# Another thread


async def test_another_threads_loop_is_refused() -> None:
    async with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        names = list(server.connections[0].daemon.names)

        async def use_it() -> dict[str, str]:
            outcomes = {name: await outcome(use) for name, use in uses.methods(port).items()}
            return outcomes | {"iterate": await outcome(interrupts.__anext__)}

        outcomes = await trio.to_thread.run_sync(trio.run, use_it)
        assert set(outcomes.values()) == {"RuntimeError"}, outcomes
        with pytest.raises(RuntimeError, match=r"in another thread: call it from there .`trio.from_thread.run"):
            await trio.to_thread.run_sync(trio.run, port.ping)
        assert await trio.to_thread.run_sync(trio.from_thread.run, port.ping) == (123, 456)
        assert server.connections[0].daemon.names == [*names, "ping"]


# Forked children


@FORKS
async def test_everything_is_refused_in_a_child() -> None:
    from tests.clients.forking import in_child

    async with serving() as server, server.open_port() as port:
        await port.allocate()
        async with port.connect_interrupt() as interrupts:
            connection = server.connections[0]
            await connection.send(interrupt(0))
            await port.ping()
            names = list(connection.daemon.names)

            def use_it() -> dict[str, str]:
                outcomes = {name: outcome_at_once(use) for name, use in uses.methods(port).items()}
                state = {name: uses.outcome(partial(getattr, port, name)) for name in uses.properties(port)}
                return outcomes | state | {"iterate": outcome_at_once(interrupts.__anext__)}

            outcomes = in_child(use_it)
            assert outcomes.pop("wait_lost").startswith("OtherProcess(")
            state = {name: outcomes.pop(name) for name in (*STATE, "session", "waiting", "url")}
            assert state == STATE | {"session": "OtherProcess", "waiting": "0", "url": repr(port.url)}
            assert set(outcomes.values()) == {"OtherProcess"}, outcomes
            assert await port.ping() == (123, 456)
            assert connection.daemon.names == [*names, "ping"]
            assert (await interrupts.__anext__())[0] == 0
            assert port.grant is not None


@FORKS
async def test_a_thread_that_forks() -> None:
    from tests.clients.forking import in_child

    async with serving() as server, server.open_port() as port:

        def use_it() -> list[str]:
            return [outcome_at_once(port.ping), outcome_at_once(port.allocate)]

        assert await trio.to_thread.run_sync(in_child, use_it) == ["OtherProcess"] * 2
        assert await port.ping() == (123, 456)


@FORKS
async def test_a_child_that_goes_on_in_the_loop() -> None:
    """It leaves its blocks, and its trio.run, without a byte to the daemon."""
    import socket

    from lpt_client.trio_transport import SocketTransport

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs:
        transport = SocketTransport(ours)
        async with serving() as server, server.open_port() as port:
            link = port._keeper.link
            assert link is not None
            async with port.allocated():
                link._transport, memory = transport, link._transport
                child = os.fork()
                if child == 0:
                    try:
                        await trio.sleep(30)
                    except trio.Cancelled:  # the block has ended
                        os._exit(7 if isinstance(port._keeper._error(None), lpt_client.OtherProcess) else 8)
                    os._exit(9)
                status = await trio.to_thread.run_sync(lambda: os.waitpid(child, 0)[1])
                assert os.waitstatus_to_exitcode(status) == 7
                with pytest.raises(BlockingIOError):
                    theirs.recv(1)
                link._transport = memory
                assert await port.ping() == (123, 456)
        await transport.close()
