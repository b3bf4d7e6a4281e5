"""Opening a connection under trio: a transport, hello, and the session that it is answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from lpt_client.conversation import Conversation, ConversationEvent
from lpt_client.errors import ConnectFailed, ConversationError
from lpt_client.events import SessionInfo
from lpt_client.sockets import TlsFailed, TlsOptions, why
from lpt_client.trio_link import Link
from lpt_client.trio_transport import TRANSPORT_ERRORS, OpenStream, Transport, connect
from lpt_service.protocol.url import Url

if TYPE_CHECKING:
    import ssl


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
        tls: ssl.SSLContext | TlsOptions | None = None,
        connect_timeout_s: float,
        open_stream: OpenStream | None,
        leaves_with_connection: bool = False,
    ) -> None:
        self.url = url
        self._client = client
        self._token = token
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._open_stream = open_stream
        self._leaves_with_connection = leaves_with_connection

    async def open(
        self,
        on_event: Callable[[Link, ConversationEvent], None],
        on_lost: Callable[[Link], None],
        former: Link | None = None,
        hear_from: tuple[int, int] | None = None,
    ) -> Link:
        """A link on which hello has been answered; run it next.

        It asks to go on with the session of `former`, and to hear its interrupts from `hear_from`.

        Raises ConnectFailed or HelloRefused.
        """
        with trio.move_on_after(self._connect_timeout_s):
            transport = await connect(self.url, self._open_stream, self._tls)
            conversation = Conversation(None if former is None else former.conversation)
            try:
                session = await self._greet(transport, conversation, hear_from)
                if self._leaves_with_connection and (bye := conversation.bye()):
                    await transport.send(bye)
            except BaseException as exc:
                with trio.CancelScope(shield=True):  # closes by force: takes no time
                    await transport.close()
                if isinstance(exc, TlsFailed):  # whether the daemon takes a client's certificate shows only now
                    raise ConnectFailed(f"{self.url}: {exc}") from exc
                if isinstance(exc, TRANSPORT_ERRORS):
                    raise ConnectFailed(f"{self.url}: the connection broke: {why(exc)}") from exc
                if isinstance(exc, ConversationError):
                    raise ConnectFailed(f"{self.url}: no daemon of this protocol answers there: {exc}") from exc
                raise
            return Link(transport, conversation, session, on_event=on_event, on_lost=on_lost)
        raise ConnectFailed(f"{self.url}: no answer within {self._connect_timeout_s:g} s")

    async def _greet(
        self, transport: Transport, conversation: Conversation, hear_from: tuple[int, int] | None
    ) -> SessionInfo:
        hello = conversation.hello(client=self._client, port=self.url.port_name, token=self._token, hear_from=hear_from)
        await transport.send(hello)
        while data := await transport.receive():
            conversation.receive(data)
            while (event := conversation.next_event()) is not None:
                if type(event) is SessionInfo:
                    return event
        conversation.end_of_stream()
        raise ConnectFailed(f"{self.url}: {conversation.end_reason}")
