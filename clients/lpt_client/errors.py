"""Every error that the SDK raises, and whose doing it was.

    LptError
     ├─ RequestError                the daemon refused one request (.status, .detail); the conversation goes on
     │   ├─ AccessDenied            the port is not yours, a role is missing, or the grant is not in force
     │   │   └─ Revoked             it was yours and was taken away (.reason)
     │   ├─ TimedOut                waited for as long as it was told to
     │   ├─ RequestCancelled        ended without having been carried out, for example because the daemon stops
     │   ├─ InvalidDeviceState      allocate while owning or waiting, free without owning
     │   ├─ InvalidParameter        a value, register, code or option that the daemon does not take
     │   ├─ BufferTooSmall          an `ioctl` with too short a buffer
     │   ├─ Unsuccessful            connecting interrupts is disabled by the daemon's configuration
     │   ├─ NotSupported            the daemon does not offer that
     │   ├─ LimitReached            too many sessions, waiting or pending requests
     │   ├─ PortPaused              an administrator lets the port rest
     │   ├─ PortRemoved             the port is going or gone
     │   ├─ DeviceFailed            the hardware failed
     │   └─ HelloRefused            no session: protocol, token or name of the port
     ├─ NotConnected                there is no conversation with the daemon
     │   ├─ ConnectFailed           none came about in time
     │   ├─ ConnectionLost          it ended (.request, .may_have_run, .goes_on)
     │   ├─ PortClosed              this program closed it
     │   └─ OtherProcess            another process opened it, of which this one is a forked child
     ├─ PortStopped                 a registration ended: port removed, daemon stopping
     ├─ ConversationError           the daemon broke the protocol
     └─ UrlError                    an address that names no daemon

A status without a class of its own is a plain RequestError.
"""

# ruff: noqa: N818 - an exception says what happened, as trio.Cancelled does; "AccessDeniedError" says no more

from __future__ import annotations

import copy
from typing import Any, TypeVar

from lpt_service.protocol.errors import ConversationError, LptError, RequestError, UrlError
from lpt_service.protocol.messages import error_of
from lpt_service.protocol.status import Status

__all__ = [
    "AccessDenied",
    "BufferTooSmall",
    "ConnectFailed",
    "ConnectionLost",
    "ConversationError",
    "DeviceFailed",
    "HelloRefused",
    "InvalidDeviceState",
    "InvalidParameter",
    "LimitReached",
    "LptError",
    "NotConnected",
    "NotSupported",
    "OtherProcess",
    "PortClosed",
    "PortPaused",
    "PortRemoved",
    "PortStopped",
    "RequestCancelled",
    "RequestError",
    "Revoked",
    "TimedOut",
    "Unsuccessful",
    "UrlError",
    "apart",
    "request_error",
]

E = TypeVar("E", bound=BaseException)


class AccessDenied(RequestError):
    """The port is not yours (allocate it first), a role is missing, or the grant named is not in force."""


class Revoked(AccessDenied):
    """The port was yours and was taken away: by a lease, an administrator, or because it was removed.

    `reason` is what the daemon said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(Status.STATUS_ACCESS_DENIED, f"the port was taken away: {reason}")
        self.args = (reason,)  # by which it is pickled
        self.reason = reason


class TimedOut(RequestError):
    """The request waited for as long as it was told to. It was not carried out."""


class RequestCancelled(RequestError):
    """The request ended without having been carried out; `detail` says why. The daemon does so when it stops."""


class InvalidDeviceState(RequestError):
    """Allocate while this session owns the port or waits for it, or free while it does not own it."""


class InvalidParameter(RequestError):
    """A value, register, control code or option that the daemon does not take."""


class BufferTooSmall(RequestError):
    """An input or an output_length shorter than the control code needs."""


class Unsuccessful(RequestError):
    """Connecting interrupts is disabled by the daemon's configuration."""


class NotSupported(RequestError):
    """The daemon does not offer that."""


class LimitReached(RequestError):
    """Too many sessions, requests in the queue, or requests pending. Later it may succeed."""


class PortPaused(RequestError):
    """An administrator lets the port rest: nothing touches the hardware. Allocate and wait."""


class PortRemoved(RequestError):
    """The port is being removed or is gone."""


class DeviceFailed(RequestError):
    """The hardware failed a register access; what the lines show now is not known."""


class HelloRefused(RequestError):
    """The daemon gave no session: other protocol version, bad token, or no port of that name."""


class NotConnected(LptError):
    """There is no conversation with the daemon. The text says why."""


class ConnectFailed(NotConnected):
    """The daemon could not be reached, or did not answer in time."""


class PortClosed(NotConnected):
    """The program itself has closed the port, or left its `with` block."""


class OtherProcess(NotConnected):
    """The port was opened by another process, of which this one is a forked child. It is the parent's alone.

    `opened_in` and `used_in` are the numbers of the two processes.
    """

    def __init__(self, opened_in: int, used_in: int) -> None:
        super().__init__(opened_in, used_in)
        self.opened_in = opened_in
        self.used_in = used_in

    def __str__(self) -> str:
        return (
            f"this port was opened in process {self.opened_in} and stays there; "
            f"this is its child, process {self.used_in}: open a port here, after the fork"
        )


class ConnectionLost(NotConnected):
    """The connection ended. Everything that this session held is gone: ownership, registrations, waiting requests.

    Unless `goes_on`: then the session goes on, on a new connection, with all that it held, and only the answer to this
    request is lost.

    `request` names the request that was waiting for its answer (None: no particular one). `may_have_run` is True when
    that request may have been carried out, because it had been handed to the network, and False when it surely has not.
    """

    def __init__(
        self, reason: str, request: str | None = None, *, may_have_run: bool = False, goes_on: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request = request
        self.may_have_run = may_have_run
        self.goes_on = goes_on

    def __str__(self) -> str:
        if self.request is None:
            return self.reason
        ran = "it may have been carried out" if self.may_have_run else "it was not carried out"
        session = "; the session goes on" if self.goes_on else ""
        return f"{self.reason}{session} ({self.request}: {ran})"


class PortStopped(LptError):
    """The port was removed, or its daemon stops: this registration hears no more. (One that is paused stays.)"""

    def __init__(self, why: str = "the port was removed, or its daemon stops") -> None:
        super().__init__(why)


_BY_STATUS: dict[int, type[RequestError]] = {
    Status.STATUS_ACCESS_DENIED: AccessDenied,
    Status.STATUS_IO_TIMEOUT: TimedOut,
    Status.STATUS_CANCELLED: RequestCancelled,
    Status.STATUS_INVALID_DEVICE_STATE: InvalidDeviceState,
    Status.STATUS_INVALID_PARAMETER: InvalidParameter,
    Status.STATUS_BUFFER_TOO_SMALL: BufferTooSmall,
    Status.STATUS_UNSUCCESSFUL: Unsuccessful,
    Status.STATUS_NOT_SUPPORTED: NotSupported,
    Status.STATUS_INSUFFICIENT_RESOURCES: LimitReached,
    Status.STATUS_DEVICE_NOT_READY: PortPaused,
    Status.STATUS_DELETE_PENDING: PortRemoved,
    Status.STATUS_DEVICE_NOT_CONNECTED: PortRemoved,
    Status.STATUS_IO_DEVICE_ERROR: DeviceFailed,
}


def request_error(member: Any) -> RequestError:
    """The exception for the `error` member of a response, of the class that its status has."""
    error = error_of(member)
    return _BY_STATUS.get(error.status, RequestError)(error.status, error.detail)


def apart(error: E) -> E:
    """A copy of an error without its traceback, to be kept or to be raised again.

    A traceback keeps alive whatever its functions, and those that called them, hold: the port, for example.
    """
    try:
        copied = copy.copy(error)
    except Exception:  # a class that cannot be copied
        return error.with_traceback(None)
    copied.__cause__ = None if error.__cause__ is None else apart(error.__cause__)
    return copied
