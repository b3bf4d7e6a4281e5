"""A connection's bytes, on real sockets: tried first, waited for only when not ready."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lpt_service.protocol.tcp_info import TCP_OPTION_RTO_CEILING
from lpt_service.server import stream as module
from lpt_service.server.stream import RECEIVE_BYTES, UNSENT_LOW_WATER_BYTES, SocketStream, set_options
from tests.server.fakes import BOUND_S, until

Pair = tuple[SocketStream, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The daemon's end, set up, and the client's."""
    if request.param == "unix":
        here, there = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            there = socket.create_connection(listener.getsockname())
            here, _ = listener.accept()
    set_options(here, 15)
    there.settimeout(BOUND_S)
    yield SocketStream(here), there
    here.close()
    there.close()


async def fill(stream: SocketStream) -> int:
    """Send until the stream is full, and stays so; how many bytes it took."""
    total = 0
    while True:
        while sent := stream.try_send(b"x" * 65536):
            total += sent
        with trio.move_on_after(0.05) as waited:
            await stream.wait_writable()
        if waited.cancelled_caught:
            return total


# Receiving


async def test_receiving(pair: Pair) -> None:
    stream, client = pair
    assert stream.try_receive() is None
    client.sendall(b"hello")
    assert await stream.receive() == b"hello"
    assert stream.try_receive() is None
    client.sendall(b"x" * 100_000)
    received = 0
    while received < 100_000:
        data = await stream.receive()
        assert 0 < len(data) <= RECEIVE_BYTES
        received += len(data)
    client.close()
    assert await stream.receive() == b""
    assert stream.try_receive() == b""


async def test_a_reset_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    set_options(here, 15)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    stream = SocketStream(here)
    with pytest.raises(ConnectionResetError):
        await stream.receive()
    stream.close()


# Sending


async def test_sending_until_the_stream_is_full(pair: Pair) -> None:
    stream, client = pair
    total = await fill(stream)
    assert stream.unsent_bytes() > 0
    assert total < 8 * 1024 * 1024, "the kernel takes more than it should: replies would wait behind it"
    received = 0
    while received < total:
        received += len(client.recv(1 << 20))
    await stream.wait_writable()
    await until(lambda: stream.unsent_bytes() == 0)
    assert stream.try_send(b"more") == 4


async def test_unsent_bytes_shrink_as_the_client_reads(pair: Pair) -> None:
    stream, client = pair
    total = await fill(stream)
    before, received = stream.unsent_bytes(), 0
    while received < total - before // 2:
        received += len(client.recv(65536))
    await until(lambda: stream.unsent_bytes() < before)


# A peer that does not read


async def test_a_peer_that_does_not_read_can_be_reached(pair: Pair) -> None:
    """Its kernel says so: the window is closed, and every probe of it is answered. Nothing is asked of an idle one."""
    stream, client = pair
    stream.set_dead_peer_s(1)
    assert not stream.is_unreachable(0)
    await fill(stream)
    answered_at = time.monotonic() + (0 if client.family == socket.AF_UNIX else 1.5)  # at least two probes
    while time.monotonic() < answered_at:
        assert not stream.is_unreachable(1)
        await trio.sleep(0.05)
    assert client.recv(1) == b"x"


async def test_make_room_takes_the_last_frames(pair: Pair) -> None:
    stream, client = pair
    total = await fill(stream)
    stream.make_room()
    last = b"y" * 100_000
    assert stream.try_send(last) == len(last)
    received = 0
    while received < total + len(last):
        received += len(client.recv(1 << 20))


async def test_wait_until_taken_is_over_when_closing_loses_nothing(pair: Pair) -> None:
    stream, client = pair
    total = await fill(stream)
    is_unix = client.family == socket.AF_UNIX
    with trio.move_on_after(0 if not is_unix else BOUND_S) as waited:
        await stream.wait_until_taken()
    assert waited.cancelled_caught is not is_unix
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.wait_until_taken)
        await wait_all_tasks_blocked(0.01)
        if is_unix:
            stream.close()
        received = 0
        while received < total:
            received += len(client.recv(1 << 20))


# Closing


async def test_finish_delivers_the_last_frame_though_the_client_still_talks(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing with unread input would reset a TCP connection, and take the last frame with it."""
    stream, client = pair
    monkeypatch.setattr(module, "_DISCARD_S", BOUND_S)

    async def finish_and_close() -> None:
        await stream.finish()
        stream.close()

    client.sendall(b"unread" * 1000)
    stream.try_send(b"last frame")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish_and_close)
        await wait_all_tasks_blocked(0.01)
        client.sendall(b"and more")
        assert client.recv(100) == b"last frame"
        assert client.recv(100) == b""
        client.close()


async def test_finish_is_bounded_in_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, client = pair
    monkeypatch.setattr(module, "_DISCARD_S", 0.02)
    await stream.finish()
    assert client.recv(1) == b""


async def test_finish_is_bounded_in_bytes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, client = pair
    monkeypatch.setattr(module, "_DISCARD_BYTES", 1000)
    monkeypatch.setattr(module, "_DISCARD_S", 1000)
    client.sendall(b"x" * 2000)
    await stream.finish()


@pytest.mark.parametrize("wait", ["receive", "wait_writable"])
async def test_closing_wakes_who_waits(pair: Pair, wait: str) -> None:
    stream, _ = pair
    await fill(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, getattr(stream, wait))
        await wait_all_tasks_blocked(0.01)
        stream.close()
        stream.close()


async def expect_closed(wait: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await wait()


# Options


def tcp(sock: socket.socket, option: int) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, option)


def check_tcp_options(sock: socket.socket, *, idle_s: int, interval_s: int, pause_ms: int) -> None:
    assert tcp(sock, socket.TCP_NODELAY) == 1
    assert tcp(sock, socket.TCP_NOTSENT_LOWAT) == 64 * 1024
    assert tcp(sock, socket.TCP_USER_TIMEOUT) == 0, "it would end who does not read"
    with suppress(OSError):  # a kernel before Linux 6.15
        assert abs(tcp(sock, TCP_OPTION_RTO_CEILING) - pause_ms) < 10  # it counts in ticks
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert tcp(sock, socket.TCP_KEEPIDLE) == idle_s
    assert tcp(sock, socket.TCP_KEEPINTVL) == interval_s
    assert tcp(sock, socket.TCP_KEEPCNT) == 5
    assert sock.getblocking() is False


@pytest.mark.parametrize(
    ("dead_peer_s", "idle_s", "interval_s", "pause_ms"),
    [
        (15, 5, 2, 5000),
        (30, 10, 4, 10_000),
        (16, 6, 2, 5333),
        (7.5, 2, 1, 2500),
        (3, 1, 1, 1000),
        (1, 1, 1, 1000),
        (3600, 1200, 480, 120_000),
    ],
)
def test_options_of_an_accepted_tcp_socket(dead_peer_s: float, idle_s: int, interval_s: int, pause_ms: int) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as sock,
    ):
        set_options(sock, dead_peer_s)
        check_tcp_options(sock, idle_s=idle_s, interval_s=interval_s, pause_ms=pause_ms)


@pytest.mark.parametrize("dead_peer_s", [1, 2, 3, 4, 5, 7, 10, 15, 16, 20, 30, 61, 600, 3600])
def test_keep_alive_asks_an_idle_peer_often_enough(dead_peer_s: int) -> None:
    """Twice before it counts as gone; and the kernel itself does not give up before that."""
    with socket.socket() as sock:
        set_options(sock, dead_peer_s)
        idle_s, interval_s = tcp(sock, socket.TCP_KEEPIDLE), tcp(sock, socket.TCP_KEEPINTVL)
        probes = tcp(sock, socket.TCP_KEEPCNT)
    assert idle_s + interval_s <= max(dead_peer_s, 2)
    assert idle_s + probes * interval_s >= dead_peer_s


def test_options_of_a_socket_accepted_from_an_inherited_listener() -> None:
    """Such a listener comes as a descriptor, and nothing has been set on it."""
    with socket.create_server(("127.0.0.1", 0)) as original:
        inherited = socket.socket(fileno=original.detach())
    with inherited, socket.create_connection(inherited.getsockname()), inherited.accept()[0] as sock:
        set_options(sock, 15)
        check_tcp_options(sock, idle_s=5, interval_s=2, pause_ms=5000)


def test_options_of_a_unix_socket() -> None:
    here, there = socket.socketpair()
    with here, there:
        set_options(here, 15)
        # The kernel doubles what is asked for, for its own bookkeeping.
        assert here.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * UNSENT_LOW_WATER_BYTES
        assert here.getblocking() is False
