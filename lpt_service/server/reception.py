"""From an accepted connection to a session: who may not come in is told why, if that costs little."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from lpt_service.protocol import messages
from lpt_service.protocol.codec import encode_notification
from lpt_service.server.admission import Admission
from lpt_service.server.audit import Audit
from lpt_service.server.identity import Origin
from lpt_service.server.listeners import Listener
from lpt_service.server.strangers import StrangerLog
from lpt_service.server.stream import SocketStream, Stream, set_options
from lpt_service.server.tls_gate import TlsGate

_log = logging.getLogger(__name__)
# How many who are turned away are given the time to read why; who comes beyond that is cut off.
TURNED_AWAY_MAX: Final = 64
# What a TLS client is told, in place of words, for which it would have to be led through the handshake: the record of
# a fatal alert (RFC 8446, section 6).
ACCESS_DENIED: Final = bytes((21, 3, 3, 0, 2, 2, 49))


class Reception:
    """Takes connections from the listeners, and hands them to `serve`, which begins a session, in `nursery`."""

    def __init__(
        self,
        admission: Admission,
        gate: TlsGate,
        serve: Callable[[Stream, Origin], object],
        audit: Audit,
        strangers: StrangerLog,
    ) -> None:
        self.nursery: trio.Nursery | None = None
        self.dead_peer_s = 0.0
        self.is_closed = False  # the daemon is stopping
        self._admission = admission
        self._gate = gate
        self._serve = serve
        self._audit = audit
        self._strangers = strangers
        self._turned_away = 0

    def receive(self, listener: Listener, sock: socket.socket) -> None:
        """Somebody has come in at `listener`."""
        assert self.nursery is not None
        try:
            set_options(sock, self.dead_peer_s)
            origin = Origin.of(sock)
        except OSError:  # gone already: a health check that resets its connection, for example
            self._strangers.left_silently += 1
            sock.close()
            return
        stream = SocketStream(sock)
        why_not = self._admission.refuse(origin, listener.allow_from)
        if why_not is not None:
            self._strangers.logger(_log).warning("refused a connection from %s: %s", origin.peer, why_not)
            self._audit.refused(f"connection: {why_not}", identity=str(origin.identity), peer=origin.peer)
            goodbye = ACCESS_DENIED if listener.is_tls else encode_notification(messages.CLOSING, (why_not,))
            self._turn_away(stream, goodbye)
            return
        if listener.is_tls:
            self._admission.count(origin.counted_as)  # now: many may come in one turn
            self.nursery.start_soon(self._secure, stream, origin)
        else:
            self._serve(stream, origin)

    async def _secure(self, raw: SocketStream, origin: Origin) -> None:
        try:
            stream = await self._gate.lead(raw, origin.peer, origin.counted_as)
        finally:
            self._admission.discount(origin.counted_as)
        if stream is not None and self.is_closed:
            stream.close()
        elif stream is not None:
            self._serve(stream, origin.with_certificate(stream.identity))

    def _turn_away(self, stream: SocketStream, goodbye: bytes) -> None:
        """Give it the time to read why, and close."""
        assert self.nursery is not None
        if self._turned_away >= TURNED_AWAY_MAX:
            stream.close()
            return
        self._turned_away += 1
        self.nursery.start_soon(self._say_goodbye, stream, goodbye)

    async def _say_goodbye(self, stream: SocketStream, goodbye: bytes) -> None:
        try:
            with suppress(OSError, trio.ClosedResourceError):
                stream.try_send(goodbye)
                await stream.finish()
        finally:
            self._turned_away -= 1
            stream.close()
