"""Sockets of a client: their options, and connecting them. Runs on any system; what a system lacks is left out."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import struct
import sys
import time
from typing import Any, Final, NamedTuple, Protocol

from lpt_client.errors import ConnectFailed
from lpt_service.protocol.url import TLS, UNIX, Url

# A daemon that cannot be reached any more is noticed within this; the daemon gives its clients as long.
DEAD_PEER_S: Final = 15
_KEEPALIVE_IDLE_S: Final = 5
_KEEPALIVE_INTERVAL_S: Final = 5
_KEEPALIVE_PROBES: Final = (DEAD_PEER_S - _KEEPALIVE_IDLE_S) // _KEEPALIVE_INTERVAL_S

RECEIVE_BYTES: Final = 64 * 1024  # a receive, at most: as much as the daemon sends in one slice of its log


class TlsOptions(NamedTuple):
    """Files in PEM for lpts://.

    Attributes:
        ca: of the authorities whose daemons are believed; None: those that the system believes.
        certificate: by which the daemon knows this client; None: none is shown.
        key: of the certificate; None: it is in the same file.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


class TlsFailed(ConnectionError):  # noqa: N818 - a cause of ConnectFailed, and called like it
    """TLS failed; the text says why, and what to do."""


class ByteSocket(Protocol):
    """What a link needs of its socket: a socket.socket, or a TlsSocket."""

    def recv(self, size: int, /) -> bytes | None:
        """What has come, or comes next; nothing at the end, None if it is not yet anything to read."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""

    def settimeout(self, value: float | None, /) -> None:
        """As of a socket."""

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        """As of a socket."""

    def fileno(self) -> int:
        """As of a socket."""

    def close(self) -> None:
        """As of a socket."""


def set_options(sock: socket.socket) -> None:
    """No delay of small frames; keep-alive and a bound on unacknowledged data, so that a dead peer is noticed."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", _KEEPALIVE_IDLE_S),  # what macOS calls it
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", DEAD_PEER_S * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            # An older Windows knows the name and not the option; the others still help.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def bound_waits(sock: ByteSocket, seconds: float) -> bool:
    """Let the kernel end every single receive and send of a blocking socket after `seconds`; False if it cannot.

    Why not `settimeout`: with it Python asks the kernel twice for each receive and send.
    """
    for value in _timeval_forms(seconds):
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        except OSError:
            continue
        return True
    return False


def _timeval_forms(seconds: float) -> tuple[int | bytes, ...]:
    """A time as SO_RCVTIMEO takes it: DWORD milliseconds on Windows, elsewhere a struct timeval of either size."""
    if sys.platform == "win32":
        return (max(1, int(seconds * 1000)),)
    else:
        whole, micros = int(seconds), int(seconds % 1 * 1_000_000)
        return struct.pack("@ll", whole, micros), struct.pack("@qq", whole, micros)


def check_supported(url: Url) -> None:
    """Raise ConnectFailed for an address that this system or this version cannot connect to."""
    if url.scheme == TLS and importlib.util.find_spec("_ssl") is None:
        raise ConnectFailed(f"{url}: this Python was built without TLS; use another one, or lpt:// or lpt+unix://")
    if url.scheme == UNIX and not hasattr(socket, "AF_UNIX"):
        raise ConnectFailed(f"{url}: this system has no Unix sockets; use lpt://host:5378/LPT1")


def connect_socket(url: Url, deadline_s: float) -> socket.socket:
    """A connected blocking socket, or ConnectFailed. `deadline_s` is a time of `time.monotonic()`.

    Every address of the host is tried, in order, within the one deadline (the name's look-up has the system's own).
    """
    check_supported(url)
    error: OSError = TimeoutError()
    try:
        for family, address in _addresses(url):
            try:
                return _connect_one(family, address, deadline_s)
            except OSError as exc:  # noqa: PERF203 - a handful of addresses
                error = exc
    except OSError as exc:
        error = exc  # the look-up failed
    except UnicodeError as exc:
        raise bad_host(url) from exc
    raise ConnectFailed(f"{url}: {why(error)}") from error


def bad_host(url: Url) -> ConnectFailed:
    """The error for a host that cannot be looked up at all, for which Python raises UnicodeError."""
    return ConnectFailed(f"{url}: {url.host!r} cannot be a host's name: a part is empty or too long, or odd")


def _addresses(url: Url) -> list[tuple[int, Any]]:
    """Families and addresses to try, in order."""
    if url.scheme == UNIX:
        return [(getattr(socket, "AF_UNIX"), url.path)]  # noqa: B009 - mypy, as on Windows, knows no AF_UNIX
    found = socket.getaddrinfo(url.host, url.tcp_port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _connect_one(family: int, address: Any, deadline_s: float) -> socket.socket:
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(remaining_s)
        sock.connect(address)
        set_options(sock)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def why(error: BaseException) -> str:
    """The reason of an I/O error, in words."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "timed out"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.strerror is None else error.strerror
    return str(error) or type(error).__name__


def default_client_name() -> str:
    """How a program calls itself in hello unless it says otherwise: its file's name and its process number."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    if name == "__main__.py":
        name = os.path.basename(folder)
    return f"{(name if name not in ('', '-c', '-m') else 'python')[:100]}[{os.getpid()}]"
