"""The client's end of TLS on a connection in memory."""

from __future__ import annotations

import ssl

from tests.server.fakes import MemoryStream


class TlsClient:
    """Feeds a MemoryStream, and reads from it. `chunk_bytes`: how much of it is one read of the daemon's."""

    def __init__(self, stream: MemoryStream, context: ssl.SSLContext, chunk_bytes: int = 1 << 20) -> None:
        self.stream = stream
        self.chunk_bytes = chunk_bytes
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def shake_hands(self) -> bool:
        """A step of the handshake; whether it is over for us. Raises ssl.SSLError, after telling the daemon."""
        self._incoming.write(self.stream.take())
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._push()
        return True

    def write(self, data: bytes) -> None:
        self.tls.write(data)
        self._push()

    def goodbye(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self._push()

    def read(self, at_most: int | None = None) -> bytes:
        """All plaintext of so many bytes of ciphertext."""
        self._incoming.write(self.stream.take(at_most))
        parts = []
        try:
            while data := self.tls.read(65536):
                parts.append(data)
        except ssl.SSLWantReadError:
            pass
        return b"".join(parts)

    def _push(self) -> None:
        data = self._outgoing.read()
        self.stream.feed(*(data[at : at + self.chunk_bytes] for at in range(0, len(data), self.chunk_bytes)))
