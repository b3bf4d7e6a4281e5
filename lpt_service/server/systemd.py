"""What systemd hands to the daemon and is told by it: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).

The protocols are a few variables of the environment and datagrams of text; a library would be more to install than to
write. Where systemd has not started the process, nothing is handed over and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, NamedTuple

from lpt_service.protocol.errors import LptError

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_SOCKETS_MAX: Final = 64
_VARIABLES: Final = (
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "STATE_DIRECTORY",
)
_log = logging.getLogger(__name__)


class HandoverError(LptError):
    """systemd has handed over what a daemon cannot use: the text says what, and which unit to change."""


class Notifier:
    """Tells the service manager of states, without ever waiting. Without an address it is silent.

    Resource handling: one datagram socket, made at once, so that a daemon out of descriptors still gives signs of life.

    Attributes:
        failures: how many messages were not taken.
    """

    def __init__(self, address: str = "") -> None:
        self.failures = 0
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: the abstract namespace
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._socket is not None

    def notify(self, *assignments: str) -> bool:
        """Send `KEY=value` texts as one message; whether it was taken.

        A line break in a value becomes a space: a client's name must not become an assignment.
        """
        if self._socket is None:
            return False
        message = "\n".join(" ".join(each.splitlines()) for each in assignments)
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError as exc:
            if not self.failures:
                _log.warning("systemd does not hear what it is told (said once): %s", exc.strerror)
            self.failures += 1
            return False
        return True

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Handover(NamedTuple):
    """What systemd has handed to this process; by default nothing.

    Attributes:
        sockets: listening sockets, in the order of the unit.
        notifier: tells the service manager.
        watchdog_s: after so many seconds without a sign of life the service manager kills the process; None: never.
        state_directory: the folder of StateDirectory=.
    """

    sockets: tuple[socket.socket, ...] = ()
    notifier: Notifier = Notifier()
    watchdog_s: float | None = None
    state_directory: Path | None = None


def take_over(environ: MutableMapping[str, str] = os.environ, first_descriptor: int = _FIRST_DESCRIPTOR) -> Handover:
    """Take what was handed to this process, and remove it from the environment: it is nobody else's.

    Raises HandoverError.
    """
    given = {name: environ.pop(name, "") for name in _VARIABLES}
    me = str(os.getpid())
    watchdog_s = None
    if given["WATCHDOG_USEC"] and given["WATCHDOG_PID"] in ("", me):
        watchdog_s = _number(given, "WATCHDOG_USEC") / 1e6
    return Handover(
        _take_sockets(given, first_descriptor) if given["LISTEN_PID"] == me else (),
        Notifier(given["NOTIFY_SOCKET"]),
        watchdog_s or None,
        Path(given["STATE_DIRECTORY"].split(":")[0]) if given["STATE_DIRECTORY"] else None,
    )


def _take_sockets(given: dict[str, str], first: int) -> tuple[socket.socket, ...]:
    count = _number(given, "LISTEN_FDS")
    if count > _SOCKETS_MAX:
        raise HandoverError(f"systemd hands in {count} sockets; {_SOCKETS_MAX} is the limit: change lptd.socket")
    names = given["LISTEN_FDNAMES"].split(":")
    sockets: list[socket.socket] = []
    try:
        for number in range(count):
            name = (names[number] if number < len(names) else "") or "unnamed"
            sockets.append(_take_socket(first + number, name))
    except HandoverError:
        for each in sockets:
            each.close()
        raise
    return tuple(sockets)


def _take_socket(descriptor: int, name: str) -> socket.socket:
    what = f"descriptor {descriptor} ({name}), which systemd hands in,"
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise HandoverError(f"{what} is no socket: {exc.strerror}") from exc
    try:
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise HandoverError(f"{what} is no listening stream socket: lptd.socket needs ListenStream= and Accept=no")
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise HandoverError(f"{what} is of a family that is not served: use TCP or a Unix socket")
        if sock.family == socket.AF_UNIX and not str(sock.getsockname()).startswith("/"):
            raise HandoverError(f"{what} has no path: ListenStream= must be an absolute one")
    except HandoverError:
        sock.close()
        raise
    return sock


def _number(given: dict[str, str], name: str) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise HandoverError(f"{name}={given[name]}, which systemd should have set, is no number") from None
