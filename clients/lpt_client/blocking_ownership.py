"""Owning the port, in the blocking client: taking it, giving it back, and being told that it is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lpt_client import operations
from lpt_client.blocking_link import Link
from lpt_client.errors import InvalidDeviceState, LptError, Revoked
from lpt_client.events import LeaseWarning, RevokedNotice, Waiters
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call

if TYPE_CHECKING:
    from lpt_client.blocking_keeper import Keeper


class Hold:
    """The port is owned, on one link, until it is freed or taken away (`revoked` says why)."""

    def __init__(self, link: Link, grant: int) -> None:
        self.link = link
        self.grant = grant
        self.revoked: str | None = None


class Ownership:
    """Whether a port's session owns it. It goes on with the session when that goes on after a broken connection.

    Attributes:
        hold, last_grant, revoked, waiting, lease_warning: as in `trio_ownership`.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.hold: Hold | None = None
        self.last_grant: int | None = None
        self.revoked: str | None = None
        self.waiting = 0
        self.lease_warning: LeaseWarning | None = None
        self._keeper = keeper

    @property
    def grant(self) -> int | None:
        """By which the port is owned, as far as is known."""
        hold = self.hold
        if hold is None or hold.revoked is not None or (hold.link.is_over and not self._keeper.is_suspended):
            return None
        return hold.grant

    def acquire(
        self,
        call: Call[Any],
        deadline_s: float | None = None,
        *,
        on_queued: Callable[[int], object] | None = None,
    ) -> Hold | None:
        """Carry out an allocate or a try-allocate."""
        grant = self._keeper.call(call, deadline_s, on_queued=on_queued)
        if grant is None:
            return None
        self.hold = Hold(self._keeper.link, grant)
        self.last_grant = grant
        self.revoked = self.lease_warning = None
        self.waiting = 0
        return self.hold

    def release(self, hold: Hold) -> None:
        """Free the port, unless it was freed before. Raises Revoked or ConnectionLost if it was lost."""
        if hold.revoked is not None:
            raise Revoked(hold.revoked)
        if hold.link.is_over and not (self.hold is hold and self._keeper.is_suspended):
            raise self._keeper.error(hold.link.error())
        if self.hold is not hold:
            return
        try:
            self._keeper.call(operations.FREE, time.monotonic() + CLEANUP_TIMEOUT_S)
        except InvalidDeviceState:
            if hold.revoked is not None:
                raise Revoked(hold.revoked) from None  # taken away just then
            raise
        except BaseException as exc:
            # Ctrl-C, perhaps before it was sent; if it was, there is nothing to free. The next link would settle it.
            if not isinstance(exc, LptError) and not hold.link.is_over:
                with suppress(LptError):
                    self._keeper.call(operations.FREE, time.monotonic() + CLEANUP_TIMEOUT_S)
            raise
        finally:
            self.hold = None

    def disown(self) -> None:
        """In a forked child: the parent owns the port, or waits for it, or does not."""
        self.hold, self.revoked, self.lease_warning, self.waiting = None, None, None, 0

    def on_resumed(self, link: Link, grant: int | None, *, is_freed: bool) -> None:
        """The session goes on on `link`, and owns the port by `grant`, or not any more. `is_freed`: by itself."""
        hold = self.hold
        if hold is not None:
            hold.link = link
            if hold.grant != grant and not is_freed:
                hold.revoked = hold.revoked or "while the connection was broken"  # the notice that says why comes next

    def on_notice(self, event: Waiters | RevokedNotice | LeaseWarning) -> None:
        """Something about it was told."""
        if type(event) is Waiters:
            self.waiting = event.count
        elif type(event) is LeaseWarning:
            self.lease_warning = event
        elif type(event) is RevokedNotice:
            self.revoked = event.reason
            if self.hold is not None:
                self.hold.revoked = event.reason
                self.hold = None
