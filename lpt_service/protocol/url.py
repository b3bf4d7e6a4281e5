"""Addresses of daemons and ports, as URLs.

    lpt://host:5378/LPT1                     TCP
    lpts://host:5378/LPT1                    TLS over TCP
    lpt+unix:///run/lptd/lptd.sock#LPT1      a Unix socket
    lpt://[fe80::1%eth0]:5378/LPT1           an address of one link, with its interface (%25eth0 is read, too)

The port's name may be left out where the daemon has one port, the TCP port where it is 5378.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv6Address, ip_address
from urllib.parse import quote, unquote, urlsplit

from lpt_service.protocol.errors import UrlError
from lpt_service.protocol.messages import DEFAULT_TCP_PORT, DEFAULT_UNIX_SOCKET

TCP, TLS, UNIX = "lpt", "lpts", "lpt+unix"
# A path may have bytes that are not UTF-8.
_quote, _unquote = partial(quote, errors="surrogateescape"), partial(unquote, errors="surrogateescape")
_EXAMPLES = "lpt://host:5378/LPT1, lpts://host:5378/LPT1 or lpt+unix:///run/lptd/lptd.sock#LPT1"


@dataclass(frozen=True)
class Url:
    """Where a daemon listens, and which of its ports is meant.

    `host` and `tcp_port` are used by lpt and lpts, `path` by lpt+unix. `port_name` is None where the URL names none.
    """

    scheme: str
    host: str = ""
    tcp_port: int = DEFAULT_TCP_PORT
    path: str = ""
    port_name: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach it; False for a name, but `localhost`."""
        return self.scheme == UNIX or is_loopback(self.host)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read a URL. Raises UrlError, which names the wrong part and shows a good one."""
        try:
            parts = urlsplit(text)
            tcp_port = parts.port
        except ValueError as exc:
            raise UrlError(f"{text!r}: {exc}; expected for example {_EXAMPLES}") from exc
        if parts.scheme not in (TCP, TLS, UNIX):
            raise UrlError(f"{text!r}: unknown scheme {parts.scheme!r}; expected for example {_EXAMPLES}")
        if parts.username is not None or parts.password is not None or parts.query:
            raise UrlError(f"{text!r}: no user, password or query belongs in it; expected for example {_EXAMPLES}")
        if parts.scheme == UNIX:
            if parts.netloc or not parts.path.startswith("/"):
                raise UrlError(f"{text!r}: the socket's path must be absolute; expected for example {_EXAMPLES}")
            path = _unquote(parts.path)
            if "\0" in path:
                raise UrlError(f"{text!r}: no path has a zero byte; expected for example {_EXAMPLES}")
            return cls(UNIX, path=path, port_name=_unquote(parts.fragment) or None)
        if not parts.hostname:
            raise UrlError(f"{text!r}: no host; expected for example {_EXAMPLES}")
        host = _read_zone(text, parts.hostname)
        name = _unquote(parts.path).strip("/")
        if "/" in name or parts.fragment:
            raise UrlError(f"{text!r}: one port name belongs after the host; expected for example {_EXAMPLES}")
        return cls(parts.scheme, host, DEFAULT_TCP_PORT if tcp_port is None else tcp_port, "", name or None)

    def with_port_name(self, name: str | None) -> Url:
        """The same daemon, another port."""
        return replace(self, port_name=name)

    def __str__(self) -> str:
        name = _quote(self.port_name or "")
        if self.scheme == UNIX:
            return f"{UNIX}://{_quote(self.path)}" + (f"#{name}" if name else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.tcp_port}" + (f"/{name}" if name else "")


DEFAULT_URL = Url(UNIX, path=DEFAULT_UNIX_SOCKET)


def is_loopback(host: str) -> bool:
    """Whether a numeric address (or `localhost`) is this machine's own."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address.is_loopback if mapped is None else mapped.is_loopback


def split_zone(host: str) -> tuple[str, str]:
    """A numeric address, and its zone: the interface, on whose link alone it is; empty where there is none."""
    number, _, zone = host.partition("%")
    return number, zone


def lacks_zone(host: str) -> bool:
    """Whether it is an IPv6 address of a link, and does not say of which: each interface has such."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address.is_link_local and "%" not in host


def _read_zone(text: str, host: str) -> str:
    """A URL's host: RFC 6874 wants %25 where people, and RFC 9844, write % before a zone."""
    number, zone = split_zone(host)
    if "%" not in host:
        return host
    if zone.startswith("25") and zone != "25":  # that alone is an interface's number
        zone = _unquote(zone[2:])
    if ":" not in number or not zone:
        raise UrlError(
            f"{text!r}: % stands between an IPv6 address and its interface, as in [fe80::1%eth0]; "
            f"expected for example {_EXAMPLES}"
        )
    return f"{number}%{zone}"
