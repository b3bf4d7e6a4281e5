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
    waited_for_ns: int | None = None  # since when others have waited for the owner
    takes_ns: dict[str, int] = field(default_factory=dict)  # when the port will be taken, by reason
    warns_ns: dict[str, int] = field(default_factory=dict)  # when its owner will be warned of that
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
        elif self._may_wait(asked):
            if len(self.queue) == MAX_WAITERS:
                asked.expected = Status.STATUS_INSUFFICIENT_RESOURCES
            else:
                self.queue.append(asked)
                self._queue_changed()

    def try_allocate(self, asked: Asked) -> None:
        """TRY_ALLOCATE_PORT."""
        if self._is_free():
            self._take(asked)
            if not isinstance(asked.expected, Status):
                assert asked.expected is not None
                asked.expected = 1 | asked.expected << 64
        else:
            asked.expected = 0

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
            self.queue.remove(asked)
            self._queue_changed()
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
        self.queue = [each for each in self.queue if each.client is not client]
        self._queue_changed()
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

    def _owner_is_active(self) -> None:
        if self.has_lease:
            self._lease(IDLE, None if self.job else self.now_ns + IDLE_HOLD_NS)

    def _queue_changed(self) -> None:
        if not self.has_lease:
            return
        if not self.queue or self.owner is None:
            self.waited_for_ns = None
            self._lease(HELD, None)
        elif self.waited_for_ns is None:
            self.waited_for_ns = self.now_ns
            self._lease(HELD, max(self.since_ns + MAX_HOLD_NS, self.now_ns + WARNING_NS))

    def _lease(self, reason: str, takes_ns: int | None) -> None:
        self.takes_ns.pop(reason, None)
        self.warns_ns.pop(reason, None)
        if takes_ns is not None:
            self.takes_ns[reason], self.warns_ns[reason] = takes_ns, takes_ns - WARNING_NS
            self._warn()

    def _warn(self) -> None:
        for reason, at_ns in list(self.warns_ns.items()):
            if at_ns <= self.now_ns:
                assert self.owner is not None
                self.warned.add((self.now_ns, self.owner, reason))
                del self.warns_ns[reason]

    # Time

    def next_due_ns(self) -> int | None:
        """When something happens by itself."""
        due = [each.timeout_ns for each in (*self.queue, *self.behind)]
        due += [*self.takes_ns.values(), *self.warns_ns.values()]
        return min((each for each in (*due, self.job_due_ns if self.job else None) if each is not None), default=None)

    def run_due(self) -> None:
        """Time-outs and leases, then the job."""
        self._warn()
        if any(at_ns <= self.now_ns for at_ns in self.takes_ns.values()):
            self.revoke()
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
        self.waited_for_ns = None
        self._queue_changed()
        self.grant += 1
        self.to_check.clear()
        self.is_check_due = False
        asked.expected = self.grant

    def _hand_on(self) -> None:
        self.is_check_due = self.is_check_due or self.owner is not None
        self.owner = None
        self._lease(IDLE, None)
        self._queue_changed()
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
