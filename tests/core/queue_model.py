"""The queue of a port as a child would write it: lists that are searched, nothing clever.

It knows the contract's semantics 1, 2, 6, 10 and 11, leases, and how a port is revoked and paused, and predicts the
answer to every request. Times of the leases are worked out anew at whatever touches them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lpt_service.protocol.status import Status
from tests.core.harness import LAST_GRANT, MS, Call, Client

MAX_WAITERS = 3
MAX_PENDING = 3
SAFE_DATA = 0xAA
# Odd, so that nothing of a lease comes together with a time-out or the end of a job.
MAX_HOLD_NS = 900 * MS + 30_011
IDLE_HOLD_NS = 700 * MS + 70_001
WARNING_NS = 200 * MS + 1_009
HELD, IDLE = "held", "idle"


@dataclass
class Asked:
    """A request as the model sees it; `expected` is its answer: the value of its output, or a Status."""

    client: Client
    call: Call
    begin: Callable[[Asked], None]
    timeout_ms: int | None = None
    asked_ns: int = 0
    value: int = 0
    after: int = 0
    width_us: int = 0
    expected: int | Status | None = None

    @property
    def timeout_ns(self) -> int | None:
        """When it times out, if it still waits."""
        return None if self.timeout_ms is None else self.asked_ns + self.timeout_ms * MS


@dataclass
class QueueModel:
    """One port, its owner, its queue, its job and what waits behind it."""

    now_ns: int
    owner: Client | None = None
    grant: int = LAST_GRANT
    queue: list[Asked] = field(default_factory=list)
    job: Asked | None = None
    job_due_ns: int = 0
    behind: list[Asked] = field(default_factory=list)
    has_lease: bool = False
    is_paused: bool = False
    drainers: set[Client] = field(default_factory=set)
    is_check_due: bool = False  # once it is idle, unless somebody gets it first
    since_ns: int = 0
    wanted_ns: int | None = None  # when somebody asked for the owner's port, or the last one who waited left
    is_wanted: bool = False  # the last of the two was that somebody asked
    held_until_ns: int | None = None  # when the port is taken if it is wanted still: its owner has been warned
    is_to_be_taken: bool = False  # that time is over, and somebody has just asked
    idle_until_ns: int | None = None  # when the port is taken if its owner does nothing
    is_idle_warned: bool = False
    warned: set[tuple[int, Client, str]] = field(default_factory=set)  # every warning there was
    data: int = 0
    is_safe: bool = True
    is_failing: bool = False
    to_check: set[Client] = field(default_factory=set)  # who is to be told of a port check
    checkers: set[Client] = field(default_factory=set)  # who has connected a deferred port check

    def pending(self) -> list[Asked]:
        """Every request without an answer."""
        return [*self.queue, *([self.job] if self.job else []), *self.behind]

    # Requests

    def ask(self, asked: Asked) -> None:
        """A request arrives."""
        asked.asked_ns = self.now_ns
        self.hear_of(asked.client)
        if self.job is None or self.job.client is not asked.client:
            asked.begin(asked)
        elif self._may_wait(asked):
            self.behind.append(asked)

    def hear_of(self, client: Client) -> None:
        """Any request arrives, also one that the model does not know."""
        if client is self.owner:
            self._owner_is_active()

    def _may_wait(self, asked: Asked) -> bool:
        waiting = [each for each in self.pending() if each.client is asked.client]
        if asked.timeout_ms == 0:
            asked.expected = Status.STATUS_IO_TIMEOUT
        elif len(waiting) >= MAX_PENDING:
            asked.expected = Status.STATUS_INSUFFICIENT_RESOURCES
        return asked.expected is None

    def allocate(self, asked: Asked) -> None:
        """PARALLEL_PORT_ALLOCATE."""
        if self._is_free():
            self._take(asked)
        elif self.owner is asked.client or any(each.client is asked.client for each in self.queue):
            asked.expected = Status.STATUS_INVALID_DEVICE_STATE
        else:
            self._want()
            if not self._may_wait(asked):
                return
            if len(self.queue) == MAX_WAITERS:
                asked.expected = Status.STATUS_INSUFFICIENT_RESOURCES
            else:
                self.queue.append(asked)

    def try_allocate(self, asked: Asked) -> None:
        """TRY_ALLOCATE_PORT."""
        if self._is_free():
            self._take(asked)
            if not isinstance(asked.expected, Status):
                assert asked.expected is not None
                asked.expected = 1 | asked.expected << 64
        else:
            asked.expected = 0
            if self.owner is not asked.client:
                self._want()

    def free(self, asked: Asked) -> None:
        """PARALLEL_PORT_FREE."""
        if self.owner is not asked.client:
            asked.expected = Status.STATUS_INVALID_DEVICE_STATE
        else:
            asked.expected = 0
            self._hand_on()

    def write(self, asked: Asked) -> None:
        """WRITE_PORT_UCHAR to the data register."""
        if self.is_paused:
            asked.expected = Status.STATUS_DEVICE_NOT_READY
        elif self.owner is not asked.client:
            asked.expected = Status.STATUS_ACCESS_DENIED
        else:
            asked.expected = 0 if self._drive(asked.value) else Status.STATUS_IO_DEVICE_ERROR

    def pulse(self, asked: Asked) -> None:
        """PULSE."""
        if self.is_paused:
            asked.expected = Status.STATUS_DEVICE_NOT_READY
        elif self.owner is not asked.client:
            asked.expected = Status.STATUS_ACCESS_DENIED
        elif not self._drive(asked.value):
            asked.expected = Status.STATUS_IO_DEVICE_ERROR
        else:
            self.job, self.job_due_ns = asked, self.now_ns + asked.width_us * 1000
            self._owner_is_active()

    # What ends requests

    def end(self, asked: Asked, status: Status) -> None:
        """A pending request is cancelled or times out."""
        asked.expected = status
        if asked in self.queue:
            self._leave([asked])
        elif asked in self.behind:
            self.behind.remove(asked)
        else:
            self._cut_job()
            self._run_behind()

    def die(self, client: Client) -> None:
        """A session ends."""
        for asked in self.pending():
            if asked.client is client:
                asked.expected = Status.STATUS_CANCELLED
        self._leave([each for each in self.queue if each.client is client])
        if self.job is not None and self.job.client is client:
            self.behind.clear()
            self._cut_job()
        self.checkers.discard(client)
        self.to_check.discard(client)
        if self.owner is client:
            self.is_safe = False
            self._hand_on()
        self.drain(client, is_on=False)

    # Administration

    def revoke(self) -> None:
        """The owner loses the port."""
        if self.owner is None:
            return
        for asked in (*([self.job] if self.job else []), *self.behind):
            asked.expected = Status.STATUS_ACCESS_DENIED
        self.behind.clear()
        if self.job is not None:
            self._cut_job()
        self.is_safe = False
        self._hand_on()

    def pause(self) -> None:
        """Nobody is granted."""
        if not self.is_paused:
            self.is_paused = True
            self.revoke()

    def resume(self) -> None:
        """The longest waiter is."""
        if self.is_paused:
            self.is_paused, self.is_safe = False, False
            self._reopen()

    def drain(self, client: Client, *, is_on: bool) -> None:
        """Nobody is granted; or again, the longest waiter first."""
        if is_on:
            self.drainers.add(client)
        elif client in self.drainers:
            self.drainers.remove(client)
            self._reopen()

    def _reopen(self) -> None:
        if self._is_open() and self.owner is None and (self.queue or self.is_check_due):
            self._hand_on()

    # Leases

    def is_near(self, reason: str) -> bool:
        """Whether the owner's warning holds."""
        return self.is_idle_warned if reason == IDLE else self.held_until_ns is not None and self.is_wanted

    def settle(self) -> None:
        """What follows a request at once."""
        if self.is_to_be_taken:
            self.revoke()

    def _owner_is_active(self) -> None:
        self.is_idle_warned = False
        self.idle_until_ns = None if self.job or not self.has_lease else self.now_ns + IDLE_HOLD_NS

    def _want(self) -> None:
        """Somebody else asks for the port."""
        if self.owner is None:
            return
        if not self.queue and (self.wanted_ns is None or self.now_ns - self.wanted_ns > WARNING_NS):
            self.held_until_ns = None
        self.wanted_ns, self.is_wanted = self.now_ns, True
        self._look_at_lease()
        self.is_to_be_taken = self.held_until_ns is not None and self.held_until_ns <= self.now_ns

    def _leave(self, leaving: list[Asked]) -> None:
        """Those go that have waited."""
        for asked in leaving:
            self.queue.remove(asked)
            if not self.queue:
                self.wanted_ns, self.is_wanted = self.now_ns, False

    def _look_at_lease(self) -> None:
        """Somebody wants the port at this moment."""
        is_time = self.since_ns + MAX_HOLD_NS - WARNING_NS <= self.now_ns
        if self.has_lease and is_time and self.held_until_ns is None:
            assert self.owner is not None
            self.warned.add((self.now_ns, self.owner, HELD))
            self.held_until_ns = self.now_ns + WARNING_NS

    def _run_leases(self) -> None:
        if self.owner is None:
            return
        is_idle = self.idle_until_ns is not None and self.idle_until_ns - WARNING_NS <= self.now_ns
        if is_idle and not self.is_idle_warned:
            self.warned.add((self.now_ns, self.owner, IDLE))
            self.is_idle_warned = True
        if self.queue:
            self._look_at_lease()
        is_held = bool(self.queue) and self.held_until_ns is not None and self.held_until_ns <= self.now_ns
        if is_held or (self.idle_until_ns is not None and self.idle_until_ns <= self.now_ns):
            self.revoke()

    def _lease_dues_ns(self) -> list[int | None]:
        if self.owner is None or not self.has_lease:
            return []
        idle = [self.idle_until_ns]
        if self.idle_until_ns is not None and not self.is_idle_warned:
            idle.append(self.idle_until_ns - WARNING_NS)
        if not self.queue:
            return idle
        return [*idle, self.held_until_ns or self.since_ns + MAX_HOLD_NS - WARNING_NS]

    # Time

    def next_due_ns(self) -> int | None:
        """When something happens by itself."""
        due = [each.timeout_ns for each in (*self.queue, *self.behind)]
        due += self._lease_dues_ns()
        return min((each for each in (*due, self.job_due_ns if self.job else None) if each is not None), default=None)

    def run_due(self) -> None:
        """Time-outs and leases, then the job."""
        self._run_leases()
        for asked in (*self.queue, *self.behind):
            if asked.timeout_ns is not None and asked.timeout_ns <= self.now_ns:
                self.end(asked, Status.STATUS_IO_TIMEOUT)
        if self.job is not None and self.job_due_ns <= self.now_ns:
            job, self.job = self.job, None
            first_edge_ns = self.job_due_ns - job.width_us * 1000
            if self._drive(job.after):
                job.expected = first_edge_ns | self.now_ns << 64
            else:
                job.expected = Status.STATUS_IO_DEVICE_ERROR
            self._owner_is_active()
            self._run_behind()

    # The port

    def _is_open(self) -> bool:
        return not self.is_paused and not self.drainers

    def _is_free(self) -> bool:
        return self.owner is None and not self.queue and self._is_open()

    def _take(self, asked: Asked) -> None:
        if self._make_safe():
            self._grant(asked)
        else:
            asked.expected = Status.STATUS_IO_DEVICE_ERROR

    def _grant(self, asked: Asked) -> None:
        self.owner = asked.client
        self.since_ns = self.now_ns
        self._owner_is_active()
        self.wanted_ns, self.held_until_ns = None, None
        self.is_wanted = bool(self.queue)
        self.grant += 1
        self.to_check.clear()
        self.is_check_due = False
        asked.expected = self.grant

    def _hand_on(self) -> None:
        self.is_check_due = self.is_check_due or self.owner is not None
        self.owner = self.idle_until_ns = self.held_until_ns = None
        self.is_idle_warned = self.is_to_be_taken = False
        if not self._make_safe() and not self.is_paused:
            for asked in self.queue:
                asked.expected = Status.STATUS_IO_DEVICE_ERROR
            self.queue.clear()
        if not self._is_open():
            return
        if self.queue:
            self._grant(self.queue.pop(0))
        elif self.is_check_due:
            self.to_check = set(self.checkers)
            self.is_check_due = False

    def _make_safe(self) -> bool:
        if not self.is_safe:
            self.is_safe = self._drive(SAFE_DATA)
        return self.is_safe

    def _drive(self, value: int) -> bool:
        if not self.is_failing:
            self.data = value
        return not self.is_failing

    def _cut_job(self) -> None:
        assert self.job is not None
        job, self.job = self.job, None
        if not self._drive(job.after):
            self.is_safe = False
        self._owner_is_active()

    def _run_behind(self) -> None:
        while self.behind and self.job is None:
            asked = self.behind.pop(0)
            asked.begin(asked)
