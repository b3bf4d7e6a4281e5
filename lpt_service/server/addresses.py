"""Addresses to listen on: what a URL stands for, and binding a socket to it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import trio

from lpt_service.protocol.url import TCP, UNIX, Url, split_zone

RESOLVE_TIMEOUT_S: Final = 5.0  # for all names of a configuration together
BACKLOG: Final = 1024  # connections that the kernel holds until they are accepted
_SOCKET_MODE: Final = 0o660
ANY_HOSTS: Final = ("0.0.0.0", "::")  # noqa: S104 - what systemd or the configuration listens on is compared with it


class Address(NamedTuple):
    """What a socket is bound to. TCP port 0 stands for a free one.

    `host` is a number, with its zone if it is of one link (`fe80::1%eth0`), or a Unix socket's path.
    """

    family: int
    host: str
    tcp_port: int = 0

    @classmethod
    def of(cls, sock: socket.socket) -> Address:
        """What a bound socket has."""
        name = sock.getsockname()
        return cls(sock.family, name) if sock.family == socket.AF_UNIX else cls(sock.family, host_of(name), name[1])

    @property
    def url(self) -> Url:
        """Under which clients reach it."""
        return Url(UNIX, path=self.host) if self.family == socket.AF_UNIX else Url(TCP, self.host, self.tcp_port)

    def overlaps(self, other: Address) -> bool:
        """Whether both cannot be listened on: the same TCP port of one host, or of all hosts of a family."""
        if self.family == socket.AF_UNIX or (self.family, self.tcp_port) != (other.family, other.tcp_port):
            return False
        return self.host == other.host or not {self.host, other.host}.isdisjoint(ANY_HOSTS)


def host_of(name: tuple[Any, ...]) -> str:
    """The address in what Python tells of a TCP socket's end; with its zone, which is a number there, if it has one."""
    host, _ = split_zone(name[0])
    zone = name[3] if len(name) > 3 else 0
    if not zone:
        return host
    try:
        return f"{host}%{socket.if_indextoname(zone)}"
    except OSError:  # the interface is gone
        return f"{host}%{zone}"


def _zone_index(zone: str) -> int:
    """The number of an interface, 0 for none. Raises OSError."""
    if not zone or zone.isdecimal():
        return int(zone or 0)
    try:
        return socket.if_nametoindex(zone)
    except OSError as exc:
        raise OSError(errno.ENODEV, f"there is no interface {zone} (`ip link` lists them)") from exc


async def resolve(url: Url, deadline: float) -> list[Address]:
    """The addresses of a URL; a host name may stand for several.

    Raises OSError, also when nobody has answered by `deadline` (trio's time).
    """
    if url.scheme == UNIX:
        return [Address(socket.AF_UNIX, url.path)]
    _zone_index(split_zone(url.host)[1])
    with trio.CancelScope(deadline=deadline):
        found = await trio.socket.getaddrinfo(url.host, url.tcp_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return list(dict.fromkeys(Address(int(family), host_of(name), url.tcp_port) for family, _, _, _, name in found))
    raise OSError(errno.ETIMEDOUT, f"the name was not resolved within {RESOLVE_TIMEOUT_S:g} s")


def bind(address: Address, *, shared: bool = False) -> socket.socket:
    """A socket that listens there. `shared`: beside sockets that are in `sharing`. Raises OSError."""
    if address.family == socket.AF_UNIX:
        return _bind_unix(address.host)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        host, zone = split_zone(address.host)
        at = (host, address.tcp_port)
        sock.bind((*at, 0, _zone_index(zone)) if address.family == socket.AF_INET6 else at)
        sock.listen(BACKLOG)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, False)
    except OSError:
        sock.close()
        raise
    return sock


@contextmanager
def sharing(sockets: Iterable[socket.socket]) -> Iterator[bool]:
    """Let new sockets take addresses that overlap those of `sockets`: 0.0.0.0 and 127.0.0.1 can then be exchanged
    without a moment in which nobody listens. Whether there is any socket to share with.
    """
    tcp = [each for each in sockets if each.family != socket.AF_UNIX]
    for each in tcp:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    try:
        yield bool(tcp)
    finally:
        for each in tcp:  # otherwise another daemon of the same user could listen there, too
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, False)


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, _SOCKET_MODE)
        sock.listen(BACKLOG)
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


def advice(exc: OSError) -> str:
    """Why an address could not be listened on, and what to do."""
    if exc.errno == errno.EADDRINUSE:
        return "the address is in use (is another lptd running?)"
    if exc.errno == errno.EACCES:
        return "permission denied (a TCP port below 1024, or a folder that this user may not write?)"
    if exc.errno == errno.ENOENT:
        return "the socket's folder does not exist: create it, or name another path"
    return exc.strerror or str(exc)
