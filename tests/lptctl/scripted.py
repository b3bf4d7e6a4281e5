"""The scripted daemon of the SDK's tests behind a TCP port: for what a simulated one does not do on its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lpt_service.protocol.codec import encode_result
from tests.clients.fake_daemon import FakeDaemon, MakeDaemon, notice

_BOUND_S = 60.0


class ScriptedDaemon:
    """Answers one client at a time, each in a fresh session; `daemon` is the last one's side of the conversation.

    Attributes:
        make_daemon: gives the daemon of the connection of this number; the first is 1.
        answers: by method or control code, in addition to those of FakeDaemon, for every session.
        url: of its port.
    """

    def __init__(self, server: socket.socket) -> None:
        self.make_daemon: MakeDaemon = lambda _number: FakeDaemon()
        self.answers: dict[str, Any] = {}
        self.connections = 0
        self.daemon = FakeDaemon()
        self.failure: BaseException | None = None
        self.url = f"lpt://127.0.0.1:{server.getsockname()[1]}/LPT1"
        self._server = server
        self._connection: socket.socket | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def params(self, method: str) -> tuple[Any, ...]:
        """What the last request of this method asked."""
        params = self.daemon.request(method).params
        assert isinstance(params, tuple)
        return params

    def notify(self, method: str, *params: Any) -> None:
        """Send a notification to the client that is connected."""
        self.send(notice(method, *params))

    def send(self, data: bytes) -> None:
        """Send bytes to the client that is connected."""
        assert self._connection is not None
        self._connection.sendall(data)

    def answer_former(self, msgid: int, output: bytes) -> None:
        """Answer a control request that came on an earlier connection."""
        self.send(encode_result(msgid, (len(output), output)))

    def drop(self) -> None:
        """End the connection."""
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, name: str, connection: int = 1) -> None:
        """Wait until the client has sent this on the connection of this number, and it has been answered."""

        def has_come() -> bool:
            return self.connections >= connection and name in self.daemon.names

        with self._changed:
            assert self._changed.wait_for(has_come, _BOUND_S), self.daemon.names

    def close(self) -> None:
        """Take no more clients. Raises what went wrong meanwhile."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(_BOUND_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _serve(self) -> None:
        try:
            while True:
                try:
                    connection, _ = self._server.accept()
                except OSError:
                    return  # closed
                with connection:
                    connection.settimeout(_BOUND_S)
                    self._converse(connection)
        except BaseException as exc:
            self.failure = exc

    def _converse(self, connection: socket.socket) -> None:
        daemon = self.make_daemon(self.connections + 1)
        daemon.answers.update(self.answers)
        self.daemon, self._connection = daemon, connection
        self.connections += 1
        while data := _receive(connection):
            with self._changed:  # whoever waits for a request sees it no sooner than its answer is sent
                answers = daemon.receive(data)
                if answers:
                    connection.sendall(answers)
                self._changed.notify_all()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


@contextmanager
def scripted_daemon(**answers: Any) -> Iterator[ScriptedDaemon]:
    """One for the length of the block; its thread has ended after it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        daemon = ScriptedDaemon(server)
        daemon.answers.update(answers)
        try:
            yield daemon
        finally:
            daemon.close()
