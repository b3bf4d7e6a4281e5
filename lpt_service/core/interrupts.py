"""Who hears the port's interrupts: registrations, the interrupt source, the log.

The source of a port is *heard* while it is wanted, and neither masked nor suspended:

    wanted    some session has an ISR connected, or the last one that had vanished less than the linger time ago
    masked    the storm guard has silenced it for a while; connecting does not change that
    suspended the port is paused, or is not there: who connects, or is connected, is heard from when that is over

Going to heard: discard what was latched (strays), enable the device's interrupt, watch the descriptor. Leaving: disable
the device's interrupt first, take what it had still raised, stop watching. What is taken while the source is heard is
*generated* and goes into the log; anything else is a stray. (docs/protocol.md, semantics 3, 4, 5, 7, 8.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from lpt_service.core.deadlines import Deadline, Deadlines
from lpt_service.core.event_log import EventLog
from lpt_service.core.requests import SessionState, invalid
from lpt_service.core.storm_guard import StormGuard
from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortError, PortGoneError, RequestError
from lpt_service.protocol.messages import KIND_MASKED, KIND_STOPPED, KIND_UNHEARD, KIND_UNMASKED
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_SERVICE_ROUTINE

# Of one port. They are all told in the step that leaves it idle: some milliseconds for so many.
DEFERRED_MAX: Final = 1024
# A routine that lives in the daemon is called with the time, at interrupt level, in its place in the order of
# connection. It must not raise.
ResidentRoutine = Callable[[int], None]


class Registration:
    """One connected PARALLEL_INTERRUPT_SERVICE_ROUTINE. All 32 bytes of the structure identify it in its session."""

    __slots__ = ("is_connected", "key", "session", "structure")

    def __init__(self, session: SessionState, key: bytes) -> None:
        self.session = session
        self.key = key
        self.structure = PARALLEL_INTERRUPT_SERVICE_ROUTINE.unpack(key)
        self.is_connected = True

    @property
    def has_isr(self) -> bool:
        """True when it hears interrupts."""
        return self.structure.InterruptServiceRoutine != 0

    @property
    def has_deferred_check(self) -> bool:
        """True when it is told of deferred port checks."""
        return self.structure.DeferredPortCheckRoutine != 0


class InterruptRegistry:
    """The registrations of one port, in the order of connection, and its interrupt source.

    `on_listen(is_on)` is called when the descriptor is to be watched or no longer, `on_published()` when the log has
    grown, `on_offered(now_ns)` when an interrupt has been offered to every routine that lives in the daemon.
    """

    def __init__(
        self,
        port: ParallelPort,
        log: EventLog,
        guard: StormGuard,
        deadlines: Deadlines,
        *,
        linger_ns: int,
        max_registrations: int,
        on_listen: Callable[[bool], None],
        on_published: Callable[[], None],
        on_offered: Callable[[int], None],
    ) -> None:
        self.log = log
        self.guard = guard
        self.linger_ns = linger_ns
        self.max_registrations = max_registrations
        self.strays = 0
        self.is_masked = False
        self.is_suspended = False
        self.is_offering = False  # the routines that live in the daemon are being called
        self._port = port
        self._deadlines = deadlines
        self._on_listen = on_listen
        self._on_published = on_published
        self._on_offered = on_offered
        self._registrations: dict[Registration, None] = {}
        self._held: dict[SessionState, dict[bytes, Registration]] = {}  # the same, by session and key
        self._deferred: dict[Registration, None] = {}  # those with a deferred check
        self._residents: dict[Registration, ResidentRoutine] = {}
        self._listeners: dict[SessionState, int] = {}  # how many ISRs each listening session has
        self._is_wanted = False
        self._linger: Deadline | None = None
        self._pause: Deadline | None = None

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._registrations)

    def __len__(self) -> int:
        return len(self._registrations)

    @property
    def is_heard(self) -> bool:
        """True while interrupts go into the log."""
        return self._is_wanted and not self._is_silent

    @property
    def _is_silent(self) -> bool:
        return self.is_masked or self.is_suspended

    @property
    def is_lingering(self) -> bool:
        """True while the source stays connected for a session that vanished."""
        return self._linger is not None

    def holds(self, session: SessionState) -> bool:
        """True while `session` has anything connected."""
        return session in self._held

    def held_by(self, session: SessionState) -> list[Registration]:
        """Those of one session, in the order of connection."""
        return list(self._held.get(session, {}).values())

    def deferred(self) -> list[Registration]:
        """Those with a deferred check, in the order of connection."""
        return list(self._deferred)

    def is_listening(self, session: SessionState) -> bool:
        """True while `session` has an ISR connected."""
        return session in self._listeners

    def connect(self, session: SessionState, key: bytes, now_ns: int, resident: ResidentRoutine | None = None) -> None:
        """Connect the structure of 32 bytes `key`; when this returns, the device's interrupt is enabled.

        Raises RequestError: STATUS_INVALID_PARAMETER if the session has connected it already,
        STATUS_INSUFFICIENT_RESOURCES if it has connected too many others.
        """
        held = self._held.get(session, {})
        if key in held:
            raise invalid("this session has connected the same PARALLEL_INTERRUPT_SERVICE_ROUTINE already")
        if len(held) >= self.max_registrations:
            detail = f"registrations: this session has connected {len(held)}, the limit"
            raise RequestError(Status.STATUS_INSUFFICIENT_RESOURCES, detail)
        registration = Registration(session, key)
        if registration.has_deferred_check and len(self._deferred) >= DEFERRED_MAX:
            detail = f"registrations: {DEFERRED_MAX} on this port have a deferred check, the limit"
            raise RequestError(Status.STATUS_INSUFFICIENT_RESOURCES, detail)
        self.collect(now_ns)
        if registration.has_isr:
            self._want(now_ns)
        self._add(registration)
        if resident is not None:
            self._residents[registration] = resident

    def restore(self, session: SessionState, key: bytes) -> None:
        """Connect what was connected in a former daemon, whatever the limit is now; only while suspended."""
        assert self.is_suspended
        registration = Registration(session, key)
        self._is_wanted = self._is_wanted or registration.has_isr
        self._add(registration)

    def disconnect(self, session: SessionState, key: bytes, now_ns: int) -> Registration:
        """Undo `connect`. What the port raised up to now is in the log when this returns.

        Raises RequestError(STATUS_INVALID_PARAMETER) if the session has not connected it.
        """
        registration = self._held.get(session, {}).get(key)
        if registration is None:
            raise invalid("this session has not connected this PARALLEL_INTERRUPT_SERVICE_ROUTINE")
        self.collect(now_ns)
        if registration.has_isr and self._listeners == {session: 1}:
            self._unwant(now_ns)
        self._remove(registration)
        return registration

    def vanish(self, session: SessionState, now_ns: int) -> None:
        """Drop everything that a session has connected, because the session is gone."""
        was_listening = session in self._listeners
        for registration in self.held_by(session):
            self._remove(registration)
        if was_listening and not self._listeners:
            self._linger = self._deadlines.schedule(now_ns + self.linger_ns, self._unwant)

    def stop(self, now_ns: int) -> list[SessionState]:
        """The port stops (removed, or the daemon ends): quiet the device, mark the log, drop every registration.

        Returns the sessions that were listening. Never raises: the port may be gone.
        """
        listening = list(self._listeners)
        if self._is_wanted:
            with contextlib.suppress(PortGoneError):
                self._unwant(now_ns)
            self._is_wanted = False
        self._deadlines.cancel(self._pause)
        self._mark(KIND_STOPPED, now_ns)
        for registration in list(self):
            self._remove(registration)
        return listening

    def suspend(self, now_ns: int) -> None:
        """Quiet the device and mark the log; everybody stays registered. Fails only by PortGoneError."""
        if self.is_suspended:
            return
        if self.is_heard:
            self._disable()
            with _failure_ignored():
                self.collect(now_ns)
        self.is_suspended = True
        self._mark(KIND_STOPPED, now_ns)

    def resume(self, now_ns: int) -> None:
        """Undo `suspend`: if somebody is to hear, the device's interrupt is enabled. After PortError nothing is."""
        if not self.is_suspended:
            return
        if self._is_wanted:
            self.collect(now_ns)  # still suspended: strays
            if not self.is_masked:
                self._enable()
        self.is_suspended = False
        self.mark_state(now_ns)

    def mark_state(self, now_ns: int) -> None:
        """Log that the port is heard from here on, or why it is not, if somebody is to hear it.

        The latest mark of the log says so at any time; a silence that it tells of already is not written twice.
        """
        if not self._is_wanted:
            return
        kind = KIND_STOPPED if self.is_suspended else KIND_MASKED if self.is_masked else KIND_UNHEARD
        latest = self.log.mark_before(self.log.end)
        if kind == KIND_UNHEARD or latest is None or latest.kind != kind:
            self._mark(kind, now_ns)

    def attach(self, port: ParallelPort, now_ns: int) -> None:
        """Another device is there in place of the one that has gone. A storm is forgotten."""
        self._port = port
        if self.is_masked:
            self.is_masked = False
            self.guard.unmask(now_ns)

    def collect(self, now_ns: int) -> None:
        """Take what the port has raised: into the log while the source is heard, else as strays."""
        if self.is_offering:
            return  # an interrupt routine never runs beside itself; what has come stays in the port until it is done
        count = self._port.take_interrupts()
        if not count:
            return
        if not self.is_heard:
            self.strays += count
            return
        self.log.append(count, now_ns, *self._registers())
        self._on_published()
        self._offer(now_ns)
        if self.guard.count(count, now_ns):
            self._mask(now_ns)

    def _offer(self, now_ns: int) -> None:
        """Call the routines that live in the daemon, in the order of connection."""
        if not self._residents:
            return
        self.is_offering = True
        try:
            for registration, resident in list(self._residents.items()):
                if registration.is_connected:
                    resident(now_ns)
        finally:
            self.is_offering = False
        self._on_offered(now_ns)

    def _add(self, registration: Registration) -> None:
        session = registration.session
        self._registrations[registration] = None
        self._held.setdefault(session, {})[registration.key] = registration
        if registration.has_deferred_check:
            self._deferred[registration] = None
        if registration.has_isr:
            self._listeners[session] = self._listeners.get(session, 0) + 1

    def _remove(self, registration: Registration) -> None:
        registration.is_connected = False
        session = registration.session
        del self._registrations[registration]
        self._deferred.pop(registration, None)
        self._residents.pop(registration, None)
        del self._held[session][registration.key]
        if not self._held[session]:
            del self._held[session]
        if registration.has_isr:
            self._listeners[session] -= 1
            if not self._listeners[session]:
                del self._listeners[session]

    def _want(self, now_ns: int) -> None:
        self._end_linger()
        if self._is_wanted:
            return
        if not self._is_silent:
            self._enable()
        self._is_wanted = True
        self.mark_state(now_ns)

    def _unwant(self, now_ns: int) -> None:
        """Quiet the device, then take what it had raised before. Fails only by PortGoneError."""
        self._end_linger()
        if not self._is_silent:
            self._disable()
            with _failure_ignored():
                self.collect(now_ns)
        self._is_wanted = False

    def _end_linger(self) -> None:
        self._deadlines.cancel(self._linger)
        self._linger = None

    def _mask(self, now_ns: int) -> None:
        self._disable()
        self.is_masked = True
        self._mark(KIND_MASKED, now_ns)
        self._pause = self._deadlines.schedule(self.guard.mask(now_ns), self._unmask)

    def _unmask(self, now_ns: int) -> None:
        self.collect(now_ns)  # still masked: strays
        if self._is_wanted and not self.is_suspended:
            self._enable()
        self.is_masked = False
        self.guard.unmask(now_ns)
        if not self.is_suspended:  # otherwise it is not heard yet, and the end of that has a mark of its own
            self._mark(KIND_UNMASKED, now_ns)

    def _enable(self) -> None:
        # What is raised before the descriptor is watched waits in it; an access that fails must leave it unwatched.
        self._port.set_interrupt_enable(True)
        self._on_listen(True)

    def _disable(self) -> None:
        try:
            with _failure_ignored():
                self._port.set_interrupt_enable(False)
        finally:
            self._on_listen(False)

    def _mark(self, kind: int, now_ns: int) -> None:
        self.log.mark(kind, now_ns, *self._registers())
        self._on_published()

    def _registers(self) -> tuple[int, int]:
        """Status and control to write beside an entry; 0 if they cannot be read, for the entry must not be lost."""
        try:
            return self._port.read_status(), self._port.read_control()
        except PortError:
            return 0, 0


@contextlib.contextmanager
def _failure_ignored() -> Iterator[None]:
    """Quieting goes on if an access fails: the source is not listened to any more, and what it raises is stray."""
    try:
        yield
    except PortGoneError:
        raise
    except PortError:
        pass
