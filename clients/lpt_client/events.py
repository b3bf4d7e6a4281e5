"""What a client is told besides answers: the stream of interrupts, and notices.

Immutable, and cheap to make, for interrupts come by the hundred thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lpt_service.protocol.messages import (
    KIND_MASKED,
    KIND_STOPPED,
    KIND_UNHEARD,
    KIND_UNMASKED,
    SYNC_CONNECTED,
    SYNC_OVERRUN,
    SYNC_RESTARTED,
    SYNC_RESUMED,
)

__all__ = [
    "SYNC_CONNECTED",
    "SYNC_DROPPED",
    "SYNC_GAP",
    "SYNC_OVERRUN",
    "SYNC_RESTARTED",
    "SYNC_RESUMED",
    "Closing",
    "DisconnectedNotice",
    "Event",
    "Interrupt",
    "LeaseWarning",
    "Mark",
    "Notice",
    "PortCheck",
    "Queued",
    "Reconnected",
    "Resumed",
    "RevokedNotice",
    "SessionInfo",
    "Sync",
    "Waiters",
    "mark_name",
]

# Reasons of a Sync that this client adds to the daemon's.
SYNC_DROPPED: Final = "dropped"  # this program took its events too slowly
SYNC_GAP: Final = "gap"  # numbers are missing that the daemon said nothing about

_MARK_NAMES: Final[Mapping[int, str]] = {
    KIND_UNHEARD: "unheard",
    KIND_MASKED: "masked",
    KIND_UNMASKED: "unmasked",
    KIND_STOPPED: "stopped",
}


def mark_name(kind: int) -> str:
    """The name of a mark; a newer daemon may have more kinds than this knows."""
    return _MARK_NAMES.get(kind) or f"kind {kind}"


class Interrupt(NamedTuple):
    """The port raised `count` interrupts that no earlier event stands for.

    `seq` is the number of the first of them. `timestamp_ns` is CLOCK_MONOTONIC of the daemon when it learnt of the
    last of them; `status` and `control` are the registers then.
    """

    seq: int
    count: int  # type: ignore[assignment]  # hides tuple.count(), which nobody misses
    timestamp_ns: int
    status: int
    control: int


class Mark(NamedTuple):
    """The port was not heard for a time.

    `kind`: "unheard" (nobody listened until now: what came is unknown), "masked" and "unmasked" (the storm guard; what
    came between is unknown), "stopped" (port paused; or port removed or daemon stopping: the last of a registration).
    `seq` is the number that the next interrupt will have. The other members are those of Interrupt.
    """

    kind: str
    seq: int
    timestamp_ns: int
    status: int
    control: int


class Sync(NamedTuple):
    """A leap in the stream to `next_seq`: `lost` interrupts were not delivered (None: nobody knows how many).

    `reason`: "resumed" (after a broken connection; often nothing is lost), "overrun" (the daemon's log went past a
    connection that was read too slowly), "restarted" (the daemon began a new log), "dropped" (this program took its
    events too slowly), "gap" (a fault of the daemon).
    """

    reason: str
    next_seq: int
    lost: int | None


class Reconnected(NamedTuple):
    """The connection broke and has been made anew; a Sync that says what was lost follows.

    `session` is the same number as before where the daemon has kept the session.
    """

    session: int
    stream: int


Event = Interrupt | Mark | Sync | Reconnected


class Resumed(NamedTuple):
    """A session that goes on after its connection broke: what it still has.

    `grant`: by which it owns the port, or None; `position`: its place in the queue, or None; `pending`: the msgids that
    will be answered on the new connection; `registrations`: the structures that are connected.
    """

    grant: int | None
    position: int | None
    pending: tuple[int, ...]
    registrations: tuple[bytes, ...]


class SessionInfo(NamedTuple):
    """What the daemon answered to hello.

    `stream` is the identity of the port's interrupt log (another one after a restart of the daemon); `monotonic_ns` and
    `realtime_ns` are the daemon's clocks at that moment; `features` names what this daemon can beyond version 1.
    `resumed` is not None where this is an earlier session that goes on.
    """

    server: str
    port: str
    session: int
    stream: int
    monotonic_ns: int
    realtime_ns: int
    limits: Mapping[str, Any]
    features: tuple[str, ...]
    resumed: Resumed | None = None


class PortCheck(NamedTuple):
    """The deferred port check of the registration with the token `routine` is to run."""

    routine: int
    context: int


class Queued(NamedTuple):
    """The request `msgid` waits at `position`; 1 is next."""

    msgid: int
    position: int


class Waiters(NamedTuple):
    """So many requests wait for the port that this session owns."""

    count: int  # type: ignore[assignment]  # hides tuple.count()


class RevokedNotice(NamedTuple):
    """The session no longer owns the port."""

    reason: str


class DisconnectedNotice(NamedTuple):
    """The registration of `structure` has ended, for `reason`: its port was removed."""

    structure: bytes
    reason: str


class LeaseWarning(NamedTuple):
    """The port will be taken away from this session in `remaining_ms`, unless what is said in `reason` changes.

    `reason`: "held" (for too long, while others wait) or "idle" (nothing was done with it).
    """

    reason: str
    remaining_ms: int


class Closing(NamedTuple):
    """The daemon is about to close the connection."""

    reason: str


Notice = PortCheck | Queued | Waiters | RevokedNotice | DisconnectedNotice | LeaseWarning | Closing
