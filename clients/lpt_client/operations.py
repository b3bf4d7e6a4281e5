"""The vocabulary, once for both front ends: what each operation sends, and how its answer is read.

An operation is a `Call`: a method, its params, how to read the result, and how to undo it for a caller who gave up
while it was under way.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from lpt_client.errors import NotSupported, request_error
from lpt_client.values import TIMEOUT_MAX_S, U64_MAX, data, flag, patience, text, whole, wrong_type
from lpt_service.protocol import messages, structs
from lpt_service.protocol.codec import U32_MAX
from lpt_service.protocol.errors import ConversationError, LptError, RequestError
from lpt_service.protocol.ioctl import CONTROL, CONTROL_CODES, DATA, PULSE_WIDTH_MAX_US, STATUS, Ioctl, IoctlClass
from lpt_service.protocol.messages import Response
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import (
    MORE_PARALLEL_PORT_INFORMATION,
    PARALLEL_INTERRUPT_INFORMATION,
    PARALLEL_INTERRUPT_SERVICE_ROUTINE,
    PARALLEL_PNP_INFORMATION,
    PARALLEL_PORT_INFORMATION,
)

T = TypeVar("T")

# How much longer than the daemon a client waits for the answer to a request that has a time-out: the daemon answers
# first, unless it does not answer at all.
ANSWER_MARGIN_S: Final = 5.0
# How long giving up (cancel, free) may take, in which a client does not listen to its own cancellation.
CLEANUP_TIMEOUT_S: Final = 5.0


class Call(Generic[T]):
    """One operation, ready to be sent.

    Attributes:
        method, params: of the request.
        what: its name, for the text of errors.
        undo: given the result, the call that undoes it. A caller who is cancelled while the answer is on its way does
            not know what became of the request, so the front end sees to it.
    """

    __slots__ = ("_read", "method", "params", "undo", "what")

    def __init__(
        self,
        what: str,
        method: str,
        params: tuple[Any, ...],
        read: Callable[[Any], T],
        undo: Callable[[T], Call[Any] | None] | None = None,
    ) -> None:
        self.what = what
        self.method = method
        self.params = params
        self.undo = undo
        self._read = read

    def finish(self, response: Response) -> T:
        """What the caller gets.

        Raises the RequestError that the daemon answered, or ConversationError if the answer has another shape.
        """
        if response.error is not None:
            raise request_error(response.error)
        try:
            return self._read(response.result)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error, RequestError):
            raise ConversationError(
                f"the daemon answered {self.what} in another shape than agreed: {response.result!r:.100}"
            ) from None


class PulseEdges(NamedTuple):
    """CLOCK_MONOTONIC of the daemon, in ns, right after each edge of a pulse."""

    first_ns: int
    second_ns: int


class Clock(NamedTuple):
    """The daemon's clocks: CLOCK_MONOTONIC, which timestamps are of, and CLOCK_REALTIME; both in ns."""

    monotonic_ns: int
    realtime_ns: int


class ConnectedInterrupt(NamedTuple):
    """What a connect is answered: the interrupt-level callbacks, and the number of the first interrupt heard."""

    information: PARALLEL_INTERRUPT_INFORMATION
    first_seq: int


# Control requests. A result is [information, output].

_NAMES: Final[Mapping[int, str]] = {int(row.code): row.code.name for row in CONTROL_CODES}
_INTERNAL: Final = IoctlClass.INTERNAL.value


def _control(
    code: int,
    input_: bytes,
    output_length: int,
    read: Callable[[Any], T],
    options: Mapping[str, Any] | None = None,
    undo: Callable[[T], Call[Any] | None] | None = None,
) -> Call[T]:
    params = (code, input_, output_length, options) if options else (code, input_, output_length)
    return Call(_NAMES.get(code) or f"0x{code:X}", _INTERNAL, params, read, undo)


def _nothing(result: Any) -> None:
    if type(result) is not tuple:
        raise TypeError


def _u8(result: Any) -> int:
    return int(structs.U8.unpack_from(result[1])[0])


def _u32(result: Any) -> int:
    return int(structs.U32.unpack_from(result[1])[0])


def _u64(result: Any) -> int:
    return int(structs.U64.unpack_from(result[1])[0])


def ioctl(
    code: int, input_: bytes, output_length: int, *, internal: bool, options: Mapping[str, Any]
) -> Call[tuple[int, bytes]]:
    """Any control code: (information, output)."""

    def read(result: Any) -> tuple[int, bytes]:
        information, output = result[:2]
        if type(information) is not int or type(output) is not bytes:
            raise TypeError
        return information, output

    code = whole(code, "code", 0, U32_MAX)
    method = _INTERNAL if flag(internal, "internal") else IoctlClass.DEVICE.value
    params: tuple[Any, ...] = (code, data(input_, "input"), whole(output_length, "output_length", 0, U32_MAX))
    params += ({name: _ioctl_option(name, value) for name, value in options.items()},) if options else ()
    return Call(_NAMES.get(code) or f"0x{code:X}", method, params, read)


def _ioctl_option(name: str, value: Any) -> Any:
    if name == "timeout_ms":
        return whole(value, name, 0, U32_MAX, "whole milliseconds")
    if name == "grant":
        return whole(value, name, 0, U64_MAX)
    if name != "from":
        raise TypeError(f"ioctl has no option {name!r}; there are timeout_ms, grant and from")
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != 2:
        raise wrong_type(value, name, "(stream, next_seq)")
    return tuple(whole(each, f"from[{index}]", 0, U64_MAX) for index, each in enumerate(value))


# Ownership

FREE: Final = _control(Ioctl.PARALLEL_PORT_FREE, b"", 0, _nothing)


def timeout_options(timeout: float | None) -> dict[str, int] | None:
    """The option that makes the daemon answer after `timeout` seconds (None: it waits without end; 0: now or never)."""
    timeout_s = patience(timeout, "timeout")
    return None if timeout_s == math.inf else {"timeout_ms": math.ceil(min(timeout_s, TIMEOUT_MAX_S) * 1000)}


def answer_within_s(timeout: float | None) -> float:
    """How long to wait here for the answer to a request whose time-out is `timeout` seconds; inf for None."""
    return patience(timeout, "timeout") + ANSWER_MARGIN_S


def with_time_left(call: Call[T], seconds: float) -> Call[T]:
    """The same for a caller that waits `seconds` from now on: a request sent late waits in the queue for less."""
    options = call.params[3] if call.method == _INTERNAL and len(call.params) > 3 else {}
    left_s = max(0.0, seconds - ANSWER_MARGIN_S)
    if "timeout_ms" not in options or options["timeout_ms"] <= left_s * 1000:
        return call
    options = {**options, "timeout_ms": int(left_s * 1000)}
    return Call(call.what, call.method, (*call.params[:3], options), call._read, call.undo)


def allocate(timeout: float | None) -> Call[int]:
    """Own the port: the number of the grant."""
    return _control(
        Ioctl.PARALLEL_PORT_ALLOCATE, b"", structs.U64.size, _u64, timeout_options(timeout), undo=lambda _grant: FREE
    )


def try_allocate(info: PARALLEL_PORT_INFORMATION) -> Call[int | None]:
    """Own the port if that is possible at once: the number of the grant, or None."""

    def read(result: Any) -> int | None:
        granted, grant = structs.TRY_ALLOCATE.unpack_from(result[1])
        return int(grant) if granted else None

    return _control(
        _callback(info.TryAllocatePort, "try_allocate"),
        structs.U64.pack(info.Context),
        structs.TRY_ALLOCATE.size,
        read,
        undo=lambda grant: None if grant is None else FREE,
    )


def waiters(info: PARALLEL_PORT_INFORMATION) -> Call[int]:
    """How many requests wait in the queue."""
    code = _callback(info.QueryNumWaiters, "waiters")
    return _control(code, structs.U64.pack(info.Context), structs.U32.size, _u32)


def _callback(code: int, name: str) -> int:
    """The control code that a member of an information structure holds; 0 says that there is none."""
    if code == 0:
        raise NotSupported(Status.STATUS_NOT_SUPPORTED, f"{name}: this daemon offers no such callback")
    return code


# Information

PORT_INFO: Final = _control(
    Ioctl.GET_PARALLEL_PORT_INFO,
    b"",
    PARALLEL_PORT_INFORMATION.SIZE,
    lambda result: PARALLEL_PORT_INFORMATION.unpack(result[1]),
)
MORE_PORT_INFO: Final = _control(
    Ioctl.GET_MORE_PARALLEL_PORT_INFO,
    b"",
    MORE_PARALLEL_PORT_INFORMATION.SIZE,
    lambda result: MORE_PARALLEL_PORT_INFORMATION.unpack(result[1]),
)
PNP_INFO: Final = _control(
    Ioctl.GET_PARALLEL_PNP_INFO,
    b"",
    PARALLEL_PNP_INFORMATION.SIZE,
    lambda result: PARALLEL_PNP_INFORMATION.unpack(result[1]),
)


def _status_map(result: Any) -> dict[str, Any]:
    if type(result) is not dict:
        raise TypeError
    return result


PORT_STATUS: Final = Call("status", messages.STATUS, (), _status_map)


def is_kept(status: dict[str, Any], session: int) -> bool:
    """True if the registrations of a session outlast the mark "stopped": the port is paused, or was for a moment."""
    listed = status.get("registrations")
    for each in listed if isinstance(listed, (tuple, list)) else ():
        if isinstance(each, Mapping) and each.get("session") == session and each.get("interrupt"):
            return True
    return status.get("paused") is not None and status.get("state") == "ready"  # not all are listed


def says_kept(response: Response, session: int) -> bool:
    """The same, of the answer to PORT_STATUS."""
    try:
        return is_kept(PORT_STATUS.finish(response), session)
    except LptError:
        return False


def drain(*, is_on: bool) -> Call[dict[str, Any]]:
    """Have nobody new granted on any port of the daemon, or no longer: `idle`, and `ports` with owners and waiters."""
    return Call("drain", messages.DRAIN, ({"on": flag(is_on, "on")},), _status_map)


# Administration


def revoke(reason: str | None) -> Call[dict[str, Any]]:
    """Take the port away from its owner: `revoked` (a session, or nil) and `grant`."""
    return Call("revoke", messages.REVOKE, (_given(reason=_reason(reason)),), _status_map)


def kick(session: int, reason: str | None) -> Call[dict[str, Any]]:
    """End a session of this port: `kicked`."""
    given = _given(session=whole(session, "session", 0, U64_MAX), reason=_reason(reason))
    return Call("kick", messages.KICK, (given,), _status_map)


def pause(reason: str | None) -> Call[dict[str, Any]]:
    """Have the port rest: `paused`, and `was`."""
    return Call("pause", messages.PAUSE, (_given(reason=_reason(reason)),), _status_map)


RESUME_PORT: Final = Call("resume", messages.RESUME, ({},), _status_map)


def queue(first: int) -> Call[dict[str, Any]]:
    """Who waits, from place `first` on: `owner`, `waiting`, `waiters`."""
    first = whole(first, "first", 1, U32_MAX, "a place in the queue")
    return Call("queue", messages.QUEUE, (_given(first=None if first == 1 else first),), _status_map)


def _reason(reason: str | None) -> str | None:
    return None if reason is None else text(reason, "reason")


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


PING: Final = Call("ping", messages.PING, (), lambda result: Clock(int(result[0]), int(result[1])))

# Registers

READ_DATA: Final = _control(Ioctl.READ_PORT_UCHAR, structs.U8.pack(DATA), 1, _u8)
READ_STATUS: Final = _control(Ioctl.READ_PORT_UCHAR, structs.U8.pack(STATUS), 1, _u8)
READ_CONTROL: Final = _control(Ioctl.READ_PORT_UCHAR, structs.U8.pack(CONTROL), 1, _u8)


def read(offset: int) -> Call[int]:
    """The value of a register: 0 data, 1 status, 2 control."""
    return _control(Ioctl.READ_PORT_UCHAR, structs.U8.pack(_byte(offset, "offset")), 1, _u8)


def write(offset: int, value: int, grant: int | None) -> Call[int]:
    """Write a register: CLOCK_MONOTONIC of the daemon right after the write, in ns."""
    input_ = structs.REGISTER_WRITE.pack(_byte(offset, "offset"), _byte(value, "value"))
    return _control(Ioctl.WRITE_PORT_UCHAR, input_, structs.U64.size, _u64, _fence(grant))


def frob_control(mask: int, value: int, grant: int | None) -> Call[int]:
    """Set the bits of `mask` in the control register to those of `value`: the register's new value."""
    input_ = structs.FROB.pack(_byte(mask, "mask"), _byte(value, "value"))
    return _control(Ioctl.FROB_CONTROL, input_, 1, _u8, _fence(grant))


def pulse(value: int, after: int, width_us: int, grant: int | None) -> Call[PulseEdges]:
    """Data lines to `value`, `width_us` later to `after`: when both edges were."""
    width_us = whole(width_us, "width_us", 1, PULSE_WIDTH_MAX_US, "whole microseconds")
    input_ = structs.PULSE.pack(_byte(value, "value"), _byte(after, "after"), width_us)
    return _control(
        Ioctl.PULSE,
        input_,
        structs.PULSE_EDGES.size,
        lambda result: PulseEdges(*structs.PULSE_EDGES.unpack_from(result[1])),
        _fence(grant),
    )


def _byte(value: int, name: str) -> int:
    if type(value) is int and 0 <= value <= 0xFF:  # the usual case costs no call
        return value
    return whole(value, name, 0, 0xFF)


def _fence(grant: int | None) -> dict[str, int] | None:
    return None if grant is None else {"grant": whole(grant, "grant", 0, U64_MAX)}


# Interrupts


def service_routine(token: int, *, has_isr: bool, has_deferred: bool) -> bytes:
    """The structure that a registration is known by. The token stands for both of its routines."""
    return PARALLEL_INTERRUPT_SERVICE_ROUTINE(
        InterruptServiceRoutine=token if has_isr else 0,
        InterruptServiceContext=0,
        DeferredPortCheckRoutine=token if has_deferred else 0,
        DeferredPortCheckContext=0,
    ).pack()


def connect_interrupt(structure: bytes, resume_from: tuple[int, int] | None = None) -> Call[ConnectedInterrupt]:
    """Register routines, from now on or from (stream, next_seq) on."""

    def read(result: Any) -> ConnectedInterrupt:
        information = PARALLEL_INTERRUPT_INFORMATION.unpack(result[1])
        return ConnectedInterrupt(information, *structs.U64.unpack_from(result[1], information.SIZE))

    return _control(
        Ioctl.PARALLEL_CONNECT_INTERRUPT,
        structure,
        PARALLEL_INTERRUPT_INFORMATION.SIZE + structs.U64.size,
        read,
        None if resume_from is None else {"from": resume_from},
        undo=lambda _connected: disconnect_interrupt(structure),
    )


def disconnect_interrupt(structure: bytes) -> Call[int]:
    """Undo `connect_interrupt`: the number of the first interrupt that is not heard any more."""
    return _control(Ioctl.PARALLEL_DISCONNECT_INTERRUPT, structure, structs.U64.size, _u64)
