"""Who may come in: connections are counted before a word is said, and hello is checked.

Until somebody is known, nothing is told of ports, owners, versions or other clients: the checks that need to know them
come after the one of identity.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from lpt_service.config import Config, TokenConfig
from lpt_service.core.requests import missing_role
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Role
from lpt_service.protocol.messages import PROTOCOL_VERSION
from lpt_service.protocol.status import Status
from lpt_service.server.crowd import Crowd
from lpt_service.server.hello import Hello
from lpt_service.server.identity import Identity, Origin
from lpt_service.server.roles import Roles

if TYPE_CHECKING:
    from lpt_service.server.port_worker import PortWorker
    from lpt_service.server.session import Session


class Entry(NamedTuple):
    """What hello has brought: a port, and who may do what with it."""

    worker: PortWorker
    identity: Identity
    role: Role
    may_drain: bool  # which concerns every port


class Rules(NamedTuple):
    """By what a client is judged: what was in force when its connection came in, through the door as it was then."""

    roles: Roles
    tokens: tuple[TokenConfig, ...]


class Admission:
    """The door of a daemon: counts connections, and checks hello against the configuration.

    Attributes:
        rules: for those who come now.
    """

    def __init__(self, config: Config, workers: Mapping[str, PortWorker]) -> None:
        self._config = config
        self._workers = workers
        self.rules = Rules(Roles(config), config.token)
        self._per_host: Counter[str] = Counter()
        self._before_hello: Crowd[Session] = Crowd()

    def reconfigure(self, config: Config, roles: Roles) -> None:
        """Take new settings, for those who come from now on; who is in keeps its role until it leaves or is kicked."""
        self._config, self.rules = config, Rules(roles, config.token)

    # Connections

    def refuse(self, origin: Origin, allow_from: tuple[str, ...] | None) -> str | None:
        """Why a new connection must not come in, in words for the one who is there; None if it may.

        Who could end the daemon is always let in, to look who fills it, and to send them away.
        """
        limits = self._config.limits
        if origin.identity.is_local_administrator:
            return None
        if allow_from is not None and not _is_in(origin.host, allow_from):
            return f"connections from {origin.host} are not allowed here"
        if self._per_host[origin.counted_as] >= limits.max_connections_per_address:
            return f"{origin.counted_as} has as many connections as one address may have"
        if self._per_host.total() >= limits.max_connections:
            return "there are as many connections as there may be"
        return None

    def count(self, host: str) -> None:
        """A connection has come in."""
        self._per_host[host] += 1

    def discount(self, host: str) -> None:
        """It is gone."""
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]

    def await_hello(self, session: Session) -> None:
        """A session has begun. When too many have not said hello, one of them makes room."""
        most = self._config.limits.max_connections_before_hello
        leaving = self._before_hello.add(session, session.origin.counted_as, most)
        if leaving is not None:
            leaving.end("no hello yet, and others wait to say theirs")

    def hear_hello(self, session: Session) -> None:
        """It has said hello, or has ended."""
        self._before_hello.discard(session)

    # hello

    def admit(self, hello: Hello, origin: Origin, rules: Rules) -> Entry:
        """Check hello, in the contract's order. Raises RequestError; nothing is told before the identity holds."""
        if hello.protocol != PROTOCOL_VERSION:
            raise RequestError(Status.STATUS_NOT_SUPPORTED, f"protocol: version {hello.protocol} is not supported")
        identity = _identify(hello.token, origin, rules)
        workers = self._workers
        if hello.port is None and len(workers) > 1:
            raise RequestError(Status.STATUS_NO_SUCH_DEVICE, "port: this daemon has several, name one")
        worker = next(iter(workers.values())) if hello.port is None else workers.get(hello.port)
        if worker is None:
            raise RequestError(Status.STATUS_NO_SUCH_DEVICE, f"port: there is no {hello.port!r:.40}")
        role = rules.roles.role_of(identity, worker.name)
        if role is None:
            raise missing_role("hello", Role.OBSERVE, worker.name, None)
        return Entry(worker, identity, role, role is Role.ADMIN and rules.roles.is_admin_of_all(identity))

    def check_room(self, identity: Identity, host: str) -> None:
        """Raise RequestError(STATUS_INSUFFICIENT_RESOURCES) if there are too many sessions for one more.

        Those kept without a connection count as connections of their address, or it could fill the daemon with them.
        (They do not before hello: the one who comes back must be let in.)
        """
        if identity.is_local_administrator:
            return
        limits, workers = self._config.limits, self._workers.values()
        total = sum(len(worker.sessions) + len(worker.parking) for worker in workers)
        if total >= limits.max_sessions:
            raise RequestError(
                Status.STATUS_INSUFFICIENT_RESOURCES, f"sessions: {limits.max_sessions} are open, the limit"
            )
        here, most = self._per_host[host], limits.max_connections_per_address
        if here + sum(len(worker.parking) for worker in workers) > most:
            parked = sum(worker.parking.count_from(host) for worker in workers)
            if here + parked > most:
                detail = f"sessions: {host} has {parked} without a connection, and {most} connections are the limit"
                raise RequestError(Status.STATUS_INSUFFICIENT_RESOURCES, detail)
        most = limits.max_sessions_per_identity
        if identity.is_anonymous or total < most:
            return
        if sum(identity.is_same(each) for worker in workers for each in worker.identities()) >= most:
            raise RequestError(
                Status.STATUS_INSUFFICIENT_RESOURCES, f"sessions: {identity} has {most}, the limit for one identity"
            )


def _identify(token: str | None, origin: Origin, rules: Rules) -> Identity:
    """Who it is. Raises RequestError(STATUS_ACCESS_DENIED) if the token is wrong, or nobody may come in as such."""
    identity = origin.identity
    if token is not None and rules.tokens:
        if not origin.is_private:
            raise RequestError(
                Status.STATUS_ACCESS_DENIED, "token: not over plain TCP from another machine; use lpts://"
            )
        name = _find_token(token, rules.tokens)
        if name is None:
            raise RequestError(Status.STATUS_ACCESS_DENIED, "token: missing or wrong")
        identity = identity._replace(token=name)
    if not rules.roles.has_any(identity):
        if rules.roles.needs_token:
            raise RequestError(Status.STATUS_ACCESS_DENIED, "token: missing or wrong")
        raise RequestError(Status.STATUS_ACCESS_DENIED, f"role: {identity} has none here")
    return identity


def _find_token(token: str, tokens: tuple[TokenConfig, ...]) -> str | None:
    """The name of a token, by its hash. Every one is compared, so that time tells nothing."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    found = [each.name for each in tokens if hmac.compare_digest(digest, each.sha256)]
    return found[0] if found else None


def _is_in(host: str, networks: tuple[str, ...]) -> bool:
    address = ip_address(host.partition("%")[0])
    return any(address in ip_network(network) for network in networks)
