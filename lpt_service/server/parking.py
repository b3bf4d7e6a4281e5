"""Sessions whose connection broke, and that go on without one for the port's grace time.

What a session holds (`SessionState`) and what it is still to be told (`Outbox`) stay; the client comes back with the
secret that hello gave it. When the time is over, everything is released as if the connection had ended then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lpt_service.core.deadlines import Deadline
from lpt_service.core.requests import SESSION_ENDED, SessionState
from lpt_service.log import SessionLogger
from lpt_service.protocol.ioctl import Role
from lpt_service.server.hello import Hello
from lpt_service.server.identity import Identity
from lpt_service.server.outbox import Outbox
from lpt_service.server.tickets import Ticket, Tickets

if TYPE_CHECKING:
    from lpt_service.server.port_worker import PortWorker
    from lpt_service.server.session import Session

# Sessions of a port that hold nothing, and are kept for answers to disconnects that their clients may not have read.
# When there are more, the oldest ends: a client that comes and goes without a goodbye must not use up the sessions.
HOLDING_NOTHING_MAX: Final = 64
_ROLE_LOST: Final = "the role use was taken away"
_log = logging.getLogger(__name__)


class _Parked(NamedTuple):
    outbox: Outbox
    deadline: Deadline
    is_restored: bool  # by a daemon that has just started


class Parking:
    """Those of one port. Iterates over what they hold.

    Attributes:
        grace_s: how long a session may be without a connection; 0: not at all.
        spared: those that outlive the daemon; what they hold stays as it is while it stops.
    """

    def __init__(self, worker: PortWorker, tickets: Tickets) -> None:
        self.grace_s = 0.0
        self.spared: set[SessionState] = set()
        self.tickets = tickets
        self._worker = worker
        self._parked: dict[SessionState, _Parked] = {}
        self._holding_nothing: dict[SessionState, None] = {}  # those of them, the oldest first

    def __iter__(self) -> Iterator[SessionState]:
        return iter(self._parked)

    def __len__(self) -> int:
        return len(self._parked)

    def outbox_of(self, state: SessionState) -> Outbox | None:
        """What a parked session is still to be told."""
        parked = self._parked.get(state)
        return None if parked is None else parked.outbox

    def count_from(self, host: str) -> int:
        """How many of them came from one address."""
        return sum(ticket.host == host for ticket in self._tickets())

    def identities(self) -> Iterator[Identity]:
        """Whose they are."""
        return (ticket.identity for ticket in self._tickets())

    def outboxes(self) -> list[Outbox]:
        """Those of all parked sessions."""
        return [each.outbox for each in self._parked.values()]

    def park(self, session: Session) -> bool:
        """Keep what a session holds, whose connection broke; False if there is nothing to keep, or no grace."""
        state, worker = session.state, self._worker
        assert state is not None
        if self.grace_s <= 0 or self.tickets.find(state) is None:
            return False
        if not self._holds_anything(state):
            if not session.outbox.unread:
                return False
            if len(self._holding_nothing) >= HOLDING_NOTHING_MAX:
                self._release(next(iter(self._holding_nothing)), SESSION_ENDED)
            self._holding_nothing[state] = None
        outbox = worker.part(session)
        self._keep(state, outbox, is_restored=False)
        worker.carry_out()  # the timer is to know of the deadline
        session.log.info("kept for %g s without a connection", self.grace_s)
        return True

    def restore(self, ticket: Ticket) -> None:
        """Keep a session of a former daemon."""
        self.tickets.restore(ticket)
        self._keep(ticket.state, Outbox(), is_restored=True)

    def spare(self) -> None:
        """The daemon stops: choose the sessions that outlive it."""
        if self.grace_s > 0:
            leaving = {state for state, session in self._worker.sessions.items() if session.is_leaving}
            states = (state for state in self._worker.states() if self.tickets.find(state) is not None)
            self.spared = {state for state in states if self._holds_of_port(state)} - leaving

    def claim(self, session: Session, said: Hello, role: Role) -> SessionState | None:
        """Give a connection the session that its secret stands for; another one that still has it is closed first.

        One that holds what `role` does not allow any more is ended instead.
        """
        state = None if said.resume is None else self.tickets.claim(said.resume, self._worker, session.identity)
        if state is None:
            return None
        former = self._worker.sessions.get(state)
        if former is not None and former.is_leaving:  # it was kicked, or has said goodbye, and is about to end
            return None
        if role < Role.USE and self._holds_what_needs_use(state):
            self._send_away(state, former)
            return None
        if said.notifications is not None:
            session.outbox.set_wanted(said.notifications)
        if former is not None:
            outbox = self._worker.part(former)
            former.yield_to(session)
            is_restored = False
        else:
            outbox, deadline, is_restored = self._parked.pop(state)
            self._holding_nothing.pop(state, None)
            self._worker.driver.deadlines.cancel(deadline)
        session.outbox.resume(outbox, said.resume_from, is_restart=is_restored)
        self._worker.driver.arbiter.repeat_waiters(state, self._worker.clock.monotonic_ns())
        return state

    def describe(self, state: SessionState, outbox: Outbox) -> dict[str, Any]:
        """`resumed` in the answer to hello: what the session still holds, and what `outbox` still has to answer."""
        driver = self._worker.driver
        is_owner = driver.ownership.owner is state
        places = {each.request.session: each.position for each in driver.ownership.number_waiters()}
        return {
            "grant": driver.ownership.grant if is_owner else None,
            "position": places.get(state),
            "pending": [*state.pending, *outbox.repeated],
            "registrations": [each.key for each in driver.registry.held_by(state)],
        }

    def evict(self, number: int, why: str) -> bool:
        """Release what the parked session `number` holds; False if there is none."""
        for state in self._parked:
            if state.session == number:
                self._release(state, why)
                return True
        return False

    def _tickets(self) -> Iterator[Ticket]:
        return (ticket for ticket in map(self.tickets.find, self._parked) if ticket is not None)

    def _holds_anything(self, state: SessionState) -> bool:
        return self._holds_of_port(state) or state in self._worker.driver.ownership.drainers

    def _holds_of_port(self, state: SessionState) -> bool:
        """Whether it holds something that outlives the daemon; a drain does not, whose purpose is a restart."""
        driver = self._worker.driver
        return driver.ownership.owner is state or bool(state.pending) or driver.registry.holds(state)

    def _holds_what_needs_use(self, state: SessionState) -> bool:
        driver = self._worker.driver
        is_called_for_it = any(each.has_deferred_check for each in driver.registry.held_by(state))
        return driver.ownership.owner is state or bool(state.pending) or is_called_for_it

    def _send_away(self, state: SessionState, connection: Session | None) -> None:
        """Release what a session holds that lost its role; also where it has a connection still."""
        if connection is None:
            self._release(state, _ROLE_LOST)
        else:
            connection.why_released = _ROLE_LOST
            connection.end(_ROLE_LOST)

    def _keep(self, state: SessionState, outbox: Outbox, *, is_restored: bool) -> None:
        now_ns = self._worker.clock.monotonic_ns()
        deadline = self._worker.driver.deadlines.schedule(
            now_ns + int(self.grace_s * 1e9), lambda now_ns: self._run_out(state)
        )
        self._parked[state] = _Parked(outbox, deadline, is_restored)

    def _run_out(self, state: SessionState) -> None:
        SessionLogger(_log, state.session, state.identity).info(
            "nobody came back within %g s: what it held is released", self.grace_s
        )
        self._release(state, SESSION_ENDED)

    def _release(self, state: SessionState, why: str) -> None:
        parked = self._parked.pop(state)
        self._holding_nothing.pop(state, None)
        self._worker.driver.deadlines.cancel(parked.deadline)
        self._worker.release(state, parked.outbox, why)
