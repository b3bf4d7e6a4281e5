"""A fake daemon behind socket pairs, served by threads, for the blocking client. All waits are bounded."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from lpt_client import blocking
from lpt_client.blocking_transport import SocketTransport
from lpt_service.protocol.url import Url
from tests.clients.fake_daemon import FakeDaemon, MakeDaemon, notice

URL = "lpt://daemon/LPT1"
BOUND_S = 60.0
# The functions of the client in which it waits: for an answer, or for the next attempt to connect.
_WAITING = frozenset(("receive", "wait", "go_on"))


class Peer:
    """One connection that the fake server has taken.

    `then[name]` is called, in the peer's thread, once a request of that name has been answered (or left without).
    """

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.then: dict[str, Callable[[], object]] = {}
        self.failure: BaseException | None = None
        self.client, self._sock = socket.socketpair()
        self._sock.settimeout(BOUND_S)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                try:
                    data = self._sock.recv(65536)
                except OSError:
                    break
                if not data:
                    break
                known = len(self.daemon.names)
                answers = self.daemon.receive(data)
                if answers:
                    self.send(answers)
                with self._changed:
                    self._changed.notify_all()
                for name in self.daemon.names[known:]:
                    self.then.get(name, lambda: None)()
        except BaseException as exc:
            self.failure = exc
        finally:
            self._sock.close()

    def send(self, data: bytes) -> None:
        """Bytes to the client."""
        self._sock.sendall(data)

    def answer(self, name: str, answer: Any) -> None:
        """Answer the last request of this name."""
        self.send(self.daemon.answer(name, answer))

    def drop(self, reason: str | None = None) -> None:
        """Close the connection, after a `closing` if there is a reason."""
        if reason is not None:
            self.send(notice("closing", reason))
        self._sock.shutdown(socket.SHUT_RDWR)

    def seen(self, name: str, times: int = 1) -> None:
        """Wait until the client has sent so many of these."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.daemon.names.count(name) >= times, BOUND_S)

    def finish(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        assert self.failure is None, self.failure


class FakeServer:
    """Gives clients their sockets; `peers` lists them. `refuse` is raised instead, where set."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.refuse: BaseException | None = None
        self.attempts = 0
        self.make_daemon: MakeDaemon = lambda number: FakeDaemon(session=number)
        self.prepare: Callable[[int, Peer], object] = lambda _number, _peer: None

    def open_socket(self, url: Url, deadline_s: float) -> socket.socket:
        """For open_port."""
        self.attempts += 1
        if self.refuse is not None:
            raise self.refuse
        number = len(self.peers) + 1
        peer = Peer(self.make_daemon(number))
        self.prepare(number, peer)
        self.peers.append(peer)
        return peer.client

    def open_port(self, **options: Any) -> blocking.Port:
        """A port of this daemon."""
        return blocking.open_port(URL, client="test", open_socket=self.open_socket, **options)


@contextmanager
def serving() -> Iterator[FakeServer]:
    """A fake server for the length of the block; its threads have ended after it."""
    server = FakeServer()
    yield server
    for peer in server.peers:
        peer.client.close()
        peer.finish()


def socket_of(port: blocking.Port) -> socket.socket:
    """What a port has to its daemon, or had."""
    transport = port._keeper.link._transport
    assert isinstance(transport, SocketTransport)
    return transport._sock


def interrupt_main(waits_in: Collection[str] = _WAITING) -> None:
    """Ctrl-C, as far as the main thread is concerned, once it waits in one of these functions. From another thread."""
    main = threading.main_thread().ident or 0
    ends_s = time.monotonic() + BOUND_S
    while sys._current_frames()[main].f_code.co_name not in waits_in:
        if time.monotonic() > ends_s:
            return  # what was to be interrupted has ended: the test fails by that
        time.sleep(0.001)
    signal.pthread_kill(main, signal.SIGINT)
