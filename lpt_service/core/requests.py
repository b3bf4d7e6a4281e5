"""Sessions and control requests as `core` sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lpt_service.core.deadlines import Deadline
from lpt_service.protocol.codec import U32_MAX
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import CONTROL_CODES, ControlCode, IoctlClass, Role
from lpt_service.protocol.messages import Raw, Request
from lpt_service.protocol.status import Status

# Why an ownership has ended, where nobody took it away.
SESSION_ENDED: Final = "session ended"
_U64_MAX: Final = 0xFFFFFFFF_FFFFFFFF
_BY_METHOD: Final[Mapping[str, Mapping[int, ControlCode]]] = {
    io_class.value: {int(row.code): row for row in CONTROL_CODES if io_class in row.classes} for io_class in IoctlClass
}


class SessionState:
    """What one session holds of a port, apart from its connection. The owner of anything is this object.

    Attributes:
        session: its number, unique while the daemon runs.
        context: the handle it passes where Windows passes a callback's context.
        client, peer: how it calls itself, and where it comes from: for people to read.
        identity: who it is, as the daemon knows it: for people to read, too.
        role: what it may do with the port.
        is_raw: its client has no bin: text in the place of a buffer stands for its bytes.
        pending: its requests that are not answered yet, by msgid.
    """

    __slots__ = ("client", "context", "identity", "is_raw", "peer", "pending", "role", "session")

    def __init__(
        self,
        session: int,
        context: int,
        client: str = "",
        peer: str = "",
        identity: str = "anonymous",
        role: Role = Role.USE,
    ) -> None:
        self.session = session
        self.context = context
        self.client = client
        self.peer = peer
        self.identity = identity
        self.role = role
        self.is_raw = False
        self.pending: dict[int, ControlRequest] = {}

    def __repr__(self) -> str:
        return f"<session {self.session} {self.client!r} from {self.peer}>"


@dataclass(frozen=True)
class Options:
    """The 4th item of a control request, checked. One that means nothing for a code is accepted without effect."""

    timeout_ms: int | None = None
    grant: int | None = None
    resume_from: tuple[int, int] | None = None  # (stream, next_seq)


_NO_OPTIONS: Final = Options()


class ControlRequest:
    """An IRP: one control request, from its arrival until its reply."""

    __slots__ = ("deadline", "input", "msgid", "options", "output_length", "row", "session")

    def __init__(
        self, session: SessionState, msgid: int, row: ControlCode, input_: bytes, output_length: int, options: Options
    ) -> None:
        self.session = session
        self.msgid = msgid
        self.row = row
        self.input = input_
        self.output_length = output_length
        self.options = options
        self.deadline: Deadline | None = None  # while it waits with a time-out


def parse_request(session: SessionState, message: Request) -> ControlRequest:
    """Check the params of a control method: `[code, input, output_length]` or with a map of options.

    Raises RequestError(STATUS_INVALID_PARAMETER), which names the field.
    """
    msgid, method, params = message
    if type(params) is not tuple or not 3 <= len(params) <= 4:
        raise invalid(f"{method}: params are [code, input, output_length] or with a map of options")
    code, input_, output_length = params if len(params) == 3 else params[:3]
    row = _BY_METHOD[method].get(code) if type(code) is int else None
    if row is None:
        shown = f"{code:#x}" if type(code) is int else type(code).__name__
        raise invalid(f"code: {shown} is no control code of {method}")
    if type(input_) is not bytes:
        input_ = _bytes_of(input_, is_raw=session.is_raw)
    if type(output_length) is not int or not 0 <= output_length <= U32_MAX:
        raise invalid(f"output_length: must be a u32, got {output_length!r:.40}")
    options = _NO_OPTIONS if len(params) == 3 else _parse_options(params[3])
    return ControlRequest(session, msgid, row, input_, output_length, options)


def _bytes_of(given: Any, *, is_raw: bool) -> bytes:
    """The buffer that a client means by something other than bin. Raises RequestError where that is not certain."""
    if type(given) not in (str, Raw):
        raise invalid(f"input: must be bin, got {type(given).__name__} (pack bytes as the MessagePack type bin)")
    if not is_raw and not given.isascii():
        raise invalid(
            "input: must be bin, got str with characters beyond 0x7f (pack bytes as the MessagePack type bin, or, "
            "with a library that has none, say raw: true in hello)"
        )
    return bytes(given) if type(given) is Raw else given.encode()


def _parse_options(given: Any) -> Options:
    if type(given) is not dict:
        raise invalid(f"options: must be a map, got {type(given).__name__}")
    for name in given:
        if name not in ("timeout_ms", "grant", "from"):
            raise invalid(f"options: {name!r:.40} is not known; there are timeout_ms, grant and from")
    timeout_ms, grant, resume_from = given.get("timeout_ms"), given.get("grant"), given.get("from")
    if "timeout_ms" in given and not _is_uint(timeout_ms, U32_MAX):
        raise invalid(f"timeout_ms: must be a u32, got {timeout_ms!r:.40}")
    if "grant" in given and not _is_uint(grant, _U64_MAX):
        raise invalid(f"grant: must be an unsigned integer, got {grant!r:.40}")
    if "from" in given and not (
        type(resume_from) is tuple and len(resume_from) == 2 and all(_is_uint(item, _U64_MAX) for item in resume_from)
    ):
        raise invalid(f"from: must be [stream, next_seq], got {resume_from!r:.40}")
    return Options(timeout_ms, grant, resume_from)


def _is_uint(value: Any, maximum: int) -> bool:
    return type(value) is int and 0 <= value <= maximum


def invalid(detail: str) -> RequestError:
    """STATUS_INVALID_PARAMETER, with what was wrong."""
    return RequestError(Status.STATUS_INVALID_PARAMETER, detail)


def missing_role(what: str, needed: Role, port_name: str, role: Role | None) -> RequestError:
    """STATUS_ACCESS_DENIED, with the role that is missing."""
    return RequestError(
        Status.STATUS_ACCESS_DENIED,
        f"role: {what} needs the role {needed} on port {port_name}, this session has {role or 'none'}",
    )
