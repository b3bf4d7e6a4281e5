"""What the daemon tells of sessions and times, as text for people.

A daemon of another version may know more or less: what is not there is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def who(session: Mapping[str, Any]) -> str:
    """A session: how it calls itself, its number, who the daemon knows that it is, and from where it came."""
    told = [str(session[key]) for key in ("identity", "peer") if session.get(key)]
    return f"{name_of(session)} ({', '.join([f'session {session_number(session)}', *dict.fromkeys(told)])})"


def name_of(session: Mapping[str, Any]) -> str:
    """How a session calls itself; it may say anything."""
    return str(session.get("client") or "unnamed")


def session_number(session: Mapping[str, Any]) -> str:
    """A session's number, by which the log and `lptctl kick` know it."""
    return str(session.get("session", "?"))


def since(session: Mapping[str, Any], now_ns: int) -> str:
    """For how long it has been so, from its member since_ns; empty if that is not known."""
    since_ns = whole(session.get("since_ns"))
    return duration(now_ns - since_ns) if now_ns >= since_ns > 0 else ""


def duration(duration_ns: int) -> str:
    """A time that has passed or that is left."""
    seconds = duration_ns / 1e9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days} d {hours_left} h"
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {seconds_left} s"


def whole(value: Any) -> int:
    """A number, or 0 for anything else."""
    return value if isinstance(value, int) else 0
