"""The secrets by which clients come back to their sessions: 128 random bits each, good for one use.

Only hashes are kept, so that neither a dump of the daemon's memory nor its file of sessions lets anybody in.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from lpt_service.core.requests import SessionState
from lpt_service.server.identity import Identity

if TYPE_CHECKING:
    from lpt_service.server.port_worker import PortWorker

_SECRET_BYTES: Final = 16


class Ticket(NamedTuple):
    """What a secret is good for.

    Attributes:
        digest: the secret's hash.
        identity: who may use it.
        host: what it was given to, as it is counted (`Origin.counted_as`); another one's use is as good.
    """

    digest: str
    worker: PortWorker
    state: SessionState
    identity: Identity
    host: str


class Tickets:
    """Those of all ports of a daemon: at most one a session."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Ticket] = {}
        self._of: dict[SessionState, Ticket] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def issue(self, worker: PortWorker, state: SessionState, identity: Identity, host: str) -> str:
        """A fresh secret for a session; an older one is good no longer."""
        secret = secrets.token_hex(_SECRET_BYTES)
        self.restore(Ticket(_digest(secret), worker, state, identity, host))
        return secret

    def restore(self, ticket: Ticket) -> None:
        """Let the secret with this hash be good for a session."""
        self.cancel(ticket.state)
        self._by_digest[ticket.digest] = self._of[ticket.state] = ticket

    def claim(self, secret: str, worker: PortWorker, identity: Identity) -> SessionState | None:
        """The session of this port that `secret` stands for, for the same identity; the secret is used up then."""
        found = self._by_digest.get(_digest(secret))
        if found is None or found.worker is not worker or not found.identity.is_same(identity):
            return None
        self.cancel(found.state)
        return found.state

    def cancel(self, state: SessionState) -> None:
        """A session has ended: nobody comes back to it."""
        ticket = self._of.pop(state, None)
        if ticket is not None:
            del self._by_digest[ticket.digest]

    def find(self, state: SessionState) -> Ticket | None:
        """That of a session; None if it has none."""
        return self._of.get(state)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
