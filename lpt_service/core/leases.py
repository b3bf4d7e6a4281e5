"""Leases: how long an owner may keep the port, and what happens to one that keeps it longer.

    held    for `max_hold` since the grant, while others wait for it, or come for it again and again
    idle    no control request of the owner for `idle_hold`; a job that runs counts as one

The owner is warned (`lease`) some time before the port is taken, always: if the first waiter comes late, or the time
is shortened by a reload, it loses the port only when that time has passed since the warning. What a warning was about
may be averted (nobody waits any more; the owner does something); then it counts anew.

Nothing is scheduled for each request: a deadline that comes looks at what has happened meanwhile. So a request of the
owner costs one store, and of nobody else anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from lpt_service.core.deadlines import Deadline, Deadlines
from lpt_service.core.ownership import Ownership
from lpt_service.core.requests import SessionState
from lpt_service.core.settings import PortSettings

HELD: Final = "held"
IDLE: Final = "idle"


class Lease(ABC):
    """One reason why the owner may lose the port.

    Attributes:
        reason: how the `lease` notice calls it.
    """

    reason: str

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._deadline: Deadline | None = None
        self._warned_ns: int | None = None  # the moment that a warning counted from; None: nothing to warn of
        self._until_ns = 0  # when the port is taken, once there was a warning

    @property
    @abstractmethod
    def limit_ns(self) -> int:
        """The setting; 0 is off."""

    @property
    @abstractmethod
    def why(self) -> str:
        """What the owner is told that loses the port."""

    @abstractmethod
    def counts_from_ns(self) -> int | None:
        """From when on the present owner's time counts; None: it does not."""

    @abstractmethod
    def due_ns(self, counts_from_ns: int) -> int:
        """When the port is to be taken, if its owner can be warned in time."""

    @property
    def warning_ns(self) -> int:
        """How long before the owner is warned."""
        return self._leases.settings.hold_warning_ns

    def is_near(self) -> bool:
        """True while a warning holds."""
        return self._warned_ns is not None and self._warned_ns == self._counted_ns()

    def expires_ns(self, now_ns: int) -> int | None:
        """When the present owner will lose the port as things stand; None: it will not."""
        counted_ns = self._counted_ns()
        if counted_ns is None:
            return None
        if counted_ns == self._warned_ns:
            return self._until_ns
        return max(self.due_ns(counted_ns), now_ns + self.warning_ns)

    def begin(self, now_ns: int) -> None:
        """Somebody got the port, or what is allowed has changed: count anew."""
        self._warned_ns = None
        self.look(now_ns)

    def look(self, now_ns: int) -> None:
        """See how far things are, and warn the owner if it is time. The port is taken in a step of its own."""
        counted_ns = self._counted_ns()
        if counted_ns is None:
            self._warned_ns = None
        elif counted_ns != self._warned_ns:
            self._warned_ns = None
            warn_ns = self.due_ns(counted_ns) - self.warning_ns
            if now_ns < warn_ns:
                self._wake(warn_ns)
            else:
                self._warn(counted_ns, now_ns)
        else:
            self._wake(self._until_ns)

    def _warn(self, counted_ns: int, now_ns: int) -> None:
        self._warned_ns, self._until_ns = counted_ns, now_ns + self.warning_ns
        self._wake(self._until_ns)
        if self.warning_ns:
            self._leases.on_near(self, self.warning_ns // 1_000_000)

    def _counted_ns(self) -> int | None:
        return self.counts_from_ns() if self.limit_ns and self._leases.ownership.owner is not None else None

    def _wake(self, at_ns: int) -> None:
        """Look again at `at_ns`, or before: an earlier deadline that is there will do."""
        deadline = self._deadline
        if deadline is not None:
            if deadline.at_ns <= at_ns:
                return
            self._leases.deadlines.cancel(deadline)
        self._deadline = self._leases.deadlines.schedule(at_ns, self._woken)

    def _woken(self, now_ns: int) -> None:
        self._deadline = None
        self._leases.note_job(now_ns)
        if self._is_over(now_ns):
            self._expire(now_ns)
        else:
            self.look(now_ns)

    def _is_over(self, now_ns: int) -> bool:
        return self.is_near() and now_ns >= self._until_ns

    def _expire(self, now_ns: int) -> None:
        self._warned_ns = None
        self._leases.on_expired(self.why, now_ns)


class _HoldLease(Lease):
    """Others *want* the port while one of them waits, and from one try to the next, if no more than the warning's time
    lies in between: so a client cannot be kept off by its own short time-outs. The owner is warned, and the port is
    taken, only when somebody waits or tries again, not for one that has gone.
    """

    reason = HELD

    def __init__(self, leases: Leases) -> None:
        super().__init__(leases)
        self._wanted_since_ns: int | None = None  # by others than this owner, without a break; None: not at all
        self._wanted_ns = 0  # when somebody tried, or the last one who waited left
        self._has_left = False  # nobody waits, and nobody has tried since

    @property
    def limit_ns(self) -> int:
        return self._leases.settings.max_hold_ns

    @property
    def why(self) -> str:
        return f"lease: held for {self.limit_ns / 1e9:g} s while others wait"

    def counts_from_ns(self) -> int | None:
        return self._wanted_since_ns

    def due_ns(self, counts_from_ns: int) -> int:
        return self._leases.ownership.since_ns + self.limit_ns

    def is_near(self) -> bool:
        return super().is_near() and not self._has_left

    def expires_ns(self, now_ns: int) -> int | None:
        return super().expires_ns(now_ns) if self._leases.ownership.waiting else None

    def begin(self, now_ns: int) -> None:
        self._wanted_since_ns = now_ns if self._leases.ownership.waiting else None
        self._has_left = False
        super().begin(now_ns)

    def wanted(self, now_ns: int) -> None:
        """Somebody else asks for the port, who will wait for it or not."""
        is_waited_for = self._leases.ownership.waiting > 0
        has_lapsed = not is_waited_for and now_ns - self._wanted_ns > self.warning_ns
        if self._wanted_since_ns is None or has_lapsed:
            self._wanted_since_ns = now_ns
        self._wanted_ns = now_ns
        self._has_left = False
        self.look(now_ns)
        if self._is_over(now_ns):
            self._leases.deadlines.schedule(now_ns, self._take)

    def left(self, now_ns: int) -> None:
        """Nobody waits any more."""
        self._wanted_ns = now_ns
        self._has_left = True

    def _woken(self, now_ns: int) -> None:
        self._deadline = None
        if self._leases.ownership.waiting:  # otherwise the next one who wants it looks
            super()._woken(now_ns)

    def _take(self, now_ns: int) -> None:
        if super().is_near() and now_ns >= self._until_ns:  # although who has just tried may be gone again
            self._expire(now_ns)


class _IdleLease(Lease):
    reason = IDLE

    @property
    def limit_ns(self) -> int:
        return self._leases.settings.idle_hold_ns

    @property
    def why(self) -> str:
        return f"lease: idle for {self.limit_ns / 1e9:g} s"

    @property
    def warning_ns(self) -> int:
        # Otherwise an owner that works would be warned all the time.
        return min(super().warning_ns, self.limit_ns // 2)

    def counts_from_ns(self) -> int | None:
        return self._leases.last_use_ns

    def due_ns(self, counts_from_ns: int) -> int:
        return counts_from_ns + self.limit_ns


class Leases:
    """The leases of one port.

    `is_busy()` tells whether a job runs; `on_near(lease, remaining_ms)` is called to warn the owner,
    `on_expired(why, now_ns)` to take the port from it.

    Attributes:
        watched: the owner, while its requests have to be noted in `last_use_ns`.
        last_use_ns: when it last sent one, or its last job ended, or it got the port.
    """

    def __init__(
        self,
        settings: PortSettings,
        ownership: Ownership,
        deadlines: Deadlines,
        *,
        is_busy: Callable[[], bool],
        on_near: Callable[[Lease, int], None],
        on_expired: Callable[[str, int], object],
    ) -> None:
        self.settings = settings
        self.ownership = ownership
        self.deadlines = deadlines
        self.on_near = on_near
        self.on_expired = on_expired
        self.watched: SessionState | None = None
        self.last_use_ns = 0
        self._is_busy = is_busy
        self._held = _HoldLease(self)
        self._idle = _IdleLease(self)

    def begin(self, now_ns: int) -> None:
        """Somebody has got the port."""
        self._watch()
        if self.watched is not None:
            self.last_use_ns = now_ns
            self._idle.begin(now_ns)
        if self.settings.max_hold_ns:
            self._held.begin(now_ns)

    def wanted(self, now_ns: int) -> None:
        """Somebody else asks for the port while it cannot be had, and is about to wait for it, or to be refused."""
        if self.settings.max_hold_ns:
            self._held.wanted(now_ns)

    def left(self, now_ns: int) -> None:
        """One who waited does so no longer, and has not been granted."""
        if self.settings.max_hold_ns and not self.ownership.waiting:
            self._held.left(now_ns)

    def end(self) -> None:
        """Nobody owns the port."""
        self.watched = None

    def note_job(self, now_ns: int) -> None:
        """A job is activity, as long as it runs."""
        if self._is_busy():
            self.last_use_ns = now_ns

    def job_ended(self, now_ns: int) -> None:
        """The owner's job is over: from now on it is idle."""
        self.last_use_ns = now_ns

    def reconfigure(self, settings: PortSettings) -> None:
        """Take new settings, for the present owner, too: soon, for there is no saying here what time it is."""
        old, self.settings = self.settings, settings
        if _limits(old) == _limits(settings):
            return
        was_watched = self.watched is not None
        self._watch()
        is_anew = self.watched is not None and not was_watched
        self.deadlines.schedule(0, lambda now_ns: self._count_anew(now_ns, is_anew=is_anew))

    def expires_ns(self, now_ns: int) -> int | None:
        """When the present owner will lose the port as things stand; None: it will not."""
        self.note_job(now_ns)
        times = (lease.expires_ns(now_ns) for lease in (self._held, self._idle))
        return min((each for each in times if each is not None), default=None)

    def _watch(self) -> None:
        self.watched = self.ownership.owner if self.settings.idle_hold_ns else None

    def _count_anew(self, now_ns: int, *, is_anew: bool) -> None:
        if is_anew:  # when it last did something has not been noted
            self.last_use_ns = now_ns
        for lease in (self._held, self._idle):
            lease.begin(now_ns)


def _limits(settings: PortSettings) -> tuple[int, int, int]:
    return settings.max_hold_ns, settings.idle_hold_ns, settings.hold_warning_ns
