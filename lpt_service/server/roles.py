"""What an identity may do with a port: the table `[[role]]`, with names of users and groups looked up."""

from __future__ import annotations

import grp
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from lpt_service.config import Config, RoleConfig
from lpt_service.protocol.ioctl import Role
from lpt_service.server.identity import Identity, remember_user

_ALL: Final = "*"
# Without a table: who is let in may use every port. With tokens, that is whoever has one.
_FOR_ANYONE: Final = (RoleConfig(who=("anyone",), role="use"),)
_FOR_TOKENS: Final = (RoleConfig(who=("token:*",), role="use"),)
_log = logging.getLogger(__name__)

_Test = Callable[[Identity], bool]


class _Rule(NamedTuple):
    tests: tuple[_Test, ...]
    role: Role
    ports: tuple[str, ...] | None


class Roles:
    """The roles that a configuration gives. Looks up users and groups when made: that may take time."""

    def __init__(self, config: Config) -> None:
        self._ports = tuple(port.name for port in config.port)
        self.needs_token = not config.role and bool(config.token)
        table = config.role or (_FOR_TOKENS if self.needs_token else _FOR_ANYONE)
        self._rules = [
            _Rule(tuple(_test_of(who) for who in each.who), Role[each.role.upper()], each.ports) for each in table
        ]

    @classmethod
    async def look_up(cls, config: Config) -> Roles:
        """As the constructor, but off the event loop if names have to be looked up."""
        if any(who.startswith(("user:", "group:")) for each in config.role for who in each.who):
            return await trio.to_thread.run_sync(cls, config)
        return cls(config)

    def role_of(self, identity: Identity, port_name: str) -> Role | None:
        """The highest role that anything known of `identity` has on a port; None without any."""
        if identity.is_local_administrator:
            return Role.ADMIN
        roles = (
            rule.role
            for rule in self._rules
            if (rule.ports is None or port_name in rule.ports) and any(test(identity) for test in rule.tests)
        )
        return max(roles, default=None)

    def has_any(self, identity: Identity) -> bool:
        """Whether it has a role on any port. Takes as long however many ports there are: nobody is known yet."""
        return identity.is_local_administrator or any(test(identity) for rule in self._rules for test in rule.tests)

    def is_admin_of_all(self, identity: Identity) -> bool:
        """Whether it is the administrator of every port."""
        return all(self.role_of(identity, name) is Role.ADMIN for name in self._ports)


def _test_of(who: str) -> _Test:
    """What `who` asks of an identity."""
    if who == "anyone":
        return lambda identity: True
    if who == "anonymous":
        return lambda identity: identity.is_anonymous
    kind, _, name = who.partition(":")
    if kind == "cert":
        return lambda identity: identity.certificate is not None and name in (_ALL, identity.certificate)
    if kind == "token":
        return lambda identity: identity.token is not None and name in (_ALL, identity.token)
    if kind == "user":
        uid = None if name == _ALL else remember_user(name)
        if uid is None and name != _ALL:
            _log.warning("role: this machine has no user %s; the line is without effect until a reload finds one", name)
        return lambda identity: identity.uid is not None and (name == _ALL or identity.uid == uid)
    gid = None if name == _ALL else _find_group(name)
    if gid is None and name != _ALL:
        _log.warning("role: this machine has no group %s; the line is without effect until a reload finds one", name)
    return lambda identity: identity.uid is not None and (name == _ALL or gid in identity.gids)


def _find_group(name: str) -> int | None:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None
