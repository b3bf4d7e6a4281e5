"""What an administrator asks of a port, in the blocking client."""

from __future__ import annotations

from typing import Any, TypeVar

from lpt_client import operations
from lpt_client.operations import Call

T = TypeVar("T")


class Administration:
    """The part of `Port` that is for administrators, and for looking at the queue.

    Raises AccessDenied for whom the daemon has not made one, NotSupported or InvalidParameter with an older daemon.
    """

    def drain(self, on: bool = True) -> dict[str, Any]:
        """Have nobody new granted, on any port of the daemon, while this session wants it so.

        Owners go on, those who wait keep their places. Returns `idle` (nobody owns a port any more) and `ports`.
        """
        return self._call(operations.drain(is_on=on))

    def revoke(self, reason: str | None = None) -> dict[str, Any]:
        """Take the port away from its owner, who is told why; the next in the queue gets it.

        Returns `revoked` (the number of the session that owned it, or None) and `grant`.
        """
        return self._call(operations.revoke(reason))

    def kick(self, session: int, reason: str | None = None) -> dict[str, Any]:
        """End the session of that number on this port; all that it holds is released at once. Returns `kicked`."""
        return self._call(operations.kick(session, reason))

    def pause(self, reason: str | None = None) -> dict[str, Any]:
        """Have the port rest: its owner loses it, nobody is granted, those who wait keep their places.

        Lasts until `resume_port`, or the daemon's end. Returns `paused`, and `was` (whether it was paused before).
        """
        return self._call(operations.pause(reason))

    def resume_port(self) -> dict[str, Any]:
        """End a `pause`: the longest waiter is granted. Returns `paused`, and `was`."""
        return self._call(operations.RESUME_PORT)

    def queue(self, first: int = 1) -> dict[str, Any]:
        """Who owns the port and who waits, up to 1,000 of them from place `first` on.

        Returns `owner` (or None), `waiting` (how many), `waiters`. Needs no administrator.
        """
        return self._call(operations.queue(first))

    def _call(self, call: Call[T]) -> T:
        raise NotImplementedError
