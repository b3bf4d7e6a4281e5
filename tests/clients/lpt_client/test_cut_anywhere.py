"""The connection ends after any number of bytes from the daemon: nobody hangs, and the reason is told."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client import blocking
from lpt_service.protocol.structs import U64
from tests.clients import blocking_harness, trio_harness
from tests.clients.fake_daemon import FakeDaemon, connected, interrupt, notice, sync

_EVENTS = sync("connected", 0) + interrupt(0) + notice("waiters", 1) + interrupt(1)


def make_daemon(_number: int) -> FakeDaemon:
    daemon = FakeDaemon()
    daemon.answers["PARALLEL_CONNECT_INTERRUPT"] = connected(0)
    daemon.answers["PARALLEL_DISCONNECT_INTERRUPT"] = U64.pack(2)
    return daemon


async def use_trio(port: lpt_client.Port) -> None:
    async with port.connect_interrupt() as interrupts:
        async with port.allocated():
            await port.write_data(1)
            await port.pulse(1, width_us=10)
        assert await port.try_allocate() is not None
        await port.status()
        while interrupts.received < 2:
            await interrupts.__anext__()
    assert (interrupts.received, interrupts.lost) == (2, 0)


def use_blocking(port: blocking.Port) -> None:
    with port.connect_interrupt() as interrupts:
        with port.allocated():
            port.write_data(1)
            port.pulse(1, width_us=10)
        assert port.try_allocate() is not None
        port.status()
        while interrupts.received < 2:
            assert interrupts.next(blocking_harness.BOUND_S) is not None
    assert (interrupts.received, interrupts.lost) == (2, 0)


class CutConnection(trio_harness.Connection):
    """Ends after `left` bytes to the client."""

    left = 1 << 30
    total = 0

    async def send(self, data: bytes) -> None:
        self.total += len(data)
        part, self.left = data[: self.left], max(0, self.left - len(data))
        if part:
            await super().send(part)
        if not self.left:
            await self.drop()


async def play_trio(left: int, is_reconnecting: bool) -> int:
    """Returns how many bytes the daemon had to say."""
    async with trio.open_nursery() as nursery:
        connections: list[CutConnection] = []

        async def open_stream(_url: object) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            client_end, server_end = trio.testing.memory_stream_pair()
            connection = CutConnection(server_end, make_daemon(1))
            if not connections:
                connection.left = left
            connections.append(connection)
            nursery.start_soon(connection.serve)
            nursery.start_soon(send_events, connection)
            return client_end

        async def send_events(connection: CutConnection) -> None:
            await connection.seen("PARALLEL_CONNECT_INTERRUPT")
            await trio.testing.wait_all_tasks_blocked()
            await connection.send(_EVENTS)

        try:
            async with lpt_client.open_port(
                trio_harness.URL, open_stream=open_stream, reconnect=is_reconnecting
            ) as port:
                await use_trio(port)
        except (lpt_client.NotConnected, lpt_client.HelloRefused):
            assert left < 1 << 30
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:  # pragma: no cover
            pytest.fail(f"trio's own came through: {exc!r}")
        nursery.cancel_scope.cancel()
    return connections[0].total


@pytest.mark.parametrize("is_reconnecting", [False, True])
async def test_trio(is_reconnecting: bool, autojump_clock: trio.testing.MockClock) -> None:
    total = await play_trio(1 << 30, is_reconnecting)
    assert total > 400
    for left in range(total):
        with trio.fail_after(1000):
            await play_trio(left, is_reconnecting)


class CutPeer(blocking_harness.Peer):
    """Ends after `left` bytes to the client."""

    left = 1 << 30
    total = 0

    def send(self, data: bytes) -> None:
        self.total += len(data)
        part, self.left = data[: self.left], max(0, self.left - len(data))
        if part:
            super().send(part)
        if not self.left:
            self.drop()


def play_blocking(left: int) -> int:
    peers: list[CutPeer] = []

    def open_socket(_url: object, _deadline_s: float) -> socket.socket:
        peer = CutPeer(make_daemon(1))
        peer.left = left
        peer.then["PARALLEL_CONNECT_INTERRUPT"] = lambda: peer.send(_EVENTS)
        peers.append(peer)
        return peer.client

    try:
        with blocking.open_port(blocking_harness.URL, open_socket=open_socket) as port:
            use_blocking(port)
    except lpt_client.NotConnected:
        assert left < 1 << 30
    peers[0].client.close()
    peers[0].finish()
    return peers[0].total


def test_blocking() -> None:
    total = play_blocking(1 << 30)
    assert total > 400
    for left in range(0, total, 3):
        play_blocking(left)
