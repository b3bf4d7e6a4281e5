"""The map that a client sends first."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from lpt_service.core.requests import invalid

_TEXTS: Final = ("client", "port", "token", "resume")


class Hello(NamedTuple):
    """hello, checked for its shape only. None stands for what was left out."""

    protocol: int
    client: str
    port: str | None
    token: str | None
    resume: str | None
    notifications: frozenset[str] | None


def parse_hello(params: Any) -> Hello:
    """Check hello's shape; keys that are not known are ignored.

    Raises RequestError(STATUS_INVALID_PARAMETER), which names the key.
    """
    if type(params) is not tuple or len(params) != 1 or type(params[0]) is not dict:
        raise invalid("hello: params are [map]")
    given = params[0]
    protocol = given.get("protocol")
    if type(protocol) is not int:
        raise invalid(f"hello: protocol must be an integer, got {protocol!r:.40}")
    for key in _TEXTS:
        if key in given and type(given[key]) is not str:
            raise invalid(f"hello: {key} must be text, got {type(given[key]).__name__}")
    names = given.get("notifications")
    if "notifications" in given and (type(names) is not tuple or not all(type(name) is str for name in names)):
        raise invalid("hello: notifications must be an array of names")
    return Hello(
        protocol,
        given.get("client", ""),
        given.get("port"),
        given.get("token"),
        given.get("resume"),
        None if names is None else frozenset(names),
    )
