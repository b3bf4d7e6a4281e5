"""TLS in the clients: records in pieces, several in one receive, time-outs, the end. What goes wrong: tests/e2e."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client import blocking, blocking_transport
from lpt_client.sockets import TlsFailed, TlsOptions
from lpt_client.tls import TlsPipe, client_context, explain
from lpt_client.trio_transport import TlsTransport
from tests.clients import uses
from tests.clients.fake_daemon import FakeDaemon, interrupt, sync

BOUND_S = 60.0


class TlsServer:
    """A fake daemon behind TLS, one connection after the other; `then` is called with what each request brought.

    Attributes:
        chunk_bytes: how much of what it encrypts goes into one segment.
    """

    def __init__(self, certificates: Path) -> None:
        self.daemon = FakeDaemon()
        self.chunk_bytes = 1 << 20
        self.failure: BaseException | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.url = f"lpts://localhost:{self._listener.getsockname()[1]}/LPT1"
        self._sock: socket.socket | None = None
        self._lock = threading.RLock()  # one thread at a time in OpenSSL
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._sock, _ = self._listener.accept()
            self._sock.settimeout(BOUND_S)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._step(self._tls.do_handshake):
                self._incoming.write(self._sock.recv(65536))
            while True:
                with self._lock:
                    self._step(self._answer)  # hello may have come with the last of the handshake
                data = self._sock.recv(65536)
                if not data:
                    break
                self._incoming.write(data)
        except (OSError, ssl.SSLError) as exc:
            self.failure = exc

    def _answer(self) -> None:
        while data := self._tls.read(65536):
            answers = self.daemon.receive(data)
            if answers:
                self._tls.write(answers)

    def _step(self, do: Callable[[], object]) -> bool:
        try:
            do()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._push()
        return True

    def _push(self) -> None:
        assert self._sock is not None
        data = self._outgoing.read()
        for at in range(0, len(data), self.chunk_bytes):
            self._sock.sendall(data[at : at + self.chunk_bytes])

    def send(self, *records: bytes) -> None:
        """Each in a record of its own, all in one piece."""
        with self._lock:
            for each in records:
                self._tls.write(each)
            self._push()

    def send_raw(self, data: bytes) -> None:
        assert self._sock is not None
        self._sock.sendall(data)

    def encrypt(self, data: bytes) -> bytes:
        with self._lock:
            self._tls.write(data)
            return self._outgoing.read()

    def drop(self) -> None:
        assert self._sock is not None
        self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        if self._sock is not None:
            self._thread.join(BOUND_S)
            self._sock.close()


@pytest.fixture
def server(certificates: Path) -> Iterator[TlsServer]:
    server = TlsServer(certificates)
    yield server
    server.close()


@pytest.fixture
def options(certificates: Path) -> TlsOptions:
    return TlsOptions(certificates / "ca.pem")


# Blocking


def test_calls_whose_records_come_in_many_segments(server: TlsServer, options: TlsOptions) -> None:
    server.chunk_bytes = 29
    with blocking.open_port(server.url, tls=options) as port, port.allocated():
        assert port.read_status() == 0x41
        assert port.ping() == (123, 456)
    assert server.failure is None


def test_a_poll_that_finds_nothing_ends_in_time(server: TlsServer, options: TlsOptions) -> None:
    with blocking.open_port(server.url, tls=options) as port:
        began_s = time.monotonic()
        assert not port.poll(0.05)
        assert not port.poll(0)
        assert time.monotonic() - began_s > 0.04


def test_half_a_record_does_not_hold_a_poll_up(server: TlsServer, options: TlsOptions) -> None:
    with blocking.open_port(server.url, tls=options) as port, port.connect_interrupt() as interrupts:
        record = server.encrypt(sync("connected", 0) + interrupt(0))
        server.send_raw(record[:20])
        assert interrupts.next(0.1) is None  # a wait for the rest of it would end in ConnectionLost
        server.send_raw(record[20:])
        assert isinstance(interrupts.next(BOUND_S), lpt_client.Interrupt)


def test_of_several_records_in_one_segment_none_waits_for_the_next(server: TlsServer, options: TlsOptions) -> None:
    """What OpenSSL has already decrypted would make no descriptor readable."""
    with blocking.open_port(server.url, tls=options) as port, port.connect_interrupt() as interrupts:
        server.send(sync("connected", 0), *(interrupt(seq) for seq in range(50)))
        heard = [interrupts.next(BOUND_S) for _ in range(50)]
        assert [event.seq for event in heard if isinstance(event, lpt_client.Interrupt)] == list(range(50))


@pytest.mark.parametrize("has_poll", [True, False])
def test_a_daemon_that_does_not_answer(
    server: TlsServer, options: TlsOptions, has_poll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpt_client.waits.HAS_POLL", has_poll)
    with blocking.open_port(server.url, tls=options, reply_timeout_s=0.2) as port:
        assert not port.poll(0.01)
        server.daemon.answers["ping"] = None
        began_s = time.monotonic()
        with pytest.raises(lpt_client.ConnectionLost, match="the daemon did not answer ping in time"):
            port.ping()
        assert time.monotonic() - began_s > 0.1


def test_an_answer_that_comes_after_much_else(server: TlsServer, options: TlsOptions) -> None:
    with blocking.open_port(server.url, tls=options) as port, port.connect_interrupt() as interrupts:
        flood = sync("connected", 0) + b"".join(interrupt(seq) for seq in range(5000))
        server.daemon.answers["ping"] = None

        def send() -> None:
            while "ping" not in server.daemon.names:
                time.sleep(0.001)
            server.send(flood, server.daemon.answer("ping", [1, 2]))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert port.ping() == (1, 2)
        sender.join()
        assert sum(isinstance(interrupts.next(0), lpt_client.Interrupt) for _ in range(5000)) == 5000


def test_the_daemon_goes_without_goodbye(server: TlsServer, options: TlsOptions) -> None:
    with blocking.open_port(server.url, tls=options) as port:
        server.drop()
        with pytest.raises(lpt_client.ConnectionLost, match=r"closed the connection without giving a reason|broke"):
            port.poll(BOUND_S)


def test_bytes_that_nobody_can_have_encrypted(server: TlsServer, options: TlsOptions) -> None:
    with blocking.open_port(server.url, tls=options) as port:
        server.send_raw(bytes.fromhex("1703030020") + b"x" * 32)
        with pytest.raises(lpt_client.ConnectionLost, match="the connection broke: TLS failed: "):
            port.poll(BOUND_S)


def test_a_server_that_never_answers_the_handshake(options: TlsOptions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"lpts://localhost:{listener.getsockname()[1]}/LPT1"
        address = listener.getsockname()
        with pytest.raises(lpt_client.ConnectFailed, match="the TLS handshake failed: timed out"):
            blocking.open_port(
                url,
                tls=options,
                connect_timeout_s=0.2,
                open_socket=lambda url, deadline_s: socket.create_connection(address),  # it may use up all the time
            )


def test_a_server_that_hangs_up(options: TlsOptions) -> None:
    here, there = socket.socketpair()
    there.close()
    with pytest.raises(lpt_client.ConnectFailed, match="lpts://localhost:5378/LPT1: "):
        blocking.open_port("lpts://localhost/LPT1", tls=options, open_socket=lambda url, deadline_s: here)
    assert here.fileno() == -1


def test_closing_says_goodbye(certificates: Path) -> None:
    here, there = socket.socketpair()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    heard: list[bytes] = []

    def serve() -> None:
        with server_side.wrap_socket(there, server_side=True, suppress_ragged_eofs=False) as tls:
            heard.append(tls.recv(10))
            heard.append(tls.recv(10))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    pipe = TlsPipe(client_context(TlsOptions(certificates / "ca.pem")), "localhost")
    transport = blocking_transport.TlsTransport(blocking_transport.SocketTransport(here), pipe)
    deadline_s = time.monotonic() + BOUND_S
    while not transport.shake_hands(deadline_s):
        transport.receive_keys(deadline_s)
    transport.send(b"hello", deadline_s)
    transport.close()
    transport.close()
    thread.join(BOUND_S)
    assert heard == [b"hello", b""]


# Trio


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_says_no_goodbye(server: TlsServer, options: TlsOptions) -> None:
    """It would end its parent's connection; so would a record in between."""
    from tests.clients.forking import in_child

    with blocking.open_port(server.url, tls=options) as port:
        assert in_child(lambda: [uses.outcome(port.ping), uses.outcome(port.close)]) == ["OtherProcess", "None"]
        assert port.ping() == (123, 456)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_says_no_goodbye_under_trio(server: TlsServer, options: TlsOptions) -> None:
    from tests.clients.forking import in_child

    async with lpt_client.open_port(server.url, tls=options) as port:
        link = port._keeper.link
        assert link is not None

        def close() -> str | None:
            try:
                link._transport.close().send(None)
            except StopIteration:
                return uses.outcome(lambda: port.session)
            return None

        assert in_child(close) == "OtherProcess"
        assert await port.ping() == (123, 456)


async def test_calls_under_trio_whose_records_come_in_many_segments(server: TlsServer, options: TlsOptions) -> None:
    server.chunk_bytes = 29
    async with lpt_client.open_port(server.url, tls=options) as port, port.allocated():
        assert await port.read_status() == 0x41
        assert await port.ping() == (123, 456)


async def test_a_stream_of_ones_own_gets_tls_too(server: TlsServer, options: TlsOptions) -> None:
    async def open_stream(url: Any) -> trio.abc.Stream:
        return await trio.open_tcp_stream("127.0.0.1", url.tcp_port)

    async with lpt_client.open_port(server.url, tls=options, open_stream=open_stream) as port:
        assert await port.ping() == (123, 456)


async def test_a_server_that_never_answers_the_handshake_under_trio(options: TlsOptions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"lpts://localhost:{listener.getsockname()[1]}/LPT1"
        with trio.fail_after(BOUND_S), pytest.raises(lpt_client.ConnectFailed, match=r"no answer within 0\.2 s"):
            async with lpt_client.open_port(url, tls=options, connect_timeout_s=0.2):
                pass


class FullTransport:
    """Takes `room` bytes without waiting, and everything with."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.sent = b""
        self.incoming = b""

    def try_send(self, data: bytes) -> int:
        taken = min(self.room, len(data))
        self.sent += data[:taken]
        self.room -= taken
        return taken

    async def send(self, data: bytes) -> None:
        self.sent += data

    async def receive(self) -> bytes:
        data, self.incoming = self.incoming, b""
        return data

    def is_unreachable(self) -> bool:
        return False

    async def close(self) -> None:
        pass


async def test_what_the_kernel_does_not_take_at_once_is_sent_in_order_and_once(certificates: Path) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(incoming, outgoing, server_side=True)
    raw = FullTransport()
    pipe = TlsPipe(client_context(TlsOptions(certificates / "ca.pem")), "localhost")
    transport = TlsTransport(raw, pipe)
    while not pipe.shake_hands():
        incoming.write(pipe.take_outgoing())
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
        pipe.feed(outgoing.read())
    incoming.write(pipe.take_outgoing())
    server.do_handshake()
    expected = b""
    for number, room in enumerate((1000, 0, 10, 3, 1000, 0)):
        raw.room = room
        data = bytes([number]) * (50 + number)
        expected += data
        sent = transport.try_send(data)
        assert (sent == len(data)) == (room == 1000)
        if sent < len(data):
            assert transport.try_send(b"others") == 0
            await transport.send(data[sent:] + b"more")
            expected += b"more"
    raw.room = 1000
    await transport.close()
    incoming.write(raw.sent)
    received = b""
    while len(received) < len(expected):
        received += server.read(65536)
    assert received == expected
    assert server.read(1) == b"", "an end that was told"


# What is loaded, and what is said


def test_without_tls_nothing_of_it_is_loaded() -> None:
    script = """
import sys
import lpt_client
from lpt_client import blocking, sockets
assert "ssl" not in sys.modules
sys.modules["_ssl"] = None  # a Python without it
sys.modules["ssl"] = None
try:
    blocking.open_port("lpts://localhost/LPT1")
except lpt_client.ConnectFailed as exc:
    assert "this Python was built without TLS" in str(exc), exc
else:
    raise SystemExit("connected")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_has_no_words_of_its_own() -> None:
    assert explain(ssl.SSLError(1, "[SSL] odd"), "x").startswith("TLS failed: ")
    assert explain(ssl.SSLEOFError(8, "eof"), "x") == "the connection was closed in the midst of TLS's handshake"
    assert explain(ConnectionResetError(104, "Connection reset by peer"), "x") == "Connection reset by peer"


def test_a_key_with_a_password(certificates: Path, tmp_path: Path) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = serialization.load_pem_private_key((certificates / "client.key").read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TlsFailed, match="the key has a password"):
        client_context(TlsOptions(None, certificates / "client.pem", locked))


@pytest.mark.parametrize("changed", TlsOptions._fields)
def test_files_as_any_editor_saves_them(certificates: Path, tmp_path: Path, changed: str) -> None:
    """A byte order mark and line ends of Windows do no harm, and no copy is left behind; UTF-16 is named."""
    options = TlsOptions(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    text = Path(getattr(options, changed)).read_text()
    saved = tmp_path / "saved.pem"
    before = set(Path(tempfile.gettempdir()).glob("tmp*.pem"))
    for data in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode()):
        saved.write_bytes(data)
        assert client_context(options._replace(**{changed: saved})).cert_store_stats()["x509_ca"] == 1
    assert set(Path(tempfile.gettempdir()).glob("tmp*.pem")) <= before
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        saved.write_bytes(text.encode(encoding))
        with pytest.raises(TlsFailed, match=r"saved\.pem is UTF-16: save it as UTF-8"):
            client_context(options._replace(**{changed: saved}))
