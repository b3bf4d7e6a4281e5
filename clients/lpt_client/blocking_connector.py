"""Opening a connection without trio: a socket, TLS, hello, and the session that it is answered with."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lpt_client.blocking_link import Link
from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import ConnectFailed, ConversationError
from lpt_client.events import SessionInfo
from lpt_client.sockets import RECEIVE_BYTES, ByteSocket, TlsFailed, TlsOptions, why
from lpt_service.protocol.url import TLS, Url

if TYPE_CHECKING:
    import ssl

OpenSocket = Callable[[Url, float], socket.socket]


class Connector:
    """Opens links to one daemon, always in the same way.

    `connect_timeout_s` bounds the connection and hello together. `leaves_with_connection`: the daemon is told that
    nobody will come back to these sessions after their connections.
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
        open_socket: OpenSocket,
        leaves_with_connection: bool,
    ) -> None:
        self.url = url
        self._client = client
        self._token = token
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._open_socket = open_socket
        self._leaves_with_connection = leaves_with_connection

    def open(
        self,
        on_event: Callable[[ConversationEvent], None],
        former: Link | None = None,
        hear_from: tuple[int, int] | None = None,
    ) -> Link:
        """A link on which hello has been answered.

        It asks to go on with the session of `former`, and to hear its interrupts from `hear_from`.

        Raises ConnectFailed or HelloRefused.
        """
        deadline_s = time.monotonic() + self._connect_timeout_s
        raw = self._open_socket(self.url, deadline_s)
        sock: ByteSocket = raw
        try:
            if self.url.scheme == TLS:
                from lpt_client.tls import secure

                sock = secure(raw, self.url, self._tls, deadline_s)
            conversation = Conversation(None if former is None else former.conversation)
            hello = conversation.hello(
                client=self._client, port=self.url.port_name, token=self._token, hear_from=hear_from
            )
            _greet(self.url, sock, conversation, hello, deadline_s)
            if self._leaves_with_connection and (bye := conversation.bye()):
                try:
                    sock.sendall(bye)
                except OSError as exc:
                    raise ConnectFailed(f"{self.url}: the connection broke: {why(exc)}") from exc
            return Link(sock, conversation, reply_timeout_s=self._reply_timeout_s, on_event=on_event)
        except BaseException:
            sock.close()
            raise


def _greet(url: Url, sock: ByteSocket, conversation: Conversation, hello: bytes, deadline_s: float) -> None:
    """Say hello on a connected socket. Raises ConnectFailed or HelloRefused."""
    try:
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        sock.sendall(hello)
        while True:
            sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = sock.recv(RECEIVE_BYTES)
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
