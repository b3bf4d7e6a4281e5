"""A fake daemon behind streams in memory, for the trio client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import trio
import trio.testing

import lpt_client
from lpt_service.protocol.url import Url
from tests.clients.fake_daemon import FakeDaemon, MakeDaemon, notice

URL = "lpt://daemon/LPT1"
_BOUND_S = 1000.0  # mostly by a clock that jumps


class Connection:
    """One connection that the fake server has taken."""

    def __init__(self, stream: trio.StapledStream[Any, Any], daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.is_closed = False
        self._stream = stream
        self._lock = trio.Lock()
        self._changed = trio.Event()

    async def serve(self) -> None:
        """Answer until the client closes."""
        while True:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                break
            answers = self.daemon.receive(bytes(data))
            self._changed.set()
            self._changed = trio.Event()
            if answers:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # dropped just then
                    await self.send(answers)
        self.is_closed = True
        self._changed.set()
        self._changed = trio.Event()

    async def send(self, data: bytes) -> None:
        """Bytes to the client."""
        async with self._lock:
            await self._stream.send_all(data)

    async def answer(self, name: str, answer: Any) -> None:
        """Answer the last request of this name."""
        await self.send(self.daemon.answer(name, answer))

    async def drop(self, reason: str | None = None) -> None:
        """Close the connection, after a `closing` if there is a reason."""
        if reason is not None:
            await self.send(notice("closing", reason))
        await trio.aclose_forcefully(self._stream)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so; looked at whenever the client has sent something."""
        with trio.fail_after(_BOUND_S):
            while not is_so():
                await self._changed.wait()

    async def seen(self, name: str, times: int = 1) -> None:
        """Wait until the client has sent so many of these."""
        await self.until(lambda: self.daemon.names.count(name) >= times)


class FakeServer:
    """Gives clients their streams; `connections` lists them. `refuse` is raised instead, where set."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.connections: list[Connection] = []
        self.refuse: BaseException | None = None
        self.attempts = 0
        self.make_daemon: MakeDaemon = lambda number: FakeDaemon(session=number)
        self._nursery = nursery
        self._connected = trio.Event()

    async def open_stream(self, url: Url) -> trio.abc.Stream:
        """For open_port."""
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        if self.refuse is not None:
            raise self.refuse
        client_end, server_end = trio.testing.memory_stream_pair()
        connection = Connection(server_end, self.make_daemon(len(self.connections) + 1))
        self.connections.append(connection)
        self._nursery.start_soon(connection.serve)
        self._connected.set()
        self._connected = trio.Event()
        return client_end

    async def connection(self, number: int) -> Connection:
        """Wait for the connection of this number; the first is 1."""
        with trio.fail_after(_BOUND_S):
            while len(self.connections) < number:
                await self._connected.wait()
        return self.connections[number - 1]

    def open_port(self, **options: Any) -> AbstractAsyncContextManager[lpt_client.Port]:
        """A port of this daemon."""
        return lpt_client.open_port(URL, client="test", open_stream=self.open_stream, **options)


@asynccontextmanager
async def serving() -> AsyncIterator[FakeServer]:
    """A fake server for the length of the block."""
    async with trio.open_nursery() as nursery:
        yield FakeServer(nursery)
        nursery.cancel_scope.cancel()
