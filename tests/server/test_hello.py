"""The map that a client sends first."""

from __future__ import annotations

from typing import Any

import pytest

from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status
from lpt_service.server.hello import Hello, parse_hello


def test_the_least_hello() -> None:
    assert parse_hello(({"protocol": 1},)) == Hello(1, "", None, None, None, None, None)


def test_a_full_hello() -> None:
    given = {
        "protocol": 1,
        "client": "me",
        "port": "LPT2",
        "token": "secret",
        "resume": "r",
        "from": (7, 8),
        "notifications": ("queued", "interrupt", "queued"),
        "raw": True,
    }
    wanted = frozenset(("queued", "interrupt"))
    assert parse_hello((given,)) == Hello(1, "me", "LPT2", "secret", "r", (7, 8), wanted, raw=True)


def test_keys_that_are_not_known_are_ignored() -> None:
    assert parse_hello(({"protocol": 1, "colour": "green", 7: None, b"port": b"LPT9"},)).port is None


def test_a_protocol_that_is_not_ours_has_the_right_shape() -> None:
    assert parse_hello(({"protocol": -5},)).protocol == -5


@pytest.mark.parametrize(
    "params", [(), ({"protocol": 1}, {}), ((("protocol", 1),),), (None,), ("hello",), {"protocol": 1}, None, 5]
)
def test_params_that_are_not_one_map(params: Any) -> None:
    with pytest.raises(RequestError, match=r"hello: params are \[map\]") as caught:
        parse_hello(params)
    assert caught.value.status == Status.STATUS_INVALID_PARAMETER


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("protocol", None),
        ("protocol", "1"),
        ("protocol", 1.0),
        ("protocol", True),
        ("client", 5),
        ("client", b"bin"),
        ("client", None),
        ("port", 1),
        ("token", ("a",)),
        ("token", b"secret"),
        ("resume", False),
        ("notifications", "all"),
        ("notifications", None),
        ("notifications", (1,)),
        ("notifications", ("queued", b"waiters")),
        ("notifications", {"queued": True}),
        ("raw", 1),
        ("raw", None),
        ("raw", "true"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(key: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"hello: {key} must be") as caught:
        parse_hello(({"protocol": 1, key: value},))
    assert caught.value.status == Status.STATUS_INVALID_PARAMETER


def test_protocol_is_required() -> None:
    with pytest.raises(RequestError, match="protocol must be an integer"):
        parse_hello(({"client": "me"},))


@pytest.mark.parametrize("place", [None, 5, (1,), (1, 2, 3), (1, -1), (True, 1), ("a", 1)])
def test_a_place_in_the_log_has_its_shape_where_it_means_something(place: object) -> None:
    with pytest.raises(RequestError, match="hello: from must be"):
        parse_hello(({"protocol": 1, "resume": "r", "from": place},))
    assert parse_hello(({"protocol": 1, "from": place},)).resume_from is None
