"""The registrations of one port, in order: who is fed what, and how all are connected again. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import count
from typing import Final, Generic, TypeVar

from lpt_client.errors import LptError, RequestError
from lpt_client.events import DisconnectedNotice, Interrupt, Mark, PortCheck, Sync
from lpt_client.interrupt_stream import STOPPED, InterruptStream
from lpt_client.operations import Call, ConnectedInterrupt, connect_interrupt, disconnect_interrupt
from lpt_service.protocol.status import Status

S = TypeVar("S", bound=InterruptStream)

_SILENCES: Final = ("masked", STOPPED)
# A daemon that says one of these will say it again.
_PERMANENT: Final = frozenset(
    (
        Status.STATUS_ACCESS_DENIED,
        Status.STATUS_NO_SUCH_DEVICE,
        Status.STATUS_NOT_SUPPORTED,
        Status.STATUS_INVALID_PARAMETER,
        Status.STATUS_UNSUCCESSFUL,
    )
)


def may_pass(error: LptError) -> bool:
    """True when trying again later may succeed: the daemon is away or full, the port is being removed or away."""
    return not isinstance(error, RequestError) or error.status not in _PERMANENT


class Registrations(Generic[S]):
    """What a port has registered. It outlives the connection, so that it can be connected again on the next one."""

    def __init__(self) -> None:
        self._by_token: dict[int, S] = {}
        self._all: tuple[S, ...] = ()  # the same, for those who go through them while they change
        self._tokens = count(1)
        self._stream = 0  # of the log that `next_seq` of every registration belongs to
        self._is_resuming = False
        self._left_behind: set[bytes] = set()
        self._latest_mark: Mark | None = None  # of the session's stream

    def __iter__(self) -> Iterator[S]:
        return iter(self._all)

    def __contains__(self, registration: object) -> bool:
        return registration in self._by_token.values()

    def new_token(self) -> int:
        """A token that no registration of this port has had."""
        return next(self._tokens)

    def add(self, registration: S, stream: int) -> None:
        """Add a registration, connected on a session whose log is `stream`. It gets the mark if nothing is heard."""
        self._by_token[registration.token] = registration
        self._all = tuple(self._by_token.values())
        self._stream = stream
        mark, next_seq = self._latest_mark, registration.next_seq
        if mark is not None and mark.kind in _SILENCES and next_seq is not None:
            registration.feed(mark._replace(seq=next_seq))

    def is_stopped_anew(self, mark: Mark) -> bool:
        """True when a mark that was just fed has ended them; one that is told again has not."""
        return mark.kind == STOPPED and any(each.is_stopped for each in self._all)

    def discard(self, registration: S) -> None:
        """Disconnected, or ended."""
        self._by_token.pop(registration.token, None)
        self._all = tuple(self._by_token.values())
        if not any(each.hears for each in self._all):
            self._latest_mark = None  # the session has left the log

    def leave_behind(self, registration: S) -> None:
        """It is gone, but the daemon may not have heard so: there is no connection, or it ended meanwhile."""
        self._left_behind.add(registration.structure)

    def feed(self, event: Interrupt | Mark | Sync) -> None:
        """Hand an event of the session's stream to every registration."""
        if type(event) is Mark:
            self._latest_mark = event
        for registration in self._all:
            registration.feed(event)

    def find_ended(self, notice: DisconnectedNotice) -> S | None:
        """The registration that has ended; None if it is gone, or hears interrupts: the mark "stopped" tells it."""
        return next((each for each in self._all if each.structure == notice.structure and not each.hears), None)

    def find(self, check: PortCheck) -> S | None:
        """The registration whose deferred port check is to run; None if it is gone."""
        return self._by_token.get(check.routine)

    def hear_from(self) -> tuple[int, int] | None:
        """Where the next connection is to go on: the stream, and the next number. None: nothing is heard."""
        heard = [each.next_seq for each in self if each.hears and each.next_seq is not None]
        return (self._stream, min(heard)) if heard else None

    def go_on(
        self, connected: Collection[bytes], session: int, stream: int
    ) -> tuple[list[tuple[S, Call[ConnectedInterrupt]]], list[Call[int]]]:
        """The session goes on, on a new connection, and `connected` is what it still has; call it before any event.

        Returns the calls that connect what it has not, and those that disconnect what was left behind.
        """
        is_heard = any(each.hears and each.structure in connected for each in self)
        missing = [each for each in self if each.structure not in connected]
        to_connect = self._connects(missing, None if is_heard else self.hear_from())
        to_disconnect = [disconnect_interrupt(each) for each in self._left_behind if each in connected]
        self._left_behind.clear()
        self._is_resuming = False
        self._stream = stream
        for each in self:
            each.resume(session, stream)
        return to_connect, to_disconnect

    def calls_to_resume(self) -> list[tuple[S, Call[ConnectedInterrupt]]]:
        """The calls that connect everything again on a new connection, in the same order.

        The first that hears interrupts says where the session goes on; the others join it there.
        """
        self._left_behind.clear()
        self._is_resuming = True
        return self._connects(self, self.hear_from())

    def _connects(
        self, registrations: Iterable[S], resume_from: tuple[int, int] | None
    ) -> list[tuple[S, Call[ConnectedInterrupt]]]:
        calls = []
        for registration in registrations:
            if registration.is_leaving:
                continue
            begin_at = resume_from if registration.hears else None
            calls.append((registration, connect_interrupt(registration.structure, begin_at)))
            if registration.hears:
                resume_from = None
        return calls

    def resumed(self, registration: S, connected: ConnectedInterrupt, session: int, stream: int) -> None:
        """One of `calls_to_resume` has been answered; call it before any event that follows the answer."""
        registration.begin(connected.first_seq)
        if self._is_resuming:
            self._is_resuming = False
            self._stream = stream
            for each in self:
                each.resume(session, stream)
