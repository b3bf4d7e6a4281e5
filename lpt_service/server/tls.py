"""TLS over one connection, with the face of SocketStream: tried first, waited for only when the socket is not ready.

The bytes go through OpenSSL in memory (ssl.SSLObject); docs/adr/0011 says why not trio.SSLStream. Only TLS 1.3 is
spoken, in which, after the handshake, reading never has to wait for writing, nor writing for reading.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any, Final

from lpt_service.protocol import messages
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES, encode_notification
from lpt_service.server.identity import readable
from lpt_service.server.stream import RECEIVE_BYTES, Stream

FIRST_BYTE: Final = b"\x16"  # of whatever a TLS client says first; MessagePack-RPC never begins with it
# What is encrypted at a time, and so what ciphertext may wait for the socket: the most that one TLS record holds, in
# whole entries of the log, so that the byte held back by `try_send` is never the first one of an entry.
RECORD_BYTES: Final = 16 * 1024 // INTERRUPT_FRAME_BYTES * INTERRUPT_FRAME_BYTES
_USE_TLS: Final = "this listener speaks TLS: use lpts:// in place of lpt://"

# Parts of OpenSSL's names for what went wrong → in words, as the daemon sees it.
_REASONS: Final = {
    "UNSUPPORTED_PROTOCOL": "the client does not speak TLS 1.3",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has sent no certificate, and one is required",
    "UNEXPECTED_EOF": "the client has closed the connection",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
    "ALERT_UNKNOWN_CA": "the client does not know the authority of this daemon's certificate",
    "ALERT_CERTIFICATE_EXPIRED": "the client says that this daemon's certificate has expired",
    "ALERT_BAD_CERTIFICATE": "the client does not take this daemon's certificate (is it for this host's name? "
    "is the client's clock right?)",
    "ALERT_CERTIFICATE_UNKNOWN": "the client does not take this daemon's certificate",
    "ALERT_PROTOCOL_VERSION": "the client does not speak TLS 1.3",
}
# X509_V_ERR_… → in words.
_VERIFY_REASONS: Final = {
    9: "the client's certificate is not valid yet (does a clock go wrong?)",
    10: "the client's certificate has expired",
    18: "the client's certificate is of an unknown authority (it signed itself)",
    19: "the client's certificate is of an unknown authority",
    20: "the client's certificate is of an unknown authority",
    21: "the client's certificate is of an unknown authority",
    26: "the client's certificate is not one for clients",
}


class TlsFailure(Exception):  # noqa: N818 - the other end's doing, more often than not
    """No TLS came about. The text says why."""


class TlsStream:
    """The daemon's end of a TLS connection; `handshake` first.

    Attributes:
        has_heard: the client has said something.
    """

    def __init__(self, raw: Stream, context: ssl.SSLContext) -> None:
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = b""  # ciphertext that the socket has not taken
        self.has_heard = False
        self._is_ahead = False  # the next byte of plaintext was encrypted already

    async def handshake(self) -> None:
        """Agree on keys. Raises TlsFailure, after telling the client; or what a SocketStream raises. Not bounded."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._push_all()
            except ssl.SSLError as exc:
                self._push()  # the alert
                raise TlsFailure(explain(exc)) from exc
            data = await self._raw.receive()
            is_first, self.has_heard = not self.has_heard, self.has_heard or bool(data)
            if is_first and data and data[:1] != FIRST_BYTE:
                self._raw.try_send(encode_notification(messages.CLOSING, (_USE_TLS,)))
                raise TlsFailure("the client does not speak TLS (lpt:// in place of lpts://?)")
            self._feed(data)
        await self._push_all()

    @property
    def identity(self) -> str | None:
        """Whom the client's certificate names: its first alternative name, else its common name; None without one.

        Printable and bounded, as `identity.readable` makes it.
        """
        name = identity_of(self._tls.getpeercert() or {})
        return name and readable(name)

    # Receiving

    def try_receive(self) -> bytes | None:
        """Plaintext that is here."""
        while (data := self._read()) is None:
            received = self._raw.try_receive()
            if received is None:
                return None
            self._feed(received)
        return data

    async def receive(self) -> bytes:
        """Wait for plaintext; empty at the end of the stream."""
        while (data := self._read()) is None:
            self._feed(await self._raw.receive())
        return data

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _read(self) -> bytes | None:
        """The plaintext of one record; None if more bytes are needed, empty at the end."""
        if not self._incoming.pending and not self._incoming.eof:
            return None  # the usual case, told without an exception
        try:
            return self._tls.read(RECEIVE_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLEOFError:
            return b""  # no goodbye: a client that was killed; the frames tell whether the last one is whole
        except ssl.SSLError as exc:
            raise ConnectionError(explain(exc)) from exc

    # Sending

    def try_send(self, data: bytes | memoryview) -> int:
        """Encrypt and send, record by record, until the socket is full.

        While ciphertext waits for the socket, the last byte of its plaintext counts as not taken, so that the caller
        comes again. That byte is in the midst of a frame, and so it is the first that is offered then.
        """
        if not self._push():
            return 0
        taken, self._is_ahead = int(self._is_ahead), False
        view = memoryview(data)
        while taken < len(view):
            taken += self._tls.write(view[taken : taken + RECORD_BYTES])
            if not self._push():
                self._is_ahead = True
                return taken - 1
        return taken

    def _push(self) -> bool:
        """Send ciphertext; True when none is left."""
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        if self._unsent:
            self._unsent = self._unsent[self._raw.try_send(self._unsent) :]
        return not self._unsent

    async def _push_all(self) -> None:
        while not self._push():
            await self._raw.wait_writable()

    async def wait_writable(self) -> None:
        """Wait until the socket takes more."""
        await self._raw.wait_writable()

    def unsent_bytes(self) -> int:
        """Ciphertext, here and in the socket."""
        return len(self._unsent) + self._raw.unsent_bytes()

    def set_dead_peer_s(self, dead_peer_s: float) -> None:
        """As for a plain socket."""
        self._raw.set_dead_peer_s(dead_peer_s)

    def is_unreachable(self, dead_peer_s: float) -> bool:
        """As for a plain socket."""
        return self._raw.is_unreachable(dead_peer_s)

    def make_room(self) -> None:
        """As for a plain socket."""
        self._raw.make_room()

    # The end

    async def finish(self) -> None:
        """Say goodbye in TLS, then as a plain socket does."""
        with suppress(ssl.SSLError):  # it wants to read the client's goodbye, which is not waited for
            self._tls.unwrap()
        await self._push_all()
        await self._raw.finish()

    async def wait_until_taken(self) -> None:
        """As for a plain socket."""
        await self._raw.wait_until_taken()

    def close(self) -> None:
        """Close at once."""
        self._raw.close()


def identity_of(certificate: Any) -> str | None:
    """The name in a certificate as `getpeercert` gives it."""
    for _, value in certificate.get("subjectAltName", ()):
        return str(value)
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None


def explain(error: ssl.SSLError) -> str:
    """OpenSSL's error in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_REASONS.get(error.verify_code, f"the client's certificate is not good: {error.verify_message}")
    reason = getattr(error, "reason", None) or ""  # Python's own have none
    if isinstance(error, ssl.SSLEOFError):
        reason = "UNEXPECTED_EOF"
    for part, words in _REASONS.items():
        if part in reason:
            return words
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}"
