"""Who is at the other end of a connection: what the kernel, TLS and a token tell."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from ipaddress import IPv6Address, IPv6Network
from typing import Final, NamedTuple

from lpt_service.protocol.url import is_loopback
from lpt_service.server.addresses import host_of

_UCRED: Final = struct.Struct("iII")  # process, user, group
_SO_PEERGROUPS: Final = 59  # Linux; Python's socket module does not name it
_GID_BYTES: Final = 4
# What fits into the 1024 bytes that Python's getsockopt takes; who is in more groups is known by its own alone.
_GROUPS_MAX: Final = 256
_NAME_CHARACTERS_MAX: Final = 100


class Identity(NamedTuple):
    """Everything that is known of somebody, from several sources together. None of it: anonymous.

    Attributes:
        uid: the user at the other end of a Unix socket.
        gids: that user's groups.
        certificate: the name in a client's certificate that our authority has signed.
        token: the name of the `[[token]]` whose secret was given.
    """

    uid: int | None = None
    gids: frozenset[int] = frozenset()
    certificate: str | None = None
    token: str | None = None

    @property
    def is_anonymous(self) -> bool:
        """True when nothing is known."""
        return self == ANONYMOUS

    @property
    def is_local_administrator(self) -> bool:
        """Whether it is root, or the user that the daemon runs as: they could change its configuration, too."""
        return self.uid is not None and self.uid in (0, os.geteuid())

    def is_same(self, other: Identity) -> bool:
        """Whether it is the same one; groups may have changed."""
        return (self.uid, self.certificate, self.token) == (other.uid, other.certificate, other.token)

    def __str__(self) -> str:
        """For people and logs: `user:anna`, `cert:rig-2`, `token:stimulus PC`, joined by `+`; or `anonymous`."""
        parts: list[str] = []
        if self.uid is not None:
            parts.append(f"user:{_USER_NAMES.get(self.uid, self.uid)}")
        if self.certificate is not None:
            parts.append(f"cert:{self.certificate}")
        if self.token is not None:
            parts.append(f"token:{self.token}")
        return "+".join(parts) or "anonymous"


ANONYMOUS: Final = Identity()
# Names by number, as far as they have been asked for: asking may take long (LDAP), and no connection is to wait for it.
_USER_NAMES: Final[dict[int, str]] = {0: "root"}


class Origin(NamedTuple):
    """What is known of a connection before its first byte.

    Attributes:
        peer: where it comes from, for people.
        host: the address of the machine, or the user on a Unix socket.
        identity: who it is, as far as the kernel and TLS can tell.
        is_private: nobody on the way can read what is said.
    """

    peer: str
    host: str
    identity: Identity = ANONYMOUS
    is_private: bool = True

    @classmethod
    def of(cls, sock: socket.socket) -> Origin:
        """That of an accepted connection. Raises OSError if it is gone already."""
        if sock.family == socket.AF_UNIX:
            pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            gids = frozenset((gid, *_groups(sock)))
            return cls(f"uid {uid} pid {pid}", f"user {uid}", Identity(uid=uid, gids=gids))
        name = sock.getpeername()
        host, port = host_of(name), name[1]
        host = host.removeprefix("::ffff:")
        return cls(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", host, is_private=is_loopback(host))

    @property
    def counted_as(self) -> str:
        """What counts as one address: of IPv6 a network of 64 bits, of which one machine takes as many as it likes.

        Not so those of one link, where many machines have one such network.
        """
        if ":" not in self.host:
            return self.host
        address = IPv6Address(self.host)
        if address.is_link_local or address.is_loopback:
            return self.host
        return str(IPv6Network((int(address) >> 64 << 64, 64)))

    def with_certificate(self, name: str | None) -> Origin:
        """The same connection once TLS is on it."""
        return self._replace(identity=self.identity._replace(certificate=name and readable(name)), is_private=True)


def remember_user(name: str) -> int | None:
    """The number of a user, and from now on the number's name; None if there is none. May ask the network."""
    try:
        uid = int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # the latter for what no name can be
        return None
    if not name.isdigit():
        _USER_NAMES[uid] = name
    return uid


def readable(text: str) -> str:
    """Somebody else's text, fit for a line of a log: printable, of bounded length."""
    return "".join(each if each.isprintable() else "?" for each in text[:_NAME_CHARACTERS_MAX])


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """All groups of the user at the other end, as the kernel had them when it connected."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX * _GID_BYTES)
    except OSError:  # more than these, or another kernel
        return ()
    return struct.unpack(f"{len(data) // _GID_BYTES}I", data)
