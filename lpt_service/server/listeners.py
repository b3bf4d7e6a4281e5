"""Where clients come in: TCP and Unix listeners, and what to do when no more can be let in."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from typing import Final

import trio

from lpt_service.protocol.errors import LptError
from lpt_service.protocol.url import UNIX, Url

_BACKLOG: Final = 1024  # connections that the kernel holds until they are accepted
_ACCEPTS_A_TURN: Final = 32
# Out of descriptors or memory: wait until somebody leaves, rather than spin.
_OUT_OF_RESOURCES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_OUT_OF_RESOURCES_PAUSE_S: Final = 0.25
# One address of several that a name has (`localhost` where there is no IPv6): the others do.
_ADDRESS_ABSENT: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
# The fault of the connection that was to be accepted, or of its network: see accept(2). EPERM: a firewall's no.
_CONNECTION_FAILED: Final = frozenset(
    (
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    )
)
_SOCKET_MODE: Final = 0o660
_log = logging.getLogger(__name__)


class ListenError(LptError):
    """A listener could not be opened; the text says which, why, and what to do."""


class Listener:
    """One listening socket, and the URL under which clients reach it (with the TCP port that it really has)."""

    def __init__(self, sock: socket.socket, url: Url) -> None:
        self.url = url
        self._socket = sock
        self._accepting = trio.CancelScope()
        self._is_paused = False
        sock.setblocking(False)

    async def accept_forever(self, on_connection: Callable[[socket.socket], None]) -> None:
        """Hand every connection to `on_connection`, until closed.

        Error handling: a connection that is gone before it is accepted is skipped. Out of descriptors or memory,
        accepting pauses (the kernel keeps those who come), and goes on when there is room. Anything else is raised.
        """
        with self._accepting:
            while not self._accepting.cancel_called:
                await trio.lowlevel.wait_readable(self._socket)
                if not self._accept_some(on_connection):
                    await trio.sleep(_OUT_OF_RESOURCES_PAUSE_S)

    def _accept_some(self, on_connection: Callable[[socket.socket], None]) -> bool:
        """Accept those who are here, a turn's worth; False when there is no room for them."""
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if self._accepting.cancel_called:  # closed in the moment in which somebody came
                    break
                if exc.errno in _CONNECTION_FAILED:
                    continue
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                if not self._is_paused:
                    _log.warning("%s: accepting pauses: %s", self.url, exc.strerror)
                self._is_paused = True
                return False
            if self._is_paused:
                _log.warning("%s: accepting again", self.url)
            self._is_paused = False
            on_connection(sock)
        return True

    def close(self) -> None:
        """Stop listening; a Unix socket's file goes, too."""
        self._accepting.cancel()
        if self._socket.fileno() < 0:
            return
        if self.url.scheme == UNIX:
            # Before closing: what takes no connections any more may be replaced by the next daemon's.
            try:
                os.unlink(self.url.path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                _log.warning("%s: the socket's file is left behind: %s", self.url, exc.strerror)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


def open_listeners(url: Url) -> list[Listener]:
    """Listen at `url`; TCP port 0 picks a free one. A host name may stand for several addresses; those that this
    machine has not are left out.

    Raises ListenError.
    """
    try:
        if url.scheme == UNIX:
            return [Listener(_listen_unix(url.path), url)]
        return _listen_tcp(url)
    except OSError as exc:
        raise ListenError(f"cannot listen on {url}: {_advice(exc)}") from exc


def _listen_tcp(url: Url) -> list[Listener]:
    listeners: list[Listener] = []
    absent: OSError | None = None
    tcp_port = url.tcp_port
    found = socket.getaddrinfo(url.host, tcp_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            host = str(address[0])
            try:
                sock = _bind_tcp(family, host, tcp_port)
            except OSError as exc:
                if exc.errno not in _ADDRESS_ABSENT:
                    raise
                absent = exc
            else:
                tcp_port = sock.getsockname()[1]  # the same for every address of the name
                listeners.append(Listener(sock, Url(url.scheme, host, tcp_port)))
        if not listeners and absent is not None:
            raise absent
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_tcp(family: int, host: str, tcp_port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, tcp_port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _listen_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, _SOCKET_MODE)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove the socket that a daemon left behind which was killed; leave one that somebody listens on."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return


def _advice(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "the address is in use (is another lptd running?)"
    if exc.errno == errno.EACCES:
        return "permission denied (a TCP port below 1024, or a folder that this user may not write?)"
    if exc.errno == errno.ENOENT:
        return "the socket's folder does not exist: create it, or name another path"
    return exc.strerror or str(exc)
