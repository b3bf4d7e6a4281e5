"""Opening a connection without trio: a socket, TLS, hello, and the session that it is answered with."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from lpt_client.backoff import STABLE_AFTER_S, Backoff
from lpt_client.blocking_link import Link
from lpt_client.blocking_transport import SocketTransport, TlsTransport, Transport
from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import ConnectFailed, ConversationError
from lpt_client.events import SessionInfo
from lpt_client.sockets import TlsFailed, TlsOptions, connecting, why
from lpt_client.waits import Attempt, Step
from lpt_service.protocol.url import TLS, Url

if TYPE_CHECKING:
    import ssl

OpenSocket = Callable[[Url, float], socket.socket]


class Connector:
    """Opens links to one daemon, always in the same way.

    `connect_timeout_s` bounds all of it: the look-up of the name, the connection and hello. `leaves_with_connection`:
    the daemon is told that nobody will come back to these sessions after their connections.
    """

    def __init__(
        self,
        url: Url,
        *,
        client: str,
        token: str | None,
        tls: ssl.SSLContext | TlsOptions | None,
        connect_timeout_s: float,
        reply_timeout_s: float,
        open_socket: OpenSocket | None,
        leaves_with_connection: bool,
    ) -> None:
        self.url = url
        self.connect_timeout_s = connect_timeout_s
        self._client = client
        self._token = token
        self._tls = tls
        self._reply_timeout_s = reply_timeout_s
        self._open_socket = open_socket
        self._leaves_with_connection = leaves_with_connection

    def attempt(
        self,
        on_event: Callable[[ConversationEvent], None],
        former: Link | None = None,
        hear_from: tuple[int, int] | None = None,
    ) -> Attempt[Link]:
        """An attempt to get a link on which hello has been answered.

        It asks to go on with the session of `former`, and to hear its interrupts from `hear_from`.

        It raises ConnectFailed or HelloRefused.
        """
        deadline_s = time.monotonic() + self.connect_timeout_s
        return Attempt(self._open(on_event, former, hear_from, deadline_s), deadline_s)

    def _open(
        self,
        on_event: Callable[[ConversationEvent], None],
        former: Link | None,
        hear_from: tuple[int, int] | None,
        deadline_s: float,
    ) -> Generator[Step, Any, Link]:
        if self._open_socket is None:
            raw = SocketTransport((yield from connecting(self.url, deadline_s)))
        else:
            raw = SocketTransport(self._open_socket(self.url, deadline_s))
        transport: Transport = raw
        try:
            if self.url.scheme == TLS:
                transport = yield from _secure(self.url, raw, self._tls, deadline_s)
            conversation = Conversation(None if former is None else former.conversation)
            hello = conversation.hello(
                client=self._client, port=self.url.port_name, token=self._token, hear_from=hear_from
            )
            yield from _greet(self.url, transport, conversation, hello, deadline_s)
            if self._leaves_with_connection and (bye := conversation.bye()):
                try:
                    transport.send(bye, deadline_s)
                except OSError as exc:
                    raise ConnectFailed(f"{self.url}: the connection broke: {why(exc)}") from exc
            return Link(transport, conversation, reply_timeout_s=self._reply_timeout_s, on_event=on_event)
        except BaseException:
            transport.close()
            raise


def _secure(
    url: Url, raw: SocketTransport, options: ssl.SSLContext | TlsOptions | None, deadline_s: float
) -> Generator[Step, Any, TlsTransport]:
    """TLS on a connected socket. Raises ConnectFailed; the caller closes the socket then."""
    from lpt_client.tls import TlsPipe, client_context

    try:
        transport = TlsTransport(raw, TlsPipe(client_context(options), url.host))
        while not transport.shake_hands(deadline_s):
            yield transport.receive_keys
    except TlsFailed as exc:
        raise ConnectFailed(f"{url}: {exc}") from exc
    except OSError as exc:
        raise ConnectFailed(f"{url}: the TLS handshake failed: {why(exc)}") from exc
    return transport


def _greet(
    url: Url, transport: Transport, conversation: Conversation, hello: bytes, deadline_s: float
) -> Generator[Step, Any, None]:
    """Say hello on a connected socket. Raises ConnectFailed or HelloRefused."""
    try:
        transport.send(hello, deadline_s)
        while True:
            data = yield transport.receive
            if data is None:
                continue
            if not data:
                conversation.end_of_stream()
                raise ConnectFailed(f"{url}: {conversation.end_reason}")
            conversation.receive(data)
            while (event := conversation.next_event()) is not None:
                if type(event) is SessionInfo:
                    return
    except TlsFailed as exc:  # whether the daemon takes a client's certificate shows only now
        raise ConnectFailed(f"{url}: {exc}") from exc
    except OSError as exc:
        raise ConnectFailed(f"{url}: no answer: {why(exc)}") from exc
    except ConversationError as exc:
        raise ConnectFailed(f"{url}: no daemon of this protocol answers there: {exc}") from exc


class Reopening:
    """Attempts to connect again, one after the other, with growing pauses between them.

    What one call has no time for, the next goes on with: so a program that polls for a millisecond at a time is
    connected again, too.
    """

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._retry_at_s: float | None = None
        self._attempt: Attempt[Link] | None = None

    def go_on(self, until_s: float, lasted_s: float, begin: Callable[[], Attempt[Link]]) -> Link | None:
        """A link; None if `until_s` came first. `lasted_s` is how long ago the last link was opened.

        Raises ConnectFailed or HelloRefused when an attempt has failed.
        """
        if self._attempt is None:
            if self._retry_at_s is None:
                if lasted_s >= STABLE_AFTER_S:
                    self._backoff.reset()
                self._retry_at_s = time.monotonic() + self._backoff.next_delay_s()
            time.sleep(max(0.0, min(self._retry_at_s, until_s) - time.monotonic()))
            if self._retry_at_s > until_s:
                return None
            self._retry_at_s = None
            self._attempt = begin()
        attempt, self._attempt = self._attempt, None
        link = attempt.go_on(until_s)
        if link is None:
            self._attempt = attempt
        return link

    def abandon(self) -> None:
        """There will be no other connection."""
        if self._attempt is not None:
            self._attempt.abandon()
            self._attempt = None
