"""The map that a client sends first, and the one that it gets back."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from lpt_service import __version__
from lpt_service.config import LimitsConfig
from lpt_service.core.function_driver import FunctionDriver
from lpt_service.core.requests import SessionState, invalid
from lpt_service.protocol.codec import DAEMON_LIMITS
from lpt_service.protocol.ioctl import PULSE_WIDTH_MAX_US, Role
from lpt_service.protocol.messages import PROTOCOL_VERSION
from lpt_service.server.clock import Clock

SERVER_NAME: Final = f"lpt-service {__version__}"
_TEXTS: Final = ("client", "port", "token", "resume")


class Hello(NamedTuple):
    """hello, checked for its shape only. None stands for what was left out."""

    protocol: int
    client: str
    port: str | None
    token: str | None
    resume: str | None
    resume_from: tuple[int, int] | None
    notifications: frozenset[str] | None
    raw: bool = False


def _resume_from(given: dict[str, Any]) -> tuple[int, int] | None:
    """`from`, beside `resume`: the log and the number up to which the client has heard it."""
    place = given.get("from")
    if "from" not in given:
        return None
    if type(place) is tuple and len(place) == 2 and all(type(item) is int and item >= 0 for item in place):
        return place
    raise invalid(f"hello: from must be [stream, next_seq], got {place!r:.40}")


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
    if type(given.get("raw", False)) is not bool:
        raise invalid(f"hello: raw must be a bool, got {given['raw']!r:.40}")
    names = given.get("notifications")
    if "notifications" in given and (type(names) is not tuple or not all(type(name) is str for name in names)):
        raise invalid("hello: notifications must be an array of names")
    return Hello(
        protocol,
        given.get("client", ""),
        given.get("port"),
        given.get("token"),
        given.get("resume"),
        _resume_from(given) if "resume" in given else None,
        None if names is None else frozenset(names),
        given.get("raw", False),
    )


def welcome(
    driver: FunctionDriver, state: SessionState, limits: LimitsConfig, clock: Clock, *, may_drain: bool
) -> dict[str, Any]:
    """The answer to hello, without what is about coming back."""
    settings, wire = driver.settings, DAEMON_LIMITS
    features = [
        name
        for name, is_there in (
            ("disconnected", True),
            ("administration", state.role is Role.ADMIN),
            ("drain", may_drain),
            ("lease", settings.has_lease),
            ("raw", state.is_raw),
        )
        if is_there
    ]
    return {
        "protocol": PROTOCOL_VERSION,
        "server": SERVER_NAME,
        "port": settings.name,
        "session": state.session,
        "stream": driver.registry.log.stream,
        "clock": {"monotonic_ns": clock.monotonic_ns(), "realtime_ns": clock.realtime_ns()},
        "limits": {
            "max_frame_bytes": wire.max_frame_bytes,
            "max_items": wire.max_items,
            "max_string_bytes": wire.max_string_bytes,
            "max_nesting": wire.max_nesting,
            "max_pending_requests": limits.max_pending_requests,
            "max_waiters": limits.max_waiters,
            "max_pulse_width_us": PULSE_WIDTH_MAX_US,
            "interrupt_log_frames": driver.registry.log.capacity,
            "dead_peer_s": limits.dead_peer_s,
        },
        "features": features,
    }
