"""All listeners of a daemon: those that systemd hands in, and those of the configuration, which a reload may change.

systemd's are there first and stay: they outlive the daemon, so that nobody is refused while it restarts.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import trio

from lpt_service.config import ListenerConfig, exposure_problem
from lpt_service.protocol.errors import LptError
from lpt_service.protocol.url import TLS, Url
from lpt_service.server.addresses import ANY_HOSTS, RESOLVE_TIMEOUT_S, Address, advice, bind, resolve, sharing
from lpt_service.server.listeners import Listener

_FREE_PORT_TRIES: Final = 16  # a TCP port that is free at one address of a name may be taken at the next
# One address of several that a name has (`localhost` where there is no IPv6): the others do.
_ADDRESS_ABSENT: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


class ListenError(LptError):
    """Listeners could not be opened. `problems` says which, why, and what to do, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Change(NamedTuple):
    """What becomes of the configured listeners.

    Attributes:
        listeners: those from now on.
        opened: those of them that are new.
        leaving: those that are not named any more.
        unnamed: those of systemd's that the configuration does not name; they stay.
        tls: those of systemd's that it names as lpts://.
        settings: what the configuration says of each that it names.
    """

    listeners: list[Listener]
    opened: list[Listener]
    leaving: list[Listener]
    unnamed: list[Listener]
    tls: list[Listener]
    settings: dict[Listener, ListenerConfig]

    def give_up(self) -> None:
        """Close what was opened; everything is as before."""
        for listener in self.opened:
            listener.close()


class _Wanted(NamedTuple):
    """One item of the configuration: where it stands, its listeners that are there, its addresses that are missing."""

    settings: ListenerConfig
    path: str
    url: Url
    found: list[Listener]
    missing: list[Address]


class ListenerSet:
    """Iterates over all listeners.

    Resource handling: owns the sockets, those of systemd too.
    """

    def __init__(self, inherited: Sequence[socket.socket] = ()) -> None:
        self.inherited = tuple(Listener(sock, is_inherited=True) for sock in inherited)
        self._configured: list[Listener] = []

    def __iter__(self) -> Iterator[Listener]:
        yield from self.inherited
        yield from self._configured

    async def prepare(self, items: Sequence[ListenerConfig], is_open: Callable[[bool], bool]) -> Change:
        """Open what `items` name and nobody listens on yet; close nothing. `commit` or `Change.give_up` must follow.

        A listener stays if its address is named again, whichever way. A host name may stand for several addresses;
        those that this machine has not are left out. TCP port 0 picks a free one, the same for all addresses of a name.

        `is_open(is_tls)`: whether anybody who reaches a listener could use a port there; then it must be this machine's
        own, unless its item says `insecure`.

        Raises ListenError with every problem; nothing has changed then.
        """
        problems: list[str] = []
        leaving = list(self._configured)
        resolved: list[tuple[ListenerConfig, str, Url, list[Address]]] = []
        deadline = trio.current_time() + RESOLVE_TIMEOUT_S
        for index, item in enumerate(items):
            path, url = f"server.listen[{index}]", Url.parse(item.url)
            try:
                resolved.append((item, path, url, await resolve(url, deadline)))
            except OSError as exc:
                problems.append(f"{path}: cannot listen on {url}: {advice(exc)}")
        wanted = [self._find(*each, leaving) for each in resolved]
        plain = [listener for each in wanted for listener in each.found if each.url.scheme != TLS]
        tls = [listener for each in wanted for listener in each.found if each.url.scheme == TLS]
        unnamed = [each for each in self.inherited if each not in plain and each not in tls]
        change = Change([], [], leaving, unnamed, [each for each in tls if each.is_inherited], {})
        problems += [f"server.listen: both lpt:// and lpts:// name {each.address.url}" for each in tls if each in plain]
        with sharing(listener.socket for listener in leaving) as is_shared:
            for each in wanted:
                try:
                    change.opened.extend(_open(each, is_shared))
                except OSError as exc:
                    problems.append(f"{each.path}: cannot listen on {each.url}: {self._explain(exc, each, wanted)}")
        problems += _settle(change, wanted)
        problems += self._exposed(change, is_open)
        if problems:
            change.give_up()
            raise ListenError(problems)
        change.listeners.extend(listener for each in wanted for listener in each.found if not listener.is_inherited)
        return change

    def _exposed(self, change: Change, is_open: Callable[[bool], bool]) -> Iterator[str]:
        """Those of systemd's that let in more than is allowed; of its own items the configuration has seen to that."""
        for each in self.inherited:
            settings = change.settings.get(each)
            is_tls = each in change.tls
            if not each.address.url.is_local and not (settings and settings.insecure) and is_open(is_tls):
                yield f"systemd's socket: {exposure_problem(each.address.url)} (name it in server.listen for that)"

    def commit(self, change: Change) -> None:
        """Let `change.listeners` be the configured ones; those that leave are the caller's to close."""
        self._configured = list(change.listeners)
        for listener in self.inherited:
            listener.is_tls = listener in change.tls
        for listener in self:
            settings = change.settings.get(listener)
            listener.allow_from = None if settings is None else settings.allow_from

    def close(self) -> None:
        """Stop listening; on what systemd has handed in, it goes on listening."""
        for listener in self:
            listener.close()

    def _find(
        self, settings: ListenerConfig, path: str, url: Url, addresses: list[Address], left: list[Listener]
    ) -> _Wanted:
        """Take the listeners of a URL out of `left`."""
        wanted = _Wanted(settings, path, url, [], [])
        mine = [each for each in left if each.is_tls == (url.scheme == TLS)]
        for address in addresses:
            listener = next((each for each in self.inherited if each.serves(address)), None)
            if listener is None:
                listener = next((each for each in mine if address in (each.wanted, each.address)), None)
                if listener is not None:
                    mine.remove(listener)
                    left.remove(listener)
            if listener is None:
                wanted.missing.append(address)
            else:
                wanted.found.append(listener)
        return wanted

    def _explain(self, exc: OSError, wanted: _Wanted, everything: list[_Wanted]) -> str:
        """Why it cannot be listened on; names another listener of this daemon that is in the way."""
        if exc.errno == errno.EADDRINUSE:
            for listener in (*self.inherited, *(found for each in everything for found in each.found)):
                address = next((each for each in wanted.missing if each.overlaps(listener.address)), None)
                if address is None:
                    continue
                how = "includes" if address.host in ANY_HOSTS else "is covered by"
                if listener.is_inherited:
                    way_out = "take another TCP port, such as 5379, or change lptd.socket"
                    return f"it {how} {listener.url}, which systemd holds for this daemon: {way_out}"
                return f"it {how} {listener.url}, which the same list names"
        return advice(exc)


def _settle(change: Change, wanted: list[_Wanted]) -> Iterator[str]:
    """Note what the configuration says of each listener; a wide one of systemd's may stand for several items."""
    for each in wanted:
        for listener in each.found:
            first = change.settings.setdefault(listener, each.settings)
            if (first.allow_from, first.insecure) != (each.settings.allow_from, each.settings.insecure):
                yield f"{each.path}: systemd's {listener.address.url} is named twice, with other allow_from or insecure"


def _open(wanted: _Wanted, is_shared: bool) -> list[Listener]:
    """Open what is missing, and add it to what is found. Raises OSError; nothing is left open then."""
    for tries_left in reversed(range(_FREE_PORT_TRIES)):
        try:
            return _try_to_open(wanted, is_shared)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or wanted.url.tcp_port or not tries_left:
                raise
    raise AssertionError("unreachable")


def _try_to_open(wanted: _Wanted, is_shared: bool) -> list[Listener]:
    opened: list[Listener] = []
    absent: OSError | None = None
    try:
        for address in wanted.missing:
            # TCP port 0: what the first address of the name has got is that of the others.
            tcp_port = next((each.address.tcp_port for each in (*wanted.found, *opened)), address.tcp_port)
            try:
                sock = bind(address._replace(tcp_port=tcp_port), shared=is_shared)
            except OSError as exc:
                if exc.errno not in _ADDRESS_ABSENT:
                    raise
                absent = exc
            else:
                opened.append(Listener(sock, address, is_tls=wanted.url.scheme == TLS))
        if absent is not None and not opened and not wanted.found:
            raise absent
    except OSError:
        for listener in opened:
            listener.close()
        raise
    wanted.found.extend(opened)
    return opened
