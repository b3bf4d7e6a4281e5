"""Bytes to and from a daemon under trio: three kinds of transport with one face.

`SocketTransport` is for plain sockets. It sends without waiting where the kernel takes the bytes, which spares every
request a turn of the scheduler that trio's SocketStream would take. `StreamTransport` is for any other trio stream;
`TlsTransport` puts TLS on either. Why not trio.SSLStream: docs/adr/0011.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from lpt_client.errors import ConnectFailed
from lpt_client.names import Addresses, LookUp, numeric
from lpt_client.processes import keep_from_children
from lpt_client.sockets import (
    RECEIVE_BYTES,
    TlsFailed,
    TlsOptions,
    bad_host,
    check_supported,
    hint,
    is_unreachable,
    set_options,
    why,
)
from lpt_service.protocol.url import TLS, UNIX, Url

if TYPE_CHECKING:
    import ssl

    from lpt_client.tls import TlsPipe

# How a transport says that the connection is broken, or was closed under it.
TRANSPORT_ERRORS: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

# A host's next address is tried as well when the one before has not answered for so long (RFC 8305).
_NEXT_ADDRESS_AFTER_S: Final = 0.25

OpenStream = Callable[[Url], Awaitable[trio.abc.Stream]]


class Transport(Protocol):
    """A connected byte stream. One task receives, one sends; `try_send` may be called between two sends.

    Error handling: every method but `close` raises one of TRANSPORT_ERRORS when the connection is broken.
    """

    def try_send(self, data: bytes) -> int:
        """Send what can be sent without waiting; the number of bytes taken."""

    async def send(self, data: bytes) -> None:
        """Send all of it. If this is cancelled, part of it may have been sent."""

    async def receive(self) -> bytes:
        """What has come, at least one byte; nothing at the end."""

    def is_unreachable(self) -> bool:
        """Whether the daemon's computer has not answered for DEAD_PEER_S, as far as the system tells."""

    async def close(self) -> None:
        """Close at once; those who wait get trio.ClosedResourceError. May be called again."""


class SocketTransport:
    """A connected socket of the standard library, which this owns from now on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        keep_from_children(sock)
        self._sock = sock

    def try_send(self, data: bytes) -> int:
        """See Transport."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def send(self, data: bytes) -> None:
        """See Transport."""
        view = memoryview(data)
        while view:
            await trio.lowlevel.wait_writable(self._sock)
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                continue

    async def receive(self) -> bytes:
        """See Transport."""
        while True:
            # Waiting first, for after an answer there is hardly ever more at once: a vain receive costs more.
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue

    def is_unreachable(self) -> bool:
        """See Transport."""
        return is_unreachable(self._sock)

    async def close(self) -> None:
        """See Transport."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class StreamTransport:
    """Any trio stream, which this owns from now on."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    def try_send(self, data: bytes) -> int:
        """See Transport. A stream cannot send without waiting."""
        return 0

    async def send(self, data: bytes) -> None:
        """See Transport."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """See Transport."""
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))

    def is_unreachable(self) -> bool:
        """See Transport. A stream does not tell, except by breaking."""
        return False

    async def close(self) -> None:
        """See Transport."""
        await trio.aclose_forcefully(self._stream)


class TlsTransport:
    """TLS on a transport, which this owns from now on; `handshake` first."""

    def __init__(self, raw: Transport, pipe: TlsPipe) -> None:
        self._raw = raw
        self._pipe = pipe
        self._unsent = b""  # ciphertext that the kernel has not taken
        self._is_ahead = False  # the next byte of plaintext was encrypted already

    async def handshake(self) -> None:
        """Agree on keys. Raises one of TRANSPORT_ERRORS, TlsFailed among them."""
        try:
            while not self._pipe.shake_hands():
                await self._raw.send(self._pipe.take_outgoing())
                self._pipe.feed(await self._raw.receive())
        except TlsFailed:
            with suppress(*TRANSPORT_ERRORS):
                await self._raw.send(self._pipe.take_outgoing())  # the alert, which tells the daemon
            raise
        await self._raw.send(self._pipe.take_outgoing())

    def try_send(self, data: bytes) -> int:
        """See Transport. While ciphertext waits, the last byte counts as not taken: `send` follows with it."""
        if self._unsent or not data:
            return 0
        self._pipe.write(data)
        outgoing = self._pipe.take_outgoing()
        self._unsent = outgoing[self._raw.try_send(outgoing) :]
        self._is_ahead = bool(self._unsent)
        return len(data) - self._is_ahead

    async def send(self, data: bytes) -> None:
        """See Transport."""
        if len(data) > self._is_ahead:
            self._pipe.write(memoryview(data)[self._is_ahead :])
        outgoing, self._unsent, self._is_ahead = self._unsent + self._pipe.take_outgoing(), b"", False
        await self._raw.send(outgoing)

    async def receive(self) -> bytes:
        """See Transport."""
        while (data := self._pipe.read()) is None:
            self._pipe.feed(await self._raw.receive())
        return data

    def is_unreachable(self) -> bool:
        """See Transport."""
        return self._raw.is_unreachable()

    async def close(self) -> None:
        """See Transport. Says goodbye to the daemon if that takes no time."""
        with suppress(*TRANSPORT_ERRORS):
            self._pipe.write_goodbye()
            self._raw.try_send(self._unsent + self._pipe.take_outgoing())
        await self._raw.close()


async def connect(
    url: Url, open_stream: OpenStream | None, tls: ssl.SSLContext | TlsOptions | None = None
) -> Transport:
    """A transport to the daemon at `url`. Raises ConnectFailed. The caller bounds the time."""
    raw = await _connect(url, open_stream)
    if url.scheme != TLS:
        return raw
    from lpt_client.tls import TlsPipe, client_context

    try:
        transport = TlsTransport(raw, TlsPipe(client_context(tls), url.host))
        await transport.handshake()
    except BaseException as exc:
        with trio.CancelScope(shield=True):  # closes by force: takes no time
            await raw.close()
        if isinstance(exc, TlsFailed):
            raise ConnectFailed(f"{url}: {exc}") from exc
        if isinstance(exc, TRANSPORT_ERRORS):
            raise ConnectFailed(f"{url}: the TLS handshake failed: {_why_not(exc)}") from exc
        raise
    return transport


async def _connect(url: Url, open_stream: OpenStream | None) -> Transport:
    try:
        if open_stream is not None:
            return StreamTransport(await open_stream(url))
        check_supported(url)
        if url.scheme == UNIX:
            stream = await trio.open_unix_socket(url.path)
            sock = stream.socket
        else:
            sock = await _connect_one_of(numeric(url.host, url.tcp_port) or await _look_up(url))
    except (*TRANSPORT_ERRORS, RuntimeError) as exc:  # RuntimeError: trio's word for a system without Unix sockets
        raise ConnectFailed(f"{url}: {_why_not(exc)}{hint(url, exc)}") from exc
    except UnicodeError as exc:
        raise bad_host(url) from exc
    plain = socket.socket(fileno=sock.detach())
    set_options(plain, is_watched=True)
    return SocketTransport(plain)


async def _look_up(url: Url) -> Addresses:
    """The addresses of a host's name.

    Why not trio's own look-up: one that is left behind would keep one of the threads that the program's trio has.
    """
    look_up, done = LookUp.of(url.host, url.tcp_port), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def tell() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    look_up.when_done(tell)
    await done.wait()
    return look_up.wait(0)


async def _connect_one_of(addresses: Addresses) -> trio.socket.SocketType:
    """A socket that is connected to one of them. Each is tried once the one before has failed or is slow to answer.

    Raises the OSError of the last that failed.
    """
    errors: list[OSError] = []
    connected: list[trio.socket.SocketType] = []

    async def attempt(family: int, address: Any, failed: trio.Event) -> None:
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            await sock.connect(address)
        except BaseException as exc:
            sock.close()
            if not isinstance(exc, OSError):
                raise
            # Without the address that trio names: the URL is named already.
            errors.append(OSError(exc.errno, os.strerror(exc.errno)) if exc.errno else exc)
            failed.set()
        else:
            connected.append(sock)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for family, address in addresses:
            failed = trio.Event()
            nursery.start_soon(attempt, family, address, failed)
            with trio.move_on_after(_NEXT_ADDRESS_AFTER_S):
                await failed.wait()
    for sock in connected[1:]:
        sock.close()
    if connected:
        return connected[0]
    raise errors[-1] if errors else OSError("the name has no address")


def _why_not(error: BaseException) -> str:
    """The reason in words; trio's own errors have the system's as their cause."""
    return why(error if error.__cause__ is None else error.__cause__)
