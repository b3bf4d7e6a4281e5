"""What becomes of unanswered requests when a session goes on after its connection broke. No I/O.

The daemon says what the session still has (`Resumed`), and with that most of what was under way is known:

    its msgid is pending                         its answer comes on the new connection
    allocate, and a grant not known before       granted
    free, and still owning by the known grant    not carried out: asked again; else it was
    disconnect, and it is still connected        not carried out: asked again
    connect, and it is connected                 undone, for its answer is lost
    everything else                              it may have been carried out, and the caller is told so
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from lpt_client import operations
from lpt_client.events import Resumed, SessionInfo
from lpt_client.operations import Call
from lpt_service.protocol import structs
from lpt_service.protocol.ioctl import Ioctl, IoctlClass
from lpt_service.protocol.messages import Response

# How long a program waits for a session to come back before it counts as lost, where the daemon does not say how long
# it keeps one.
RESUME_WITHIN_S: Final = 60.0

_CONTROL: Final = frozenset(each.value for each in IoctlClass)
_ACQUIRE: Final = frozenset(
    (
        Ioctl.PARALLEL_PORT_ALLOCATE,
        Ioctl.TRY_ALLOCATE_PORT,
        Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL,
    )
)
_FREE: Final = frozenset((Ioctl.PARALLEL_PORT_FREE, Ioctl.FREE_PORT, Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL))
_FREED: Final = (0, b"")


class Unanswered(NamedTuple):
    """A request whose answer had not come when the connection broke. `is_given_up`: its caller has gone away."""

    call: Call[Any]
    is_given_up: bool = False


class Settlement(NamedTuple):
    """What becomes of them, by msgid.

    Attributes:
        waiting: they are answered on the new connection; those in `given_up` are to be cancelled there.
        answers: what is known without the daemon's answer.
        again: they were not carried out, and are asked again.
        lost: they may have been carried out.
        undo: what those have left behind that nobody wants.
    """

    waiting: list[int]
    given_up: list[int]
    answers: list[Response]
    again: list[int]
    lost: list[int]
    undo: list[Call[Any]]

    @property
    def is_freed(self) -> bool:
        """True when a free is known to have been carried out."""
        return any(response.result == _FREED for response in self.answers)


def resume_within_s(session: SessionInfo) -> float:
    """How long to try to go on with a session whose connection broke, in seconds from when that was noticed."""
    grace_s, dead_peer_s = session.limits.get("grace_s"), session.limits.get("dead_peer_s", 0)
    if isinstance(grace_s, (int, float)) and isinstance(dead_peer_s, (int, float)) and grace_s > 0:
        return grace_s + dead_peer_s  # the daemon may notice it so much later
    return RESUME_WITHIN_S


def settle(
    unanswered: Mapping[int, Unanswered],
    resumed: Resumed,
    known_grant: int | None,
    *,
    is_held: bool,
    wanted: Collection[bytes],
) -> Settlement:
    """Decide, given what the session still has.

    `known_grant` is the last one that this client was told of, `is_held` says that the program still relies on it;
    `wanted` are the structures of the registrations that it relies on.
    """
    result = Settlement([], [], [], [], [], [])
    new_grant = None if resumed.grant == known_grant else resumed.grant
    for msgid, (call, is_given_up) in unanswered.items():
        code = code_of(call)
        if msgid in resumed.pending:
            result.waiting.append(msgid)
        elif code in _ACQUIRE and new_grant is not None:
            if is_given_up:
                result.undo.append(operations.FREE)
            else:
                result.answers.append(Response(msgid, None, _granted(call, new_grant)))
            new_grant = None
        elif code in _FREE and known_grant is not None and resumed.grant != known_grant:
            result.answers.append(Response(msgid, None, _FREED))
        elif _is_undone(call, resumed, known_grant):
            result.again.append(msgid)
        else:
            result.lost.append(msgid)
    result.given_up.extend(msgid for msgid in result.waiting if unanswered[msgid].is_given_up)
    unwanted = set(resumed.registrations).difference(wanted)
    for call, _ in (unanswered[msgid] for msgid in result.lost):
        if code_of(call) == Ioctl.PARALLEL_CONNECT_INTERRUPT and call.params[1] in unwanted:
            result.undo.append(operations.disconnect_interrupt(call.params[1]))
    is_freed_again = any(code_of(unanswered[msgid].call) in _FREE for msgid in result.again)
    if known_grant is not None and resumed.grant == known_grant and not is_held and not is_freed_again:
        result.undo.append(operations.FREE)  # its block was left while there was no connection
    return result


def _is_undone(call: Call[Any], resumed: Resumed, known_grant: int | None) -> bool:
    """True for a free or a disconnect that has certainly not been carried out."""
    code = code_of(call)
    if code in _FREE:
        return known_grant is not None and resumed.grant == known_grant
    return code == Ioctl.PARALLEL_DISCONNECT_INTERRUPT and call.params[1] in resumed.registrations


def code_of(call: Call[Any]) -> int | None:
    """The control code that an operation asks; None for another method."""
    code = call.params[0] if call.method in _CONTROL and call.params else None
    return code if isinstance(code, int) else None


def _granted(call: Call[Any], grant: int) -> tuple[int, bytes]:
    """The result that the answer to an allocate or a try-allocate would have had."""
    output_length = call.params[2]
    if code_of(call) == Ioctl.PARALLEL_PORT_ALLOCATE:
        output = structs.U64.pack(grant) if output_length >= structs.U64.size else b""
    else:
        output = structs.TRY_ALLOCATE.pack(1, grant)
        output = output if output_length >= len(output) else output[:1]
    return len(output), output
