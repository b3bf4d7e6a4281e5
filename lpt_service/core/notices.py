"""The notices of a port: what its sessions hear besides replies and interrupts. See `effects.Notice`."""

from __future__ import annotations

from lpt_service.core.interrupts import InterruptRegistry, Registration
from lpt_service.core.leases import Lease
from lpt_service.core.ownership import Ownership, Waiter
from lpt_service.core.requests import SessionState
from lpt_service.protocol import messages
from lpt_service.protocol.messages import Notification


class QueuedNotice:
    """`queued`: the place of a request in the queue; stale once it waits no longer."""

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self.key = (messages.QUEUED, waiter.request.msgid)

    def render(self) -> Notification | None:
        """The latest position."""
        if not self._waiter.is_waiting:
            return None
        return Notification(messages.QUEUED, (self._waiter.request.msgid, self._waiter.position))


class WaitersNotice:
    """`waiters`: how many wait, for one owner; stale once its ownership has ended, or if it knows the number.

    Attributes:
        grant: the ownership that it is for.
        told: the number that was sent last. A new owner takes it that nobody waits until it is told otherwise.
    """

    key = (messages.WAITERS,)

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self.grant = ownership.grant
        self.told = 0

    def render(self) -> Notification | None:
        """The latest number."""
        ownership = self._ownership
        if ownership.owner is None or ownership.grant != self.grant or ownership.waiting == self.told:
            return None
        self.told = ownership.waiting
        return Notification(messages.WAITERS, (self.told,))


class PortCheckNotice:
    """`port_check`: run a deferred routine; stale once somebody has allocated again or it is disconnected."""

    def __init__(self, registration: Registration, ownership: Ownership) -> None:
        self._registration = registration
        self._ownership = ownership
        self._grant = ownership.grant
        self.key = (messages.PORT_CHECK, registration.key)

    def render(self) -> Notification | None:
        """The routine and its context, if the port has been idle since that free."""
        structure = self._registration.structure
        if self._ownership.grant != self._grant or not self._registration.is_connected:
            return None
        return Notification(
            messages.PORT_CHECK, (structure.DeferredPortCheckRoutine, structure.DeferredPortCheckContext)
        )


class LeaseNotice:
    """`lease`: the owner will lose the port unless something happens; stale once it has, or the ownership is over."""

    def __init__(self, lease: Lease, ownership: Ownership, remaining_ms: int) -> None:
        self._lease = lease
        self._ownership = ownership
        self._grant = ownership.grant
        self._remaining_ms = remaining_ms
        self.key = (messages.LEASE, lease.reason)

    def render(self) -> Notification | None:
        """Why, and how many milliseconds were left when it was noticed."""
        if self._ownership.grant != self._grant or not self._lease.is_near():
            return None
        return Notification(messages.LEASE, (self._lease.reason, self._remaining_ms))


class RevokedNotice:
    """`revoked`: the session lost the port; stale once it has been granted again.

    The answer with that grant is sent first, and a client would take it that the new grant is meant.
    """

    key = (messages.REVOKED,)

    def __init__(self, session: SessionState, ownership: Ownership, reason: str) -> None:
        self._session = session
        self._ownership = ownership
        self._reason = reason

    def render(self) -> Notification | None:
        """The reason."""
        return None if self._ownership.owner is self._session else Notification(messages.REVOKED, (self._reason,))


class DisconnectedNotice:
    """`disconnected`: the port's removal has ended a registration; stale once the session has connected it again.

    The answer to that is sent first, and a client would take it that the new registration is meant.
    """

    def __init__(self, registration: Registration, registry: InterruptRegistry, reason: str) -> None:
        self._registration = registration
        self._registry = registry
        self._reason = reason
        self.key = (messages.DISCONNECTED, registration.key)

    def render(self) -> Notification | None:
        """The structure that was connected, and why it is no longer."""
        registration = self._registration
        if any(each.key == registration.key for each in self._registry.held_by(registration.session)):
            return None
        return Notification(messages.DISCONNECTED, (registration.key, self._reason))
