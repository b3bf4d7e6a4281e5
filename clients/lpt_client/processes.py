"""Processes: a port stays with the one that opened it, and is closed when that ends.

A forked child gets a copy of everything, the socket too. Whichever process read first would get the answer, and the
child's exit would end the session of its parent. So, before anything else runs in a child, it lets go of its copies of
the sockets (without sending a byte or shutting anything down: the parent notices nothing), and ends its copies of the
ports: their calls raise OtherProcess. The daemon then sees the parent's connection end when the parent does, however
long its children live.

Why not compare process numbers in each call: docs/adr/0018.
"""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn, Protocol
from weakref import WeakKeyDictionary, WeakSet

from lpt_client.errors import OtherProcess


class OpenPort(Protocol):
    """A port that is open in this process."""

    def disown(self, make_error: Callable[[], OtherProcess], /) -> None:
        """In a forked child: send nothing, wait for nothing; every call raises this error."""

    def leave_behind(self, source: object, /) -> None:
        """Close it if the program has not; `source` is what the program has left behind."""


class StaysHere:
    """An object that cannot be copied, or sent to another process."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} stays in the process that opened it; hand over its address, and open one there"
        )


_sockets: WeakSet[socket.socket] = WeakSet()
_ports: WeakKeyDictionary[OpenPort, int] = WeakKeyDictionary()  # → the process that opened it


def keep_from_children(sock: socket.socket) -> None:
    """Have forked children let go of their copies of this socket."""
    _sockets.add(sock)


def register(port: OpenPort) -> None:
    """Have this port refused in children, and closed at the end of the process."""
    _ports[port] = os.getpid()


def _let_go(sock: socket.socket) -> None:
    """Make this process' copy of a socket lead nowhere; its number stays taken until the socket is closed.

    Why not `close`: gevent's takes the socket out of an epoll, which a child has in common with its parent.
    """
    number = sock.fileno()
    if number < 0:
        return
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
    except OSError:  # no descriptor is to be had
        sock.close()
        return
    os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


def _after_fork_in_child() -> None:
    for sock in list(_sockets):
        _let_go(sock)
    _sockets.clear()
    for port, opened_in in list(_ports.items()):
        with suppress(Exception):  # of a loop that was left in the midst: every port has its turn
            port.disown(partial(OtherProcess, opened_in, os.getpid()))
    _ports.clear()


def _at_exit() -> None:
    # Later, the modules that closing needs may be gone.
    for port in list(_ports):
        port.leave_behind(port)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
