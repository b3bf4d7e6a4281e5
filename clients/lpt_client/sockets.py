"""Sockets of a client: their options, and connecting them. Runs on any system; what a system lacks is left out."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Generator
from typing import Any, Final, NamedTuple

from lpt_client.errors import ConnectFailed
from lpt_client.names import Addresses, LookUp, numeric
from lpt_client.processes import keep_from_children
from lpt_client.waits import Attempt, Readiness, Step
from lpt_service.protocol import tcp_info
from lpt_service.protocol.url import TLS, UNIX, Url, lacks_zone, split_zone

# A daemon that cannot be reached any more is noticed within this; the daemon gives its clients as long.
DEAD_PEER_S: Final = 15
_KEEPALIVE_IDLE_S: Final = 5
_KEEPALIVE_INTERVAL_S: Final = 5
_KEEPALIVE_PROBES: Final = (DEAD_PEER_S - _KEEPALIVE_IDLE_S) // _KEEPALIVE_INTERVAL_S

# What a connect says that goes on while nobody waits for it; the second is Windows' word.
_UNDER_WAY: Final = (errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS))

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


def set_options(sock: socket.socket, *, is_watched: bool = False) -> None:
    """No delay of small frames; keep-alive and a bound on unacknowledged data, so that a dead peer is noticed.

    `is_watched`: somebody asks `is_unreachable` now and then. Then no daemon is taken for dead that does not read
    because this program does not read its answers: the kernel's own bound would do that.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", _KEEPALIVE_IDLE_S),  # what macOS calls it
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", 0 if is_watched and sys.platform == "linux" else DEAD_PEER_S * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            # An older Windows knows the name and not the option; the others still help.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if is_watched and sys.platform == "linux":
        with contextlib.suppress(OSError):  # an older kernel
            sock.setsockopt(socket.IPPROTO_TCP, tcp_info.TCP_OPTION_RTO_CEILING, DEAD_PEER_S * 1000 // 3)


def is_unreachable(sock: socket.socket) -> bool:
    """Whether the daemon's kernel was asked for a sign of life, and has given none for DEAD_PEER_S.

    Only Linux tells; elsewhere, and of a Unix socket, this is False.
    """
    if sys.platform == "linux":
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, tcp_info.TCP_INFO_BYTES)
        return tcp_info.is_unreachable(info, DEAD_PEER_S)
    else:
        return False


def check_supported(url: Url) -> None:
    """Raise ConnectFailed for an address that this system or this version cannot connect to."""
    if url.scheme == TLS and importlib.util.find_spec("_ssl") is None:
        raise ConnectFailed(f"{url}: this Python was built without TLS; use another one, or lpt:// or lpt+unix://")
    if url.scheme == UNIX and not hasattr(socket, "AF_UNIX"):
        raise ConnectFailed(f"{url}: this system has no Unix sockets; use lpt://host:5378/LPT1")


def connect_socket(url: Url, deadline_s: float) -> socket.socket:
    """A connected socket, or ConnectFailed. `deadline_s` is a time of `time.monotonic()`."""
    sock = Attempt(connecting(url, deadline_s), deadline_s).go_on()
    assert sock is not None, "an attempt that is not left halfway succeeds or raises"
    return sock


def connecting(url: Url, deadline_s: float) -> Generator[Step, Any, socket.socket]:
    """The steps to a connected socket, or ConnectFailed.

    The name is looked up, then every address of it is tried, in order, and each has an equal part of the time that is
    left: one that does not answer leaves some for the next.
    """
    check_supported(url)
    error: OSError = TimeoutError()
    try:
        addresses = yield from _addresses(url)
        for done, (family, address) in enumerate(addresses):
            now_s = time.monotonic()
            try:
                return (
                    yield from _connect_one(family, address, now_s + (deadline_s - now_s) / (len(addresses) - done))
                )
            except OSError as exc:
                error = exc
    except OSError as exc:
        error = exc  # the look-up failed
    except UnicodeError as exc:
        raise bad_host(url) from exc
    raise ConnectFailed(f"{url}: {why(error)}{hint(url, error)}") from error


def hint(url: Url, error: BaseException) -> str:
    """What to add to the reason: there is no such socket, or a link-local address names no interface that is here."""
    if url.scheme == UNIX and isinstance(error, FileNotFoundError):
        return " (there is no such socket; is the daemon running?)"
    zone = split_zone(url.host)[1]
    if lacks_zone(url.host):
        return f" (a link-local address needs its interface, as in [{url.host}%eth0])"
    if zone and not zone.isdecimal():
        try:
            socket.if_nametoindex(zone)
        except OSError:
            return f" (there is no interface {zone} here)"
    return ""


def bad_host(url: Url) -> ConnectFailed:
    """The error for a host that cannot be looked up at all, for which Python raises UnicodeError."""
    return ConnectFailed(f"{url}: {url.host!r} cannot be a host's name: a part is empty or too long, or odd")


def _addresses(url: Url) -> Generator[Step, Any, Addresses]:
    """Families and addresses to try, in order."""
    if url.scheme == UNIX:
        return [(getattr(socket, "AF_UNIX"), url.path)]  # noqa: B009 - mypy, as on Windows, knows no AF_UNIX
    known = numeric(url.host, url.tcp_port)
    if known is not None:
        return known
    found: Addresses = yield LookUp.of(url.host, url.tcp_port).wait
    return found


def _connect_one(family: int, address: Any, deadline_s: float) -> Generator[Step, Any, socket.socket]:
    if time.monotonic() >= deadline_s:
        raise TimeoutError
    sock = socket.socket(family, socket.SOCK_STREAM)
    keep_from_children(sock)
    try:
        sock.setblocking(False)
        error = sock.connect_ex(address)
        if error in _UNDER_WAY:
            writable = Readiness(sock, to_write=True)
            yield lambda until_s: writable.wait(min(until_s, deadline_s))
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            words = getattr(socket, "errorTab", {})  # on Windows, whose strerror does not know them
            raise OSError(error, words.get(error) or os.strerror(error))
        set_options(sock)
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
