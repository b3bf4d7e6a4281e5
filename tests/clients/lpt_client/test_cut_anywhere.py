"""The connection ends after any number of bytes from the daemon: nobody hangs, and the reason is told."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

import lpt_client
from lpt_client import blocking
from lpt_client.interrupt_stream import InterruptStream
from lpt_service.protocol.messages import Request
from lpt_service.protocol.structs import U64
from tests.clients import blocking_harness, trio_harness
from tests.clients.fake_daemon import GRANT, FakeDaemon, connected, interrupt, notice, sync

CONNECT, DISCONNECT = "PARALLEL_CONNECT_INTERRUPT", "PARALLEL_DISCONNECT_INTERRUPT"

_EVENTS = sync("connected", 0) + interrupt(0) + notice("waiters", 1) + interrupt(1)


def make_daemon(_number: int) -> FakeDaemon:
    daemon = FakeDaemon(session=1)
    daemon.answers["PARALLEL_CONNECT_INTERRUPT"] = connected(0)
    daemon.answers["PARALLEL_DISCONNECT_INTERRUPT"] = U64.pack(2)
    return daemon


class Keeping:
    """A daemon that keeps the session of the first connection, and what its client has not heard."""

    def __init__(self) -> None:
        self._first = FakeDaemon()

    def make(self, number: int) -> FakeDaemon:
        daemon = make_daemon(number)
        daemon.resume = f"{number:032x}"
        if number == 1:
            self._first = daemon
        else:

            def hello(request: Request) -> dict[str, Any]:
                if "resume" in request.params[0]:
                    daemon.resumed = self._resumed(request)
                return daemon.hello()

            daemon.answers["hello"] = hello
        return daemon

    def _is_heard(self) -> bool:
        return CONNECT in self._first.names

    def _is_owed(self, hello: Request) -> bool:
        """The disconnect was carried out, and who says where it is is told so again."""
        return DISCONNECT in self._first.names and "from" in hello.params[0]

    def _resumed(self, hello: Request) -> dict[str, Any]:
        names = self._first.names
        taken = names.count("PARALLEL_PORT_ALLOCATE") + names.count("TRY_ALLOCATE_PORT")
        is_connected = self._is_heard() and DISCONNECT not in names
        return {
            "grant": GRANT if taken > names.count("PARALLEL_PORT_FREE") else None,
            "position": None,
            "pending": [self._first.request(DISCONNECT).msgid] if self._is_owed(hello) else [],
            "registrations": [self._first.request(CONNECT).params[1]] if is_connected else [],
        }

    def rest(self, daemon: FakeDaemon) -> bytes:
        """What follows the answer to hello."""
        hello = daemon.request("hello")
        if daemon.resumed is None or not self._is_heard():
            return b""
        _, next_seq = hello.params[0].get("from", (0, 0))
        data = sync("resumed", next_seq) + b"".join(interrupt(seq) for seq in range(next_seq, 2))
        return data + (self._first.answer(DISCONNECT, U64.pack(2)) if self._is_owed(hello) else b"")


def check_account(interrupts: InterruptStream, *, is_kept: bool) -> None:
    """What was not heard is known to be lost, or not to be known."""
    if interrupts.first_seq is not None:
        heard = interrupts.received + interrupts.buffered + interrupts.lost
        assert heard == 2 or (interrupts.unknown_periods > 0 and not is_kept)


async def use_trio(port: lpt_client.Port, made: list[InterruptStream]) -> None:
    async with port.connect_interrupt() as interrupts:
        made.append(interrupts)
        async with port.allocated():
            await port.write_data(1)
            await port.pulse(1, width_us=10)
        assert await port.try_allocate() is not None
        await port.status()
        while interrupts.received < 2:
            await interrupts.__anext__()
    assert (interrupts.received, interrupts.lost) == (2, 0)


def use_blocking(port: blocking.Port, made: list[InterruptStream]) -> None:
    with port.connect_interrupt() as interrupts:
        made.append(interrupts)
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


async def play_trio(left: int, *, is_reconnecting: bool, is_kept: bool = False) -> int:
    """Returns how many bytes the daemon had to say."""
    kept, made = Keeping(), list[InterruptStream]()
    async with trio.open_nursery() as nursery:
        connections: list[CutConnection] = []

        async def open_stream(_url: object) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            client_end, server_end = trio.testing.memory_stream_pair()
            number = len(connections) + 1
            connection = CutConnection(server_end, kept.make(number) if is_kept else make_daemon(1))
            if number == 1:
                connection.left = left
            connections.append(connection)
            nursery.start_soon(connection.serve)
            nursery.start_soon(send_events, connection)
            if is_kept and number > 1:
                nursery.start_soon(send_rest, connection)
            return client_end

        async def send_rest(connection: CutConnection) -> None:
            await connection.seen("hello")
            await trio.testing.wait_all_tasks_blocked()
            await connection.send(kept.rest(connection.daemon))

        async def send_events(connection: CutConnection) -> None:
            await connection.seen("PARALLEL_CONNECT_INTERRUPT")
            await trio.testing.wait_all_tasks_blocked()
            await connection.send(_EVENTS)

        try:
            async with lpt_client.open_port(
                trio_harness.URL, open_stream=open_stream, reconnect=is_reconnecting
            ) as port:
                await use_trio(port, made)
        except (lpt_client.NotConnected, lpt_client.HelloRefused):
            assert left < 1 << 30
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:  # pragma: no cover
            pytest.fail(f"trio's own came through: {exc!r}")
        nursery.cancel_scope.cancel()
    for interrupts in made if is_reconnecting else ():
        check_account(interrupts, is_kept=is_kept)
    return connections[0].total


@pytest.mark.parametrize(("is_reconnecting", "is_kept"), [(False, False), (True, False), (True, True)])
async def test_trio(is_reconnecting: bool, is_kept: bool, autojump_clock: trio.testing.MockClock) -> None:
    total = await play_trio(1 << 30, is_reconnecting=is_reconnecting)
    assert total > 400
    for left in range(total):
        with trio.fail_after(1000):
            await play_trio(left, is_reconnecting=is_reconnecting, is_kept=is_kept)


class CutPeer(blocking_harness.Peer):
    """Ends after `left` bytes to the client."""

    left = 1 << 30
    total = 0

    def send(self, data: bytes) -> None:
        self.total += len(data)
        part, self.left = data[: self.left], max(0, self.left - len(data))
        if part:
            with suppress(OSError):  # the client may have gone already
                super().send(part)
        if not self.left:
            self.drop()


def play_blocking(left: int, *, is_kept: bool = False) -> int:
    peers: list[CutPeer] = []
    kept, made = Keeping(), list[InterruptStream]()

    def open_socket(_url: object, _deadline_s: float) -> socket.socket:
        number = len(peers) + 1
        peer = CutPeer(kept.make(number) if is_kept else make_daemon(1))
        if number == 1:
            peer.left = left
        peer.then[CONNECT] = lambda: peer.send(_EVENTS)
        if is_kept and number > 1:
            peer.then["hello"] = lambda: peer.send(kept.rest(peer.daemon))
        peers.append(peer)
        return peer.client

    try:
        with blocking.open_port(blocking_harness.URL, open_socket=open_socket, reconnect=is_kept) as port:
            use_blocking(port, made)
    except lpt_client.NotConnected:
        assert left < 1 << 30
    for peer in peers:
        peer.client.close()
        peer.finish()
    for interrupts in made if is_kept else ():
        check_account(interrupts, is_kept=True)
    return peers[0].total


@pytest.mark.parametrize("is_kept", [False, True])
def test_blocking(monkeypatch: pytest.MonkeyPatch, is_kept: bool) -> None:
    monkeypatch.setattr("lpt_client.backoff.FIRST_DELAY_S", 0.001)
    total = play_blocking(1 << 30)
    assert total > 400
    for left in range(0, total, 3):
        play_blocking(left, is_kept=is_kept)
