"""Ownership meets the hardware: what happens when somebody gets the port, and when ownership ends.

Order at the end of an ownership, all in one step: the owner is out; the lines are made safe if it did not free the port
itself; the longest waiter gets it, or, if nobody waits, the deferred port checks are announced. While nobody may be
granted (drained, paused, not there) they are owed: until the port can be had, or somebody has got it.
(docs/protocol.md, semantics 1, 6, 7, 10.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lpt_service.core import effects as fx
from lpt_service.core.deadlines import Deadlines
from lpt_service.core.interrupts import InterruptRegistry
from lpt_service.core.leases import Leases
from lpt_service.core.notices import PortCheckNotice, QueuedNotice, WaitersNotice
from lpt_service.core.ownership import Ownership
from lpt_service.core.requests import ControlRequest, SessionState
from lpt_service.core.settings import PortSettings
from lpt_service.port.absent import AbsentPort
from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortError, PortGoneError, RequestError
from lpt_service.protocol.ioctl import CONTROL_DIRECTION_INPUT
from lpt_service.protocol.status import Status

# A notice of one kind goes to a session at most ten times a second.
NOTICE_INTERVAL_NS: Final = 100_000_000


class Arbiter:
    """Grants and takes back one port.

    `on_granted(request, grant)` and `on_refused(request, error)` are called for requests that waited.
    """

    def __init__(
        self,
        port: ParallelPort,
        settings: PortSettings,
        ownership: Ownership,
        registry: InterruptRegistry,
        deadlines: Deadlines,
        leases: Leases,
        effects: list[fx.Effect],
        *,
        on_granted: Callable[[ControlRequest, int], None],
        on_refused: Callable[[ControlRequest, RequestError], None],
    ) -> None:
        self.settings = settings
        self.is_safe = True  # False: the lines have to be made safe before anybody is granted
        self.is_check_owed = False  # an ownership has ended, and the deferred port checks have not been announced
        self._port = port
        self._ownership = ownership
        self._registry = registry
        self._deadlines = deadlines
        self._leases = leases
        self._effects = effects
        self._on_granted = on_granted
        self._on_refused = on_refused
        self._is_hand_on_due = False
        self._is_round_due = False
        self._last_round_ns = -NOTICE_INTERVAL_NS
        self._waiters_notice = WaitersNotice(ownership)
        self._first_seq = 0  # the number of the first interrupt of the present ownership

    # Getting the port

    def allocate(self, request: ControlRequest, now_ns: int) -> int | None:
        """Grant the port to the request's session, or let the request wait: the grant, or None.

        Raises RequestError: STATUS_INVALID_DEVICE_STATE, STATUS_INSUFFICIENT_RESOURCES, STATUS_IO_DEVICE_ERROR.
        """
        if self._ownership.is_available:
            return self._take(request.session, now_ns)
        waiter = self._ownership.enqueue(request, now_ns)
        self._effects.append(fx.Notify(request.session, QueuedNotice(waiter)))
        self._queue_changed(now_ns)
        return None

    def try_allocate(self, session: SessionState, now_ns: int) -> int | None:
        """Grant the port if nobody owns it and nobody waits: the grant, or None. Never waits.

        Raises RequestError: STATUS_IO_DEVICE_ERROR.
        """
        return self._take(session, now_ns) if self._ownership.is_available else None

    def _take(self, session: SessionState, now_ns: int) -> int:
        self.make_safe()
        grant = self._ownership.take(session, now_ns)
        self.begin_tenure(now_ns)
        return grant

    def begin_tenure(self, now_ns: int) -> None:
        """Somebody owns the port from now on."""
        ownership = self._ownership
        assert ownership.owner is not None
        self.is_check_owed = False
        self._first_seq = self._registry.log.next_seq
        self._effects.append(fx.Granted(ownership.owner, ownership.grant, now_ns))
        self._leases.begin(now_ns)

    def end_tenure(self, why: str, now_ns: int, *, voluntary: bool = False) -> None:
        """Nobody owns the port from now on; unless its owner has freed it, its lines are to be made safe."""
        ownership = self._ownership
        assert ownership.owner is not None
        interrupts = self._registry.log.next_seq - self._first_seq
        self._effects.append(
            fx.Released(
                ownership.owner, ownership.grant, ownership.since_ns, now_ns, why, ownership.written, interrupts
            )
        )
        ownership.vacate(voluntary=voluntary)
        self._leases.end()
        self.is_safe = self.is_safe and voluntary
        self.is_check_owed = True

    def restore_waiter(self, request: ControlRequest, now_ns: int) -> None:
        """A request that waited in a former daemon waits again, whatever the limit is now."""
        self._leases.wanted(now_ns)
        self._ownership.restore_waiter(request, now_ns)
        self._queue_changed(now_ns)

    def withdraw(self, session: SessionState, now_ns: int) -> None:
        """Take a session's request out of the queue."""
        if self._ownership.withdraw(session) is not None:
            self._queue_changed(now_ns)
            self._leases.left(now_ns)

    # Granting nobody, and granting again

    def drain(self, session: SessionState) -> None:
        """Grant nobody new while `session` is here, or until it says otherwise."""
        self._ownership.drainers.add(session)

    def end_drain(self, session: SessionState, now_ns: int) -> None:
        """Grant again, as far as this session is concerned; whoever has waited longest is next."""
        ownership = self._ownership
        if session in ownership.drainers:
            ownership.drainers.remove(session)
            self._reopen(now_ns)

    def close(self) -> None:
        """Grant nobody new for the port's own sake."""
        self._ownership.is_closed = True

    def open(self, now_ns: int) -> None:
        """Grant again; whoever has waited longest is next."""
        self._ownership.is_closed = False
        self._reopen(now_ns)

    def _reopen(self, now_ns: int) -> None:
        """Do what was left undone, if nothing keeps the port from being granted any longer."""
        if self._ownership.is_open and (self._ownership.waiting or self.is_check_owed):
            self._hand_on(now_ns)

    # Giving it back

    def free(self, session: SessionState, now_ns: int) -> None:
        """The owner frees the port: the lines stay as they are, except that data lines become outputs again.

        At interrupt level the port is handed on after the interrupt has been offered to every routine.

        Raises RequestError(STATUS_INVALID_DEVICE_STATE) if `session` is not the owner.
        """
        self._ownership.check_is_owner(session)
        self.end_tenure("freed", now_ns, voluntary=True)
        try:
            self._make_output()
        except PortError:
            self.is_safe = False  # before it is handed on, which may find that the port is gone
        if self._registry.is_offering:
            self._is_hand_on_due = True
        else:
            self._hand_on(now_ns)

    def interrupt_offered(self, now_ns: int) -> None:
        """Every routine has been offered the interrupt: hand on what one of them freed, unless another took it."""
        if self._is_hand_on_due:
            self._is_hand_on_due = False
            self._hand_on(now_ns)

    def force_release(self, why: str, now_ns: int) -> None:
        """Ownership ends other than by its owner's free: safe state, then the next owner."""
        self.end_tenure(why, now_ns)
        self._hand_on(now_ns)

    def _hand_on(self, now_ns: int) -> None:
        """After an ownership has ended: to the longest waiter, or to nobody.

        Raises PortGoneError: the port has no owner then, and is about to be removed.
        """
        ownership = self._ownership
        if ownership.owner is not None:
            return
        try:
            self.make_safe()
        except RequestError as error:
            for waiter in () if ownership.is_closed else ownership.waiters():
                ownership.withdraw(waiter.request.session)
                self._on_refused(waiter.request, error)
        next_owner = ownership.hand_on(now_ns)
        if next_owner is not None:
            self._on_granted(next_owner.request, ownership.grant)
            self.begin_tenure(now_ns)
            self._queue_changed(now_ns)
        elif self.is_check_owed and ownership.is_available:  # otherwise it is vacant, not idle
            self._check_ports()

    def _check_ports(self) -> None:
        """The port has become idle: announce the deferred port checks."""
        self.is_check_owed = False
        for registration in self._registry.deferred():
            notice = PortCheckNotice(registration, self._ownership)
            self._effects.append(fx.Notify(registration.session, notice))

    def attach(self, port: ParallelPort) -> None:
        """Another device is there; nobody knows what its lines are at."""
        self._port = port
        self.is_safe = False

    def make_safe(self) -> None:
        """Drive the lines to the configured safe values, if that is due.

        Raises RequestError(STATUS_IO_DEVICE_ERROR) if the port fails: nobody may be granted then. PortGoneError passes.
        """
        if self.is_safe or isinstance(self._port, AbsentPort):
            return
        try:
            if self.settings.safe_data is not None:
                self._port.write_data(self.settings.safe_data)
            self._make_output()
            if self.settings.safe_control is not None:
                self._port.write_control(self.settings.safe_control & ~CONTROL_DIRECTION_INPUT)
        except PortGoneError:
            raise
        except PortError as exc:
            raise RequestError(
                Status.STATUS_IO_DEVICE_ERROR, f"the port could not be driven to its safe state: {exc}"
            ) from exc
        self.is_safe = True

    def _make_output(self) -> None:
        control = self._port.read_control()
        if control & CONTROL_DIRECTION_INPUT:
            self._port.write_control(control & ~CONTROL_DIRECTION_INPUT)

    # Telling about the queue

    def repeat_waiters(self, session: SessionState, now_ns: int) -> None:
        """Tell an owner anew how many wait: it may not have been reached. Until then it takes it that nobody does."""
        if self._ownership.owner is session and self._waiters_notice.told:
            self._waiters_notice.told = 0
            self._queue_changed(now_ns)

    def _queue_changed(self, now_ns: int) -> None:
        """Tell those concerned soon: after the effects of this step, in rounds at most ten times a second."""
        if not self._is_round_due:
            self._is_round_due = True
            self._deadlines.schedule(max(now_ns, self._last_round_ns + NOTICE_INTERVAL_NS), self._tell_queue)

    def _tell_queue(self, now_ns: int) -> None:
        """A round: one notice to each waiter whose place has changed, and to the owner if the number has.

        A waiter that was told its first place less than a tenth of a second ago has to wait for the next round.
        """
        self._is_round_due = False
        self._last_round_ns = now_ns
        is_behind = False
        for waiter in self._ownership.number_waiters():
            if waiter.position != waiter.told_position:
                if now_ns - waiter.since_ns < NOTICE_INTERVAL_NS:
                    is_behind = True
                    continue
                waiter.told_position = waiter.position
                self._effects.append(fx.Notify(waiter.request.session, QueuedNotice(waiter)))
        if self._waiters_notice.grant != self._ownership.grant:
            self._waiters_notice = WaitersNotice(self._ownership)
        owner = self._ownership.owner
        if owner is not None and self._waiters_notice.told != self._ownership.waiting:
            self._effects.append(fx.Notify(owner, self._waiters_notice))
        if is_behind:
            self._queue_changed(now_ns)
