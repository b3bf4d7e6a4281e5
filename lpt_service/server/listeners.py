"""A listening socket: accepting, and what to do when no more can be let in."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import trio

from lpt_service.protocol.url import TLS, Url
from lpt_service.server.addresses import ANY_HOSTS, BACKLOG, Address

_ACCEPTS_A_TURN: Final = 32
# Out of descriptors or memory: wait until somebody leaves, rather than spin.
_OUT_OF_RESOURCES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_OUT_OF_RESOURCES_PAUSE_S: Final = 0.25
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
_log = logging.getLogger(__name__)


class Listener:
    """One listening socket.

    Attributes:
        address: what it is bound to, with the TCP port that it really has.
        wanted: what it was to be bound to.
        socket: for options; it is never read from here.
        is_tls: whether those who come have to speak TLS; it may change where systemd has the socket.
        allow_from: networks from which clients may come; None: from anywhere.
        is_inherited: systemd has it, too, so that a Unix socket's file is not ours to remove.
    """

    def __init__(
        self,
        sock: socket.socket,
        wanted: Address | None = None,
        *,
        is_inherited: bool = False,
        is_tls: bool = False,
    ) -> None:
        self.address = Address.of(sock)
        self.wanted = self.address if wanted is None else wanted
        self.socket = sock
        self.is_inherited = is_inherited
        self.is_tls = is_tls
        self.allow_from: tuple[str, ...] | None = None
        self._accepting = trio.CancelScope()
        self._is_paused = False
        sock.setblocking(False)

    @property
    def url(self) -> Url:
        """Under which clients reach it."""
        return replace(self.address.url, scheme=TLS) if self.is_tls else self.address.url

    async def accept_forever(self, on_connection: Callable[[socket.socket], None]) -> None:
        """Hand every connection to `on_connection`, until closed.

        Error handling: a connection that is gone before it is accepted is skipped. Out of descriptors or memory,
        accepting pauses (the kernel keeps those who come), and goes on when there is room. Anything else is raised.
        """
        with self._accepting:
            while not self._accepting.cancel_called:
                await trio.lowlevel.wait_readable(self.socket)
                if not self._accept_some(on_connection):
                    await trio.sleep(_OUT_OF_RESOURCES_PAUSE_S)

    def _accept_some(self, on_connection: Callable[[socket.socket], None]) -> bool:
        """Accept those who are here, a turn's worth; False when there is no room for them."""
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, _ = self.socket.accept()
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

    def serves(self, address: Address) -> bool:
        """Whether clients of `address` come in here: the same address, or one that stands for it among others."""
        mine = self.address
        if mine == address or mine.family == socket.AF_UNIX:
            return mine == address
        if mine.tcp_port != address.tcp_port:
            return False
        if mine.host == "::" and address.family == socket.AF_INET:
            return not self.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return mine.host in ANY_HOSTS and mine.family == address.family

    def retire(self, on_connection: Callable[[socket.socket], None]) -> None:
        """Close, but let in first those who are connected already as they see it."""
        self._accepting.cancel()
        self._remove_file()
        for _ in range(BACKLOG // _ACCEPTS_A_TURN):
            self._accept_some(on_connection)
        self.close()

    def close(self) -> None:
        """Stop listening; the file of a Unix socket of our own goes, too."""
        self._accepting.cancel()
        if self.socket.fileno() < 0:
            return
        self._remove_file()
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    def _remove_file(self) -> None:
        # Before closing: what takes no connections any more may be replaced by the next daemon's.
        if self.address.family != socket.AF_UNIX or self.is_inherited:
            return
        try:
            os.unlink(self.address.host)
        except FileNotFoundError:
            pass
        except OSError as exc:
            _log.warning("%s: the socket's file is left behind: %s", self.url, exc.strerror)
