"""Messages: what a frame means. MessagePack-RPC has three, and every frame is one of them.

The types are named tuples: immutable, cheap to make, and in the order of the frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lpt_service.protocol.errors import RequestError

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

# Methods, client to daemon (the two IOCTL methods are `ioctl.IoctlClass`).
HELLO = "hello"
STATUS = "status"
PING = "ping"
DRAIN = "drain"
REVOKE, KICK, PAUSE, RESUME, QUEUE = "revoke", "kick", "pause", "resume", "queue"

# Notifications, client to daemon.
CANCEL = "cancel"
BYE = "bye"

# Notifications, daemon to client.
INTERRUPT = "interrupt"
INTERRUPT_SYNC = "interrupt_sync"
PORT_CHECK = "port_check"
QUEUED = "queued"
WAITERS = "waiters"
LEASE = "lease"
REVOKED = "revoked"
DISCONNECTED = "disconnected"
CLOSING = "closing"
NOTIFICATIONS = (INTERRUPT, INTERRUPT_SYNC, PORT_CHECK, QUEUED, WAITERS, LEASE, REVOKED, DISCONNECTED, CLOSING)

# `kind` of an interrupt notification: an event, or a mark (count 0).
KIND_EVENT, KIND_UNHEARD, KIND_MASKED, KIND_UNMASKED, KIND_STOPPED = range(5)

# Reasons of interrupt_sync.
SYNC_CONNECTED = "connected"
SYNC_RESUMED = "resumed"
SYNC_OVERRUN = "overrun"
SYNC_RESTARTED = "restarted"

PROTOCOL_VERSION = 1
DEFAULT_TCP_PORT = 5378
DEFAULT_UNIX_SOCKET = "/run/lptd/lptd.sock"


class Raw(bytes):
    """The bytes of a text that is not UTF-8: a buffer of a client whose MessagePack has no bin, or a mistake."""


class Request(NamedTuple):
    """`[0, msgid, method, params]`. `params` is whatever was sent: the callee checks its shape."""

    msgid: int
    method: str
    params: Any


class Response(NamedTuple):
    """`[1, msgid, error, result]`; `error` is nil or `[status, name, detail]`."""

    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    """`[2, method, params]`."""

    method: str
    params: Any


Message = Request | Response | Notification


def error_of(error: Any) -> RequestError:
    """The exception that an `error` member stands for, whatever its shape (a newer daemon may add items)."""
    if isinstance(error, (tuple, list)) and error and isinstance(error[0], int):
        detail = error[2] if len(error) > 2 and isinstance(error[2], str) else ""
        return RequestError(error[0], detail)
    return RequestError(0xC0000001, f"the daemon sent an error of unknown shape: {error!r:.200}")
