"""Owning the port, in the trio client: taking it, giving it back, and being told that it is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from lpt_client import operations
from lpt_client.errors import InvalidDeviceState, LptError, Revoked
from lpt_client.events import LeaseWarning, RevokedNotice, Waiters
from lpt_client.operations import CLEANUP_TIMEOUT_S, Call
from lpt_service.protocol.messages import Response

if TYPE_CHECKING:
    from lpt_client.trio_keeper import Keeper


class Hold:
    """The port is owned, until it is freed or lost. `scope` is around the block that relies on it."""

    def __init__(
        self,
        grant: int,
        on_waiters: Callable[[int], object] | None,
        on_lease: Callable[[LeaseWarning], object] | None,
    ) -> None:
        self.grant = grant
        self.on_waiters = on_waiters
        self.on_lease = on_lease
        self.scope = trio.CancelScope()
        self.make_error: Callable[[], LptError] | None = None

    def lose(self, make_error: Callable[[], LptError]) -> None:
        """The port is no longer owned: end the block."""
        self.make_error = make_error
        self.scope.cancel()


class Ownership:
    """Whether a port's session owns it. It goes on with the session when that goes on after a broken connection.

    Attributes:
        hold: the ownership; None while the port is not owned.
        last_grant: the number of the last grant, whatever became of it.
        revoked: why the port was taken away; None since the last grant.
        waiting: how many wait for the port that is owned, as the daemon told last.
        lease_warning: the last warning that the port will be taken away; None since the last grant.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.hold: Hold | None = None
        self.last_grant: int | None = None
        self.revoked: str | None = None
        self.waiting = 0
        self.lease_warning: LeaseWarning | None = None
        self._keeper = keeper
        self._lost: Hold | None = None

    # Taking it and giving it back

    async def acquire(
        self,
        call: Call[int],
        *,
        answer_within_s: float,
        on_queued: Callable[[int], object] | None,
        on_waiters: Callable[[int], object] | None,
        on_lease: Callable[[LeaseWarning], object] | None,
    ) -> Hold:
        """Carry out an allocate. `answer_within_s` is later than the daemon's own time-out."""
        self._keeper.check()
        taken: list[Hold] = []
        on_response = partial(self._on_granted, call, on_waiters, on_lease, taken)
        try:
            with trio.move_on_after(answer_within_s) as scope:
                await self._keeper.call(call, answer_by=scope.deadline, on_queued=on_queued, on_response=on_response)
                return taken[0]
        except BaseException:
            self._forget(taken)  # given back by the call
            raise
        raise self._keeper.lose_link(f"the daemon did not answer {call.what} within {answer_within_s:g} s", call.what)

    async def try_acquire(self) -> int | None:
        """Carry out a try-allocate."""
        call = operations.try_allocate(await self._keeper.callbacks())
        taken: list[Hold] = []
        try:
            return await self._keeper.call(call, on_response=partial(self._on_granted, call, None, None, taken))
        except BaseException:
            self._forget(taken)
            raise

    def _on_granted(
        self,
        call: Call[int] | Call[int | None],
        on_waiters: Callable[[int], object] | None,
        on_lease: Callable[[LeaseWarning], object] | None,
        taken: list[Hold],
        response: Response,
    ) -> None:
        """In the reader's task, so that a loss of the port that is told right after the grant finds the hold."""
        grant = None if response.error is not None else call.finish(response)
        if grant is not None:
            self.hold = Hold(grant, on_waiters, on_lease)
            self.last_grant = grant
            self.revoked = self.lease_warning = None
            self.waiting = 0
            taken.append(self.hold)

    def _forget(self, taken: list[Hold]) -> None:
        if taken and self.hold is taken[0]:
            self.hold = None

    async def release(self, hold: Hold, *, is_quiet: bool) -> None:
        """Free the port, unless it was freed or lost before. `is_quiet`: a failure is nothing to tell."""
        if self.hold is not hold:
            return
        free = operations.FREE
        try:
            with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
                await self._keeper.call(free)
            if scope.cancelled_caught:
                reason = f"the daemon did not answer {free.what} within {CLEANUP_TIMEOUT_S:g} s"
                raise self._keeper.lose_link(reason, free.what)
        except LptError as exc:
            if is_quiet:
                return
            if isinstance(exc, InvalidDeviceState) and hold.make_error is not None:
                raise hold.make_error() from None  # taken away just then
            raise
        finally:
            self._forget([hold])

    # What the link tells

    def disown(self, make_error: Callable[[], LptError]) -> None:
        """In a forked child: the parent owns the port, or waits for it, or does not."""
        if self.hold is not None:
            self.hold.make_error = make_error
        self._lost, self.hold = self.hold, None
        self.revoked, self.lease_warning, self.waiting = None, None, 0

    def end_block(self) -> None:
        """The same, in the loop: end the block that relies on the port."""
        if self._lost is not None:
            self._lost.scope.cancel()

    def lose(self, make_error: Callable[[], LptError]) -> None:
        """The port is no longer owned."""
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.lose(make_error)

    def on_resumed(self, grant: int | None) -> None:
        """The session goes on, and owns the port by `grant`, or not any more."""
        if self.hold is not None and self.hold.grant != grant:
            # The notice that says why comes next.
            self.lose(lambda: Revoked(self.revoked or "while the connection was broken"))

    def on_notice(self, event: Waiters | RevokedNotice | LeaseWarning) -> None:
        """Something about it was told."""
        hold = self.hold
        if type(event) is Waiters:
            self.waiting = event.count
            if hold is not None and hold.on_waiters is not None:
                hold.on_waiters(event.count)
        elif type(event) is LeaseWarning:
            self.lease_warning = event
            if hold is not None and hold.on_lease is not None:
                hold.on_lease(event)
        elif type(event) is RevokedNotice:
            reason = self.revoked = event.reason
            self.lose(lambda: Revoked(reason))
