"""Sockets of a client: options, time-outs, words for errors."""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client import blocking, blocking_transport, sockets
from lpt_client.trio_transport import SocketTransport
from lpt_service.protocol.url import Url
from tests.clients.fake_daemon import FakeDaemon, notice
from tests.protocol.test_tcp_info import tcp_info


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP listener whose daemon answers one session after the other."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=_serve, args=(sock,), daemon=True)
        thread.start()
        yield sock
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(60)


def _serve(sock: socket.socket) -> None:
    while True:
        try:
            connection, _ = sock.accept()
        except OSError:
            return
        with connection:
            daemon = FakeDaemon()
            while data := connection.recv(65536):
                connection.sendall(daemon.receive(data))


def url_of(sock: socket.socket) -> str:
    return f"lpt://127.0.0.1:{sock.getsockname()[1]}/LPT1"


def check_options(sock: socket.socket, *, user_timeout_s: int = sockets.DEAD_PEER_S) -> None:
    def option(name: str) -> int:
        return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

    assert option("TCP_NODELAY")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if sys.platform == "linux":
        assert option("TCP_USER_TIMEOUT") == user_timeout_s * 1000
        noticed_s = option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
        assert noticed_s <= sockets.DEAD_PEER_S


def test_options_of_the_blocking_client(listener: socket.socket) -> None:
    with blocking.open_port(url_of(listener)) as port:
        assert port.ping() == (123, 456)
        transport = port._keeper.link._transport
        assert isinstance(transport, blocking_transport.SocketTransport)
        check_options(transport._sock)


async def test_options_of_the_trio_client(listener: socket.socket) -> None:
    async with lpt_client.open_port(url_of(listener)) as port:
        assert await port.ping() == (123, 456)
        assert port._keeper.link is not None
        transport = port._keeper.link._transport
        assert isinstance(transport, SocketTransport)
        check_options(transport._sock, user_timeout_s=0)  # it would end a daemon that waits for this program to read
        assert not transport.is_unreachable()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell")
async def test_a_daemon_that_does_not_read_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "DEAD_PEER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    sockets.set_options(plain, is_watched=True)
    transport = SocketTransport(plain)
    while transport.try_send(b"x" * 65536):
        pass
    for _ in range(30):
        assert not transport.is_unreachable()
        await trio.sleep(0.05)
    assert peer.recv(1) == b"x"
    peer.close()
    await transport.close()


def test_a_daemon_is_unreachable_when_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering(socket.socket):
        def getsockopt(self, *args: Any) -> Any:
            return tcp_info(retransmits=2, probes=0, since_data_s=since_s, since_ack_s=since_s)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(socket, "TCP_INFO", 11, raising=False)
    with Answering() as sock:
        since_s = sockets.DEAD_PEER_S - 1
        assert not sockets.is_unreachable(sock)
        since_s += 1
        assert sockets.is_unreachable(sock)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
async def test_unix_sockets() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as sock:
        path = os.path.join(folder, "lptd.sock")
        sock.bind(path)
        sock.listen()
        thread = threading.Thread(target=_serve, args=(sock,), daemon=True)
        thread.start()
        async with lpt_client.open_port(f"lpt+unix://{path}") as port:
            assert await port.read_data() == 0x40

        def use_blocking() -> None:
            with blocking.open_port(f"lpt+unix://{path}#LPT1") as port:
                assert port.read_data() == 0x40

        await trio.to_thread.run_sync(use_blocking)
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(60)
        with pytest.raises(lpt_client.ConnectFailed, match=r"is the daemon running|refused"):
            async with lpt_client.open_port(f"lpt+unix://{path}x"):
                pass


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
async def test_the_last_words_of_a_daemon_are_heard_when_sending_fails() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as sock:
        path = os.path.join(folder, "lptd.sock")
        sock.bind(path)
        sock.listen()

        def close_after_hello() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.sendall(FakeDaemon().receive(connection.recv(65536)) + notice("closing", "good bye"))

        thread = threading.Thread(target=close_after_hello, daemon=True)
        thread.start()
        async with lpt_client.open_port(f"lpt+unix://{path}") as port:
            thread.join(60)  # the port's tasks have not had a turn since
            with pytest.raises(lpt_client.ConnectionLost, match="good bye"):
                await port.ping()


async def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(lpt_client.ConnectFailed, match="refused"):
            async with lpt_client.open_port(url_of(sock)):
                pass


def test_the_deadline_is_for_all_addresses_together() -> None:
    with pytest.raises(lpt_client.ConnectFailed, match="timed out"):
        sockets.connect_socket(Url.parse("lpt://127.0.0.1:1/LPT1"), time.monotonic() - 1)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "timed out"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
        (OSError("odd"), "odd"),
        (trio.BrokenResourceError(), "BrokenResourceError"),
    ],
)
def test_words_for_errors(error: BaseException, text: str) -> None:
    assert sockets.why(error) == text


def test_the_name_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/experiment.py", "x"])
    assert sockets.default_client_name() == f"experiment.py[{os.getpid()}]"
    monkeypatch.setattr(sys, "argv", ["/lib/site-packages/rig/__main__.py"])
    assert sockets.default_client_name() == f"rig[{os.getpid()}]"
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert sockets.default_client_name() == f"python[{os.getpid()}]"
    monkeypatch.setattr(sys, "argv", [])
    assert sockets.default_client_name() == f"python[{os.getpid()}]"


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
async def test_a_host_that_cannot_be_one(host: str) -> None:
    with pytest.raises(lpt_client.ConnectFailed, match=f"'{host}' cannot be a host's name") as caught:
        blocking.open_port(f"lpt://{host}")
    assert isinstance(caught.value.__cause__, UnicodeError)
    with pytest.raises(lpt_client.ConnectFailed, match=f"'{host}' cannot be a host's name"):
        async with lpt_client.open_port(f"lpts://{host}"):
            pass


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
async def test_both_clients_say_alike_why_nobody_answers() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for url, reason in {
            url_of(nobody): "Connection refused",
            "lpt+unix:///nowhere/s": r"No such file or directory \(there is no such socket; is the daemon running\?\)",
            "lpt+unix:///": "Connection refused",
        }.items():
            with pytest.raises(lpt_client.ConnectFailed, match=f": {reason}$"):
                blocking.open_port(url)
            with pytest.raises(lpt_client.ConnectFailed, match=f": {reason}$"):
                async with lpt_client.open_port(url):
                    pass
