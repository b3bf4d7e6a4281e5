"""The audit trail: who owned a port from when to when, who was refused, who administered what.

Each record is a line of JSON in a file, and a record in the daemon's log, of the logger `lpt_service.audit`. Whoever
has something to record only appends to a queue. A task makes lines of it, a few at a time; another has a thread write
them. What cannot be written waits, and beyond a bound is lost, counted, and told; the service goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from lpt_service.config import AuditConfig
from lpt_service.core.effects import Granted, Released
from lpt_service.server.audit_budget import Budget
from lpt_service.server.audit_file import Appended, AuditFile
from lpt_service.server.audit_record import Moment, Record, Value, bounded, ownership, rfc3339
from lpt_service.server.clock import Clock
from lpt_service.server.threads import in_thread

FILE_NAME: Final = "audit.jsonl"
# Lines that wait to be written: an hour of an ordinary day, a second or so of the worst.
QUEUE_MAX: Final = 4096
# How long lines gather before they are written: what a crash of the daemon can cost.
GATHER_S: Final = 0.1
RETRY_S: Final = 5.0
STOP_TIMEOUT_S: Final = 2.0
# Records a WINDOW_S: so nobody can push out of the trail what it is kept for.
REFUSED_A_WINDOW: Final = 60
OWNERSHIPS_A_WINDOW: Final = 6000
LOGGED_A_WINDOW: Final = 600
_RECORDS_A_TURN: Final = 16

REFUSED: Final = "refused"
GRANTED: Final = "granted"
RELEASED: Final = "released"
LOST: Final = "lost"
_BUDGETS: Final = ((REFUSED, REFUSED_A_WINDOW), (GRANTED, OWNERSHIPS_A_WINDOW), (RELEASED, OWNERSHIPS_A_WINDOW))
_About = Mapping[str, Value] | Granted | Released
_log = logging.getLogger(__name__)
_audit_log = logging.getLogger("lpt_service.audit")


class Audit:
    """Records what happened. `open_file` makes the file from its path, `max_bytes` and `keep`.

    Without a file in the settings it is FILE_NAME in the state directory; without that, there is the log alone.

    Resource handling: nothing is open in between; `close` writes what is left.

    Synchronization: for the event loop's thread alone.

    Attributes:
        lost: lines that are in no file, since the start.
    """

    def __init__(
        self,
        settings: AuditConfig,
        clock: Clock,
        state_directory: Path | None,
        *,
        open_file: Callable[[Path, int, int], AuditFile] = AuditFile,
    ) -> None:
        self.lost = 0
        self._clock = clock
        self._state_directory = state_directory
        self._open_file = open_file
        self._budgets = {event: Budget(count) for event, count in _BUDGETS}
        self._log_budget = Budget(LOGGED_A_WINDOW)
        # When, the event, the port, and what is known of it: to be told, then to be written.
        self._records: deque[tuple[int, str, str | None, _About]] = deque()
        self._lines: deque[bytes] = deque()
        self._recorded = trio.Event()
        self._told = trio.Event()
        self._exchanged = trio.Event()
        self._overflowed = 0  # records lost behind the last of _records
        self._gap = 0  # lines lost behind the last of _lines
        self._lost_before_outage: int | None = None
        self._attempt: _Attempt | None = None
        self._running = trio.CancelScope()
        self._is_closed = False
        self._file = self._file_of(settings)

    # What is to be recorded

    def record(self, event: str, port: str | None = None, **fields: Value) -> None:
        """Note that something has happened just now; never blocks, never raises.

        Texts are cut at `audit_record.TEXT_MAX_CHARACTERS`. What a budget does not cover is counted, and summed up
        as EVENT_more.
        """
        if self._is_covered(event, fields.get("identity")):
            self._enqueue(event, port, bounded(fields))

    def record_ownership(self, port: str, effect: Granted | Released) -> None:
        """Note that an ownership has begun or ended: as `record`, but its fields are made when they are written.

        This happens at every hand-off, which is not to wait for it.
        """
        event = GRANTED if type(effect) is Granted else RELEASED
        if self._is_covered(event, effect.session.identity):
            self._enqueue(event, port, effect)

    def refused(self, why: str, port: str | None = None, **fields: Value) -> None:
        """Note an attempt that was refused, within a budget of REFUSED_A_WINDOW for all of them together."""
        self.record(REFUSED, port, why=why, **fields)

    def _is_covered(self, event: str, identity: object) -> bool:
        """Whether the event's budget has a record left, if it has a budget."""
        budget = self._budgets.get(event)
        if budget is None:
            return True
        self._sum_up(event, budget)
        if budget.take(self._clock, identity):
            return True
        self._recorded.set()  # its sum is due at some time
        return False

    def _enqueue(self, event: str, port: str | None, about: _About) -> None:
        if self._is_closed or len(self._records) >= QUEUE_MAX:
            self._overflowed += 1
            self.lost += 1
        else:
            self._records.append((self._clock.realtime_ns(), event, port, about))
        self._recorded.set()

    def _sum_up(self, event: str, budget: Budget) -> None:
        """Record what was only counted, if its window is over."""
        sum_ = budget.end_window(self._clock)
        if sum_ is not None:
            who: dict[str, Value] = {"by": sum_.by} if sum_.by else {}
            self._enqueue(f"{event}_more", None, {"count": sum_.number, "since": Moment(sum_.since_ns), **who})

    # Its way to the log and the file

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Log and write what is recorded, until cancelled or closed; `close` does the rest."""
        async with trio.open_nursery() as nursery:
            self._running = nursery.cancel_scope
            nursery.start_soon(self._tell)
            nursery.start_soon(self._write)
            task_status.started()

    def reconfigure(self, settings: AuditConfig) -> None:
        """Go on with other settings. Lines that wait go to the new file, if there is one.

        Lines on their way to a former file when that hangs may then be in both.
        """
        file = self._file_of(settings)
        if self._file is not None and file is not None and file.path == self._file.path:
            self._file.max_bytes, self._file.keep = file.max_bytes, file.keep
            return
        if file is None:
            self.lost += len(self._lines)
            self._lines.clear()
            self._gap = 0
            self._end_outage()
        self._file = file
        self._exchanged.set()

    async def close(self) -> None:
        """Log and write all that is left. Returns within STOP_TIMEOUT_S of real time, though the disk hang."""
        if self._is_closed:
            return
        for event, budget in self._budgets.items():
            budget.cut_short()
            self._sum_up(event, budget)
        self._is_closed = True
        self._running.cancel()
        while self._records:
            self._tell_some()
        self._count_overflow()
        self._log_budget.cut_short()
        self._sum_up_log()
        if self._file is not None:
            await self._write_rest(self._file)
        left = len(self._lines)
        self.lost += left
        if left or self._lost_before_outage is not None:
            _log.warning("audit: the last %d lines are not in the file; lost since the start: %d", left, self.lost)

    async def _tell(self) -> None:
        while True:
            with trio.move_on_after(self._next_sum_s()):
                await self._recorded.wait()
                self._recorded = trio.Event()
                await trio.sleep(GATHER_S)
            for event, budget in self._budgets.items():
                self._sum_up(event, budget)
            self._sum_up_log()
            while self._records:
                self._tell_some()
                await trio.lowlevel.checkpoint()
            self._count_overflow()

    def _next_sum_s(self) -> float:
        now_ns = self._clock.monotonic_ns()
        return max(0.0, min(each.due_in_s(now_ns) for each in (*self._budgets.values(), self._log_budget)))

    def _tell_some(self) -> None:
        for _ in range(min(_RECORDS_A_TURN, len(self._records))):
            at_ns, event, port, about = self._records.popleft()
            fields = bounded(ownership(about, self._clock)) if isinstance(about, (Granted, Released)) else about
            self._tell_one(Record(at_ns, event, port, fields))

    def _tell_one(self, record: Record) -> None:
        if _audit_log.isEnabledFor(logging.INFO):
            self._sum_up_log()
            if self._log_budget.take(self._clock, None):
                _audit_log.info("%s", record.text(), extra=record.log_fields())
        if self._file is None:
            return
        if len(self._lines) >= QUEUE_MAX:
            self._begin_outage(f"{self._file.path} does not take them")
            self._gap += 1
            self.lost += 1
            return
        self._lines.append(record.line())
        self._told.set()

    def _count_overflow(self) -> None:
        if self._overflowed:
            _log.warning("audit: %d records at once were too many, they are lost", self._overflowed)
            self._gap += self._overflowed
            self._overflowed = 0

    def _sum_up_log(self) -> None:
        sum_ = self._log_budget.end_window(self._clock)
        if sum_ is not None:
            _audit_log.info("audit: %d more records since %s are not logged", sum_.number, rfc3339(sum_.since_ns))

    # The file

    async def _write(self) -> None:
        while not self._is_closed:
            while self._file is None or not self._lines:
                self._told = trio.Event()
                await self._told.wait()
            self._exchanged = trio.Event()
            attempt = self._attempt = _Attempt(self._file, tuple(self._lines))
            await self._wait_for(attempt)
            if attempt.appended is not None:
                self._take_off(attempt)
            if attempt.has_failed and attempt.file is self._file:
                with trio.move_on_after(RETRY_S):
                    await self._exchanged.wait()

    async def _wait_for(self, attempt: _Attempt) -> None:
        """Run it in a thread until it is over; at most STOP_TIMEOUT_S longer, once its file is no longer ours."""
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await in_thread(attempt.run)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            await self._exchanged.wait()
            await in_thread(lambda: attempt.over.wait(STOP_TIMEOUT_S))
            nursery.cancel_scope.cancel()

    def _take_off(self, attempt: _Attempt) -> None:
        """Take what an attempt has written off the lines that wait."""
        assert attempt.appended is not None
        attempt.is_taken_off = True
        for line in attempt.lines[: attempt.appended.written]:
            if self._lines and self._lines[0] is line:  # otherwise a reload has given them up
                self._lines.popleft()
        if attempt.appended.error is not None:
            self._begin_outage(f"{attempt.file.path} cannot be written ({_reason(attempt.appended.error)})")
        if self._gap and len(self._lines) < QUEUE_MAX:  # where lines are missing, as soon as there is room
            self._lines.append(Record(self._clock.realtime_ns(), LOST, None, {"count": self._gap}).line())
            self._gap = 0
        if attempt.appended.error is None:
            self._end_outage()

    async def _write_rest(self, file: AuditFile) -> None:
        ended = threading.Event()

        async def write() -> None:
            try:
                await self._finish_attempts(file)
            finally:
                ended.set()

        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                # Not trio's time: a test's clock may run ahead of a disk.
                await in_thread(lambda: ended.wait(STOP_TIMEOUT_S))
                nursery.cancel_scope.cancel()

    async def _finish_attempts(self, file: AuditFile) -> None:
        former = self._attempt
        if former is not None and not former.is_taken_off and not former.give_up():
            await in_thread(lambda: former.over.wait(STOP_TIMEOUT_S))
            if former.appended is None:
                return
            self._take_off(former)
        for _ in range(2):  # the second for what the first has to tell: how many were lost
            if self._lines:
                attempt = _Attempt(file, tuple(self._lines))
                await in_thread(attempt.run)
                self._take_off(attempt)

    def _file_of(self, settings: AuditConfig) -> AuditFile | None:
        if settings.file is not None:
            path = Path(settings.file)
        elif self._state_directory is not None:
            path = self._state_directory / FILE_NAME
        else:
            return None
        return self._open_file(path, settings.max_bytes, settings.keep)

    # What is lost

    def _begin_outage(self, reason: str) -> None:
        if self._lost_before_outage is None:
            self._lost_before_outage = self.lost
            _log.warning("audit: %s; %d lines wait, more are lost, the service goes on", reason, QUEUE_MAX)

    def _end_outage(self) -> None:
        if self._lost_before_outage is not None:
            count, self._lost_before_outage = self.lost - self._lost_before_outage, None
            _log.warning("audit: lines are written again; %d were lost", count)


class _Attempt:
    """Lines on their way to a file, in a thread."""

    def __init__(self, file: AuditFile, lines: tuple[bytes, ...]) -> None:
        self.file = file
        self.over = threading.Event()
        self.appended: Appended | None = None
        self.is_taken_off = False
        self.lines = lines
        self._lock = threading.Lock()
        self._has_begun = False
        self._is_given_up = False

    @property
    def has_failed(self) -> bool:
        """Whether it is over, and not all is written."""
        return self.appended is not None and self.appended.error is not None

    def give_up(self) -> bool:
        """Have it not begin any more; False if it has."""
        with self._lock:
            self._is_given_up = not self._has_begun
            return self._is_given_up

    def run(self) -> None:
        """In the thread."""
        with self._lock:
            if self._is_given_up:
                return
            self._has_begun = True
        try:
            self.appended = self.file.append(self.lines)
        finally:
            self.over.set()


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
