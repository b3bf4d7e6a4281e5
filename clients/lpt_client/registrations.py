"""The registrations of one port, in order: who is fed what, and how all are connected again. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final, Generic, TypeVar

from lpt_client.errors import LptError, RequestError
from lpt_client.events import Interrupt, Mark, PortCheck, Sync
from lpt_client.interrupt_stream import InterruptStream
from lpt_client.operations import Call, ConnectedInterrupt, connect_interrupt
from lpt_service.protocol.status import Status

S = TypeVar("S", bound=InterruptStream)

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

    def __iter__(self) -> Iterator[S]:
        return iter(self._all)

    def __contains__(self, registration: object) -> bool:
        return registration in self._by_token.values()

    def new_token(self) -> int:
        """A token that no registration of this port has had."""
        return next(self._tokens)

    def add(self, registration: S, stream: int) -> None:
        """Connected, on a session whose log is `stream`."""
        self._by_token[registration.token] = registration
        self._all = tuple(self._by_token.values())
        self._stream = stream

    def discard(self, registration: S) -> None:
        """Disconnected, or ended."""
        self._by_token.pop(registration.token, None)
        self._all = tuple(self._by_token.values())

    def feed(self, event: Interrupt | Mark | Sync) -> None:
        """Hand an event of the session's stream to every registration."""
        for registration in self._all:
            registration.feed(event)

    def find(self, check: PortCheck) -> S | None:
        """The registration whose deferred port check is to run; None if it is gone."""
        return self._by_token.get(check.routine)

    def calls_to_resume(self) -> list[tuple[S, Call[ConnectedInterrupt]]]:
        """The calls that connect everything again on a new connection, in the same order.

        The first that hears interrupts says where the session goes on; the others join it there.
        """
        heard = [each.next_seq for each in self if each.hears and each.next_seq is not None]
        resume_from = (self._stream, min(heard)) if heard else None
        calls = []
        for registration in self:
            begin_at = resume_from if registration.hears else None
            calls.append((registration, connect_interrupt(registration.structure, begin_at)))
            if registration.hears:
                resume_from = None
        self._is_resuming = True
        return calls

    def resumed(self, registration: S, connected: ConnectedInterrupt, session: int, stream: int) -> None:
        """One of `calls_to_resume` has been answered; call it before any event that follows the answer."""
        registration.begin(connected.first_seq)
        if self._is_resuming:
            self._is_resuming = False
            self._stream = stream
            for each in self:
                each.resume(session, stream)
