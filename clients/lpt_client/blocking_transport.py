"""Bytes to and from a daemon without trio: a plain socket, or TLS on one, with one face.

The socket never blocks; waiting is apart (`waits`). Neither Python's time-outs nor the kernel's (SO_RCVTIMEO) would do:
each holds for one call of the system, and a signal, or a byte, begins it anew.
"""

from __future__ import annotations

import errno
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from lpt_client.processes import keep_from_children
from lpt_client.sockets import RECEIVE_BYTES
from lpt_client.waits import LONGEST_WAIT_S, Readiness

if TYPE_CHECKING:
    from lpt_client.tls import TlsPipe


_SHORT_WAIT_MS: Final = LONGEST_WAIT_S * 1000


class Transport(Protocol):
    """A connected byte stream.

    Error handling: `receive` and `send` raise TimeoutError (without errno) when the deadline comes first, another
    OSError when the connection is broken.
    """

    def receive(self, deadline_s: float) -> bytes | None:
        """What has come, or comes next; nothing at the end, None if it is not yet anything to read."""

    def send(self, data: bytes, deadline_s: float) -> None:
        """Send all of it. If this is interrupted, part of it may have been sent."""

    def shut_down(self) -> None:
        """End the connection, which wakes `receive` and `send` in another thread."""

    def close(self) -> None:
        """Close at once. May be called again."""


class SocketTransport:
    """A connected socket of the standard library, which this owns from now on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        keep_from_children(sock)
        self._sock = sock
        self._readable = Readiness(sock)
        self._poll = self._readable.poll

    def receive(self, deadline_s: float) -> bytes | None:
        """See Transport."""
        if self._sock.fileno() < 0:
            raise OSError(errno.EBADF, "closed")  # the descriptor to be polled may be another file's by now
        wait_ms = (deadline_s - time.monotonic()) * 1000
        # The way of nearly every answer, without a call too many.
        if not (0 < wait_ms < _SHORT_WAIT_MS and self._poll(wait_ms)):
            self._readable.wait(deadline_s)
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None  # woken for nothing

    def send(self, data: bytes, deadline_s: float) -> None:
        """See Transport."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        writable = Readiness(self._sock, to_write=True)
        while True:
            writable.wait(deadline_s)
            sent += self.try_send(memoryview(data)[sent:])
            if sent == len(data):
                return
            if time.monotonic() >= deadline_s:
                raise TimeoutError

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting; the number of bytes taken."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def shut_down(self) -> None:
        """See Transport."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See Transport."""
        self._sock.close()


class TlsTransport:
    """TLS on a connected socket, which this owns from now on; `shake_hands` first.

    Why not ssl.SSLSocket: it may keep plaintext that no poll of the descriptor tells of. Here a `receive` takes what
    one receive of the socket brings, and gives all that can be read of it.
    """

    def __init__(self, raw: SocketTransport, pipe: TlsPipe) -> None:
        self._raw = raw
        self._pipe = pipe
        self._is_closed = False

    def shake_hands(self, deadline_s: float) -> bool:
        """Go on with the handshake: True once it is done, False while more of the daemon's bytes are needed.

        Raises TlsFailed.
        """
        try:
            return self._pipe.shake_hands()
        finally:  # after a failure, too: the alert, which tells the daemon
            with suppress(OSError):  # the next receive meets it as well
                self._raw.send(self._pipe.take_outgoing(), deadline_s)

    def receive_keys(self, deadline_s: float) -> None:
        """Receive some of the daemon's bytes for `shake_hands`. Raises OSError, TlsFailed among them."""
        data = self._raw.receive(deadline_s)
        if data is not None:
            self._pipe.feed(data)

    def receive(self, deadline_s: float) -> bytes | None:
        """See Transport."""
        data = self._raw.receive(deadline_s)
        if data is None:
            return None
        self._pipe.feed(data)
        return self._pipe.read()

    def send(self, data: bytes, deadline_s: float) -> None:
        """See Transport."""
        self._pipe.write(data)
        self._raw.send(self._pipe.take_outgoing(), deadline_s)

    def shut_down(self) -> None:
        """See Transport. What OpenSSL is in the midst of is left alone."""
        self._raw.shut_down()

    def close(self) -> None:
        """See Transport. Says goodbye to the daemon if that takes no time."""
        if not self._is_closed:
            self._is_closed = True
            with suppress(OSError):
                self._pipe.write_goodbye()
                self._raw.try_send(self._pipe.take_outgoing())
            self._raw.close()
