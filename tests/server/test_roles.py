"""What an identity may do with a port."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from typing import Any

import pytest

from lpt_service.config import parse
from lpt_service.protocol.ioctl import Role
from lpt_service.server.identity import ANONYMOUS, Identity
from lpt_service.server.roles import Roles

PORTS = [{"name": "A"}, {"name": "B"}]
TOKEN = {"name": "t", "sha256": "0" * 64}
SOMEBODY = Identity(uid=54321, gids=frozenset({54321}))


def roles(*table: dict[str, Any], **keys: Any) -> Roles:
    return Roles(parse({"port": PORTS, "token": [TOKEN], "role": list(table), **keys}))


def row(who: str, role: str, *ports: str) -> dict[str, Any]:
    return {"who": [who], "role": role, **({"ports": list(ports)} if ports else {})}


def test_without_a_table_whoever_is_let_in_may_use_every_port() -> None:
    table = roles(token=[])
    assert [table.role_of(ANONYMOUS, name) for name in "AB"] == [Role.USE, Role.USE]
    assert not table.needs_token


def test_with_tokens_and_no_table_only_who_has_one() -> None:
    table = roles()
    assert table.needs_token
    assert not table.has_any(ANONYMOUS)
    assert not table.has_any(Identity(certificate="c"))
    assert table.role_of(Identity(token="t"), "A") is Role.USE


@pytest.mark.parametrize(
    ("who", "those", "others"),
    [
        ("anyone", [ANONYMOUS, SOMEBODY, Identity(token="t")], []),
        ("anonymous", [ANONYMOUS], [SOMEBODY, Identity(token="t"), Identity(certificate="c")]),
        ("user:54321", [SOMEBODY], [ANONYMOUS, Identity(uid=54322), Identity(token="54321")]),
        ("user:*", [SOMEBODY], [ANONYMOUS, Identity(token="t")]),
        ("group:7", [Identity(uid=5, gids=frozenset({7}))], [ANONYMOUS, SOMEBODY]),
        ("group:*", [SOMEBODY], [ANONYMOUS]),
        ("cert:c", [Identity(certificate="c")], [ANONYMOUS, Identity(certificate="d"), Identity(token="c")]),
        ("cert:*", [Identity(certificate="d")], [ANONYMOUS, SOMEBODY]),
        ("token:t", [Identity(token="t")], [ANONYMOUS, Identity(token="u"), Identity(certificate="t")]),
        ("token:*", [Identity(token="u")], [ANONYMOUS, SOMEBODY]),
    ],
)
def test_who(who: str, those: list[Identity], others: list[Identity]) -> None:
    table = roles(row(who, "observe"))
    assert [table.role_of(each, "A") for each in those] == [Role.OBSERVE] * len(those)
    assert [table.role_of(each, "A") for each in others] == [None] * len(others)


def test_names_of_users_and_groups_are_looked_up() -> None:
    user, group = pwd.getpwuid(1).pw_name, grp.getgrgid(2).gr_name
    table = roles(row(f"user:{user}", "use"), row(f"group:{group}", "observe"))
    assert table.role_of(Identity(uid=1), "A") is Role.USE
    assert table.role_of(Identity(uid=54321, gids=frozenset({2})), "A") is Role.OBSERVE


def test_a_name_that_is_not_there_is_told_and_means_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = roles(row("user:no-such", "use"), row("group:no-such", "use"))
        table = roles(row("user:a\0b", "use"), row("group:²", "use"))  # what no name can be
    assert not table.has_any(SOMEBODY)
    assert ["user no-such" in caplog.text, "group no-such" in caplog.text] == [True, True]


def test_the_highest_of_several_counts_and_each_port_has_its_own() -> None:
    table = roles(row("anyone", "observe"), row("token:t", "use", "B"), row("user:54321", "admin", "A"))
    both = SOMEBODY._replace(token="t")
    assert [table.role_of(both, name) for name in "AB"] == [Role.ADMIN, Role.USE]
    assert [table.role_of(ANONYMOUS, name) for name in "AB"] == [Role.OBSERVE, Role.OBSERVE]
    assert not table.is_admin_of_all(both)


def test_a_port_that_no_line_names_is_closed() -> None:
    table = roles(row("anyone", "use", "A"))
    assert table.role_of(ANONYMOUS, "B") is None
    assert table.has_any(ANONYMOUS)


def test_root_and_the_daemons_own_user_are_administrators_always() -> None:
    table = roles(row("anonymous", "observe"))
    assert table.is_admin_of_all(Identity(uid=0))
    assert table.is_admin_of_all(Identity(uid=os.geteuid()))


def test_an_administrator_of_all_ports_by_the_table() -> None:
    assert roles(row("token:t", "admin")).is_admin_of_all(Identity(token="t"))
