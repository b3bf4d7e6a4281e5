"""Who owns the port, and who waits for it: one FIFO queue.

Rules (docs/protocol.md, semantics 1 and 2), all of which live here:
  - at most one owner; the owner is a session, never a name or an address;
  - a session waits at most once, and not while it owns;
  - the port goes to the longest waiter, in the step that freed it; nobody overtakes, try-allocate included;
  - so, between steps, a port with waiters has an owner, unless it is being drained or is closed (paused, or not there):
    then nobody new is granted;
  - each grant has a number, larger than every one before.
"""

from __future__ import annotations

from collections import OrderedDict

from lpt_service.core.requests import ControlRequest, SessionState
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status


class Waiter:
    """An allocate request in the queue.

    Attributes:
        position: its place as of the last `number_waiters`; 1 is next.
        told_position: what the last `queued` notice said; the first one is sent when it is enqueued.
        since_ns: when that was.
    """

    __slots__ = ("is_waiting", "position", "request", "since_ns", "told_position")

    def __init__(self, request: ControlRequest, position: int, now_ns: int) -> None:
        self.request = request
        self.position = self.told_position = position
        self.since_ns = now_ns
        self.is_waiting = True


class Ownership:
    """The queue of one port.

    Attributes:
        owner: the session that owns the port, or None.
        grant: the number of the grant in force; of the last one while nobody owns.
        last_grant: the largest number given out, which one in force from a former daemon does not reach.
        since_ns: when the owner got it.
        written: how many bytes the owner has put on the data lines.
        drainers: sessions for whose sake nobody new is granted.
        is_closed: nobody new is granted for the port's own sake.
        grants, frees, forced_releases: how often ownership began, ended by a free, ended otherwise.
    """

    def __init__(self, last_grant: int, max_waiters: int) -> None:
        self.owner: SessionState | None = None
        self.grant = last_grant
        self.since_ns = 0
        self.written = 0
        self.max_waiters = max_waiters
        self.drainers: set[SessionState] = set()
        self.is_closed = False
        self.grants = self.frees = self.forced_releases = 0
        self.last_grant = last_grant
        self._queue: OrderedDict[SessionState, Waiter] = OrderedDict()

    @property
    def waiting(self) -> int:
        """QueryNumWaiters: requests in the queue, the owner not counted."""
        return len(self._queue)

    @property
    def is_open(self) -> bool:
        """True unless nobody new is granted, for whatever reason."""
        return not self.drainers and not self.is_closed

    @property
    def is_available(self) -> bool:
        """True when an allocate would succeed at once."""
        return self.owner is None and not self._queue and not self.drainers and not self.is_closed

    def waiters(self) -> list[Waiter]:
        """The queue, next one first."""
        return list(self._queue.values())

    def find_waiter(self, session: SessionState) -> Waiter | None:
        """The session's request in the queue, if it has one."""
        return self._queue.get(session)

    def take(self, session: SessionState, now_ns: int) -> int:
        """Make `session` the owner of an available port; the number of its grant."""
        assert self.is_available
        return self._grant_to(session, now_ns)

    def enqueue(self, request: ControlRequest, now_ns: int) -> Waiter:
        """Append an allocate request.

        Raises RequestError: STATUS_INVALID_DEVICE_STATE if its session owns the port or waits already,
        STATUS_INSUFFICIENT_RESOURCES if the queue is full.
        """
        self.check_may_allocate(request.session)
        if len(self._queue) >= self.max_waiters:
            raise RequestError(
                Status.STATUS_INSUFFICIENT_RESOURCES, f"queue: {self.max_waiters} requests wait already, the limit"
            )
        return self._append(request, now_ns)

    def check_may_allocate(self, session: SessionState) -> None:
        """Raise RequestError(STATUS_INVALID_DEVICE_STATE) if `session` owns the port or waits for it."""
        if self.owner is session:
            raise RequestError(Status.STATUS_INVALID_DEVICE_STATE, "this session owns the port already")
        if session in self._queue:
            raise RequestError(Status.STATUS_INVALID_DEVICE_STATE, "this session waits for the port already")

    def check_is_owner(self, session: SessionState) -> None:
        """Raise RequestError(STATUS_INVALID_DEVICE_STATE) unless `session` may free the port."""
        if self.owner is not session:
            raise RequestError(Status.STATUS_INVALID_DEVICE_STATE, "this session does not own the port")

    def withdraw(self, session: SessionState) -> Waiter | None:
        """Take a session's request out of the queue, wherever it stands."""
        waiter = self._queue.pop(session, None)
        if waiter is not None:
            waiter.is_waiting = False
        return waiter

    def vacate(self, *, voluntary: bool) -> None:
        """End the ownership. The same step must call `hand_on` before anything else can happen."""
        assert self.owner is not None
        self.owner = None
        if voluntary:
            self.frees += 1
        else:
            self.forced_releases += 1

    def hand_on(self, now_ns: int) -> Waiter | None:
        """Make the longest waiter the owner, if the port is vacant and open, and anybody waits."""
        if self.owner is not None or not self._queue or not self.is_open:
            return None
        session, waiter = self._queue.popitem(last=False)
        waiter.is_waiting = False
        self._grant_to(session, now_ns)
        return waiter

    def number_waiters(self) -> list[Waiter]:
        """Set every waiter's position; O(waiters), so it is done for notices and status, not for every change."""
        waiters = self.waiters()
        for position, waiter in enumerate(waiters, 1):
            waiter.position = position
        return waiters

    def restore(self, session: SessionState, grant: int, now_ns: int) -> None:
        """Make `session` the owner of a vacant port by a grant of a former daemon."""
        assert self.owner is None
        self.last_grant = max(self.last_grant, grant)
        self._begin(session, grant, now_ns)

    def restore_waiter(self, request: ControlRequest, now_ns: int) -> None:
        """Append a request that waited in a former daemon, whatever the limit is now."""
        self.check_may_allocate(request.session)
        self._append(request, now_ns)

    def _append(self, request: ControlRequest, now_ns: int) -> Waiter:
        waiter = self._queue[request.session] = Waiter(request, len(self._queue) + 1, now_ns)
        return waiter

    def _grant_to(self, session: SessionState, now_ns: int) -> int:
        self.last_grant += 1
        self._begin(session, self.last_grant, now_ns)
        return self.grant

    def _begin(self, session: SessionState, grant: int, now_ns: int) -> None:
        self.owner = session
        self.grant = grant
        self.since_ns = now_ns
        self.written = 0
        self.grants += 1
