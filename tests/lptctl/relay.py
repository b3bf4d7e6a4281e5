"""A TCP relay between lptctl and a daemon, whose connections a test cuts."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lpt_service.protocol.url import Url

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
_BOUND_S = 60.0


class Relay:
    """Passes bytes on in both directions. While `refuses`, who comes is cut off at once.

    Attributes:
        url: of the port behind it.
    """

    def __init__(self, server: socket.socket, target: Url) -> None:
        self.refuses = False
        self.url = f"lpt://127.0.0.1:{server.getsockname()[1]}/{target.port_name or 'LPT1'}"
        self._server = server
        self._target = (target.host, target.tcp_port)
        self._ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take nobody any more, and end what there is."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(_BOUND_S)
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with suppress(OSError):  # how it ends: closed
            while True:
                client, _ = self._server.accept()
                if self.refuses:
                    client.close()
                    continue
                daemon = socket.create_connection(self._target, _BOUND_S)
                daemon.settimeout(None)
                self._ends += [client, daemon]
                for source, sink in ((client, daemon), (daemon, client)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    """One for the length of the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Relay(server, Url.parse(url))
        try:
            yield relay
        finally:
            relay.close()
