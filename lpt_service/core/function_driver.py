"""The function driver of one port: it takes control requests and sees each through to its one answer.

It is what parport.sys is to Windows. Each public method is one step: it decides at once and completely, and leaves in
`effects` what the server has to carry out. What a single code does is in `handlers`.

    request → checks of its row → handler → output (answered at once)
                                          → None: pending in the queue, behind a job, or as the job itself
    A pending request ends once: completed, cancelled, timed out, or with its session or the port.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum

from lpt_service.core import administration, survival
from lpt_service.core import effects as fx
from lpt_service.core.arbiter import Arbiter
from lpt_service.core.deadlines import Deadlines
from lpt_service.core.event_log import EventLog
from lpt_service.core.handlers import HANDLERS, grant_output
from lpt_service.core.interrupts import InterruptRegistry
from lpt_service.core.job_runner import JobRunner
from lpt_service.core.jobs import Job
from lpt_service.core.leases import Lease, Leases
from lpt_service.core.notices import DisconnectedNotice, LeaseNotice, RevokedNotice
from lpt_service.core.ownership import Ownership
from lpt_service.core.requests import SESSION_ENDED, ControlRequest, SessionState, parse_request
from lpt_service.core.row_checks import check_row
from lpt_service.core.settings import PortSettings
from lpt_service.core.storm_guard import StormGuard
from lpt_service.core.why_busy import why_busy
from lpt_service.port.absent import AbsentPort
from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortError, PortGoneError, RequestError
from lpt_service.protocol.messages import Request
from lpt_service.protocol.status import Status


class PortState(StrEnum):
    """Whether a port serves: ready, removing (its sessions are being told), absent (gone)."""

    READY = "ready"
    REMOVING = "removing"
    ABSENT = "absent"


class FunctionDriver:
    """Decides everything about one port.

    Synchronization: one thread, one step at a time; between steps the invariants of `ownership` and `interrupts` hold.
    """

    def __init__(self, port: ParallelPort, settings: PortSettings, *, stream: int, last_grant: int) -> None:
        self.port = port
        self.settings = settings
        self.state = PortState.ABSENT if isinstance(port, AbsentPort) else PortState.READY
        self.why_absent = port.reason if isinstance(port, AbsentPort) else ""
        self.effects: list[fx.Effect] = []
        self.requests = self.errors = 0
        self.jobs = JobRunner(self)
        self.deadlines = Deadlines(lambda: self.effects.append(fx.WakeTimer()))
        self.paused: str | None = None  # why
        self.ownership = Ownership(last_grant, settings.max_waiters)
        self.leases = Leases(
            settings,
            self.ownership,
            self.deadlines,
            is_busy=lambda: self.job is not None,
            on_near=self._warn_owner,
            on_expired=self.revoke,
        )
        self.registry = InterruptRegistry(
            port,
            EventLog(settings.interrupt_log_frames, stream),
            StormGuard(settings.max_interrupt_rate_hz),
            self.deadlines,
            linger_ns=settings.interrupt_linger_ns,
            max_registrations=settings.max_registrations,
            on_listen=lambda is_on: self.effects.append(fx.Listen(is_on)),
            on_published=lambda: self.effects.append(fx.Published()),
            on_offered=lambda now_ns: self.arbiter.interrupt_offered(now_ns),
        )
        self.arbiter = Arbiter(
            port,
            settings,
            self.ownership,
            self.registry,
            self.deadlines,
            self.leases,
            self.effects,
            on_granted=lambda request, grant: self.complete(request, grant_output(request, grant)),
            on_refused=self.fail,
        )
        if self.state is PortState.ABSENT:
            self._shut()

    @property
    def job(self) -> Job | None:
        """The job that runs."""
        return self.jobs.running

    @property
    def is_ready(self) -> bool:
        """True while the device is there and the port is served."""
        return self.state is PortState.READY

    def take_effects(self) -> list[fx.Effect]:
        """What is to be carried out now, in this order."""
        taken = self.effects.copy()
        self.effects.clear()
        return taken

    def attach(self, port: ParallelPort, now_ns: int) -> None:
        """The device is there, at the start or again: quiet it and drive the safe state, then serve it.

        Whoever held it before may have done neither. A port that fails here is served, but granted to nobody until it
        can be made safe.
        """
        self._use(port, now_ns)
        self.state, self.why_absent = PortState.READY, ""
        try:
            port.set_interrupt_enable(False)
            self.arbiter.make_safe()
        except PortGoneError as exc:
            self.begin_removal(str(exc), now_ns)
        except (PortError, RequestError):
            pass
        if self.is_ready and self.paused is None:
            administration.open_up(self, now_ns)

    def _shut(self) -> None:
        """The port is not there: what is held of it, and what comes to be held, takes effect when it is."""
        self.registry.is_suspended = True
        self.arbiter.close()

    def _use(self, port: ParallelPort, now_ns: int) -> None:
        self.port = port
        self.registry.attach(port, now_ns)
        self.arbiter.attach(port)

    def reconfigure(self, settings: PortSettings) -> None:
        """Take new settings; what is connected, owned or waiting stays. The log keeps its size until the next start."""
        self.settings = self.arbiter.settings = settings
        self.ownership.max_waiters = settings.max_waiters
        self.leases.reconfigure(settings)
        self.registry.linger_ns = settings.interrupt_linger_ns
        self.registry.max_registrations = settings.max_registrations
        self.registry.guard.max_rate_hz = settings.max_interrupt_rate_hz

    # Requests

    def control(self, session: SessionState, message: Request, now_ns: int) -> bytes | None:
        """Take one request of `session` (by one of the two IOCTL methods): its output, or None if it is pending.

        Raises RequestError with the status that the contract names.
        """
        self.requests += 1
        if session is self.leases.watched:
            self.leases.last_use_ns = now_ns
        try:
            request = parse_request(session, message)
            if self.state is not PortState.READY:
                raise self._not_ready()
            if self.jobs.running is not None and request.row.needs_port and self.jobs.belong_to(session):
                self.check_may_wait(request)
                self.wait(request, now_ns)
                self.jobs.append(request)
                return None
            return self.begin(request, now_ns)
        except RequestError:
            self.errors += 1
            raise

    def cancel(self, session: SessionState, msgid: int, now_ns: int) -> None:
        """CancelIoEx: the request ends with STATUS_CANCELLED, unless it has been answered."""
        request = session.pending.get(msgid)
        if request is not None:
            self._abandon(request, RequestError(Status.STATUS_CANCELLED, "cancelled by its client"), now_ns)

    def check_may_wait(self, request: ControlRequest) -> None:
        """Raise RequestError if a request that cannot be answered now may not be pending either."""
        if request.options.timeout_ms == 0:
            raise RequestError(Status.STATUS_IO_TIMEOUT, f"{why_busy(self, request)}; timeout_ms is 0")
        limit = self.settings.max_pending_requests
        if len(request.session.pending) >= limit:
            raise RequestError(
                Status.STATUS_INSUFFICIENT_RESOURCES, f"{limit} requests of this session are pending, the limit"
            )

    def wait(self, request: ControlRequest, now_ns: int) -> None:
        """Note a request as pending; its time-out begins to run."""
        request.session.pending[request.msgid] = request
        timeout_ms = request.options.timeout_ms
        if timeout_ms is not None and request.deadline is None:
            request.deadline = self.deadlines.schedule(
                now_ns + timeout_ms * 1_000_000, lambda at_ns: self._time_out(request, at_ns)
            )

    def _not_ready(self) -> RequestError:
        if self.state is PortState.REMOVING:
            return RequestError(Status.STATUS_DELETE_PENDING, f"port {self.settings.name} is being removed")
        return RequestError(
            Status.STATUS_DEVICE_NOT_CONNECTED, f"port {self.settings.name} is not there: {self.why_absent}"
        )

    def begin(self, request: ControlRequest, now_ns: int) -> bytes | None:
        """Check what the request's row says, then let its handler act."""
        check_row(self, request)
        try:
            return HANDLERS[request.row.code](self, request, now_ns)
        except PortGoneError as exc:
            self.begin_removal(str(exc), now_ns)
            raise RequestError(Status.STATUS_DELETE_PENDING, str(exc)) from exc
        except PortError as exc:
            raise RequestError(Status.STATUS_IO_DEVICE_ERROR, str(exc)) from exc

    # The end of a pending request

    def complete(self, request: ControlRequest, output: bytes) -> None:
        if self._forget(request):
            self.effects.append(fx.Complete(request.session, request.msgid, output))

    def fail(self, request: ControlRequest, error: RequestError) -> None:
        if self._forget(request):
            self.errors += 1
            self.effects.append(fx.Complete(request.session, request.msgid, b"", error))

    def _forget(self, request: ControlRequest) -> bool:
        """False when it has ended already: a port that goes away in mid-step may end a request twice."""
        pending = request.session.pending
        if pending.get(request.msgid) is not request:
            return False
        del pending[request.msgid]
        self.deadlines.cancel(request.deadline)
        return True

    def _time_out(self, request: ControlRequest, now_ns: int) -> None:
        detail = f"{why_busy(self, request)}; not begun within {request.options.timeout_ms} ms"
        self._abandon(request, RequestError(Status.STATUS_IO_TIMEOUT, detail), now_ns)

    def _abandon(self, request: ControlRequest, error: RequestError, now_ns: int) -> None:
        """End a pending request early, wherever it is."""
        if not self.jobs.abandon(request, error, now_ns):
            self.arbiter.withdraw(request.session, now_ns)
            self.fail(request, error)

    # Administration

    def drain(self, session: SessionState, now_ns: int, *, is_on: bool) -> None:
        """Grant nobody new while `session` wants it so. It ends with the session."""
        if is_on:
            self.arbiter.drain(session)
            return
        try:
            self.arbiter.end_drain(session, now_ns)
        except PortGoneError as exc:
            self.begin_removal(str(exc), now_ns)

    def revoke(self, reason: str, now_ns: int) -> tuple[SessionState, int] | None:
        """Take the port from its owner, who is told just this reason: who that was, and its grant; None: nobody."""
        return administration.revoke(self, reason, now_ns)

    def pause(self, reason: str, now_ns: int) -> bool:
        """Grant nobody and leave the device alone until `resume`; whether that was so already."""
        return administration.pause(self, reason, now_ns)

    def resume(self, now_ns: int) -> bool:
        """Undo `pause`; whether there was one. Raises RequestError if the device fails: it is paused still."""
        return administration.resume(self, now_ns)

    def _warn_owner(self, lease: Lease, remaining_ms: int) -> None:
        owner = self.ownership.owner
        assert owner is not None
        self.effects.append(fx.Notify(owner, LeaseNotice(lease, self.ownership, remaining_ms)))

    # Time, interrupts

    def advance_job(self, job: Job, now_ns: int) -> bool:
        """Take the next step of a job that is due; True when it is over."""
        return self.jobs.advance(job, now_ns)

    def run_due(self, now_ns: int) -> None:
        """Do what is due by now."""
        try:
            self.deadlines.run_due(now_ns)
        except PortError as exc:  # no request could end with it
            self.begin_removal(str(exc), now_ns)

    def collect_interrupts(self, now_ns: int) -> None:
        """Take the port's interrupts, if it is there: its descriptor is readable, or somebody asks for the counts."""
        if self.state is not PortState.READY:
            return
        try:
            self.registry.collect(now_ns)
        except PortError as exc:  # what was raised is unknown from now on
            self.begin_removal(str(exc), now_ns)

    def check_present(self, now_ns: int) -> None:
        """Find out whether the device is still there; to be called now and then, for not every system tells."""
        if self.state is not PortState.READY:
            return
        try:
            self.port.check_present()
        except PortGoneError as exc:
            self.begin_removal(str(exc), now_ns)
        except PortError:
            return  # nothing is known, and nothing was lost

    # The end of a session, of the port, of the daemon

    def release_all(self, session: SessionState, now_ns: int, why: str = SESSION_ENDED) -> None:
        """Everything that a session holds ends with it (semantic 2); `why` is for the account of its ownership."""
        error = RequestError(Status.STATUS_CANCELLED, "the session ended")
        try:
            self.end_requests(session, error, now_ns)
            self.registry.vanish(session, now_ns)
            if self.ownership.owner is session:
                self.arbiter.force_release(why, now_ns)
            self.arbiter.end_drain(session, now_ns)
        except PortGoneError as exc:
            self.begin_removal(str(exc), now_ns)

    def end_requests(self, session: SessionState, error: RequestError, now_ns: int) -> None:
        """End whatever a session has pending, a running job properly."""
        if self.jobs.belong_to(session):
            self.jobs.cut(error, now_ns)  # what waited behind it is its owner's too, and ends below
        for request in list(session.pending.values()):
            self._abandon(request, error, now_ns)

    def begin_removal(self, reason: str, now_ns: int) -> None:
        """The port is going (semantic 9). The server calls `finish_removal` once its sessions have been told."""
        if self.state is PortState.READY:
            self.state = PortState.REMOVING
            self.why_absent = reason
            error, why = RequestError(Status.STATUS_DELETE_PENDING, reason), f"port removed: {reason}"
            connected = list(self.registry)
            owner = self._stop(error, why, now_ns)
            if owner is not None:
                self.effects.append(fx.Notify(owner, RevokedNotice(owner, self.ownership, why)))
            for registration in connected:
                notice = DisconnectedNotice(registration, self.registry, why)
                self.effects.append(fx.Notify(registration.session, notice))
            self.effects.append(fx.PortGone(reason))

    def finish_removal(self, now_ns: int) -> ParallelPort:
        """The port is gone; what was there is returned, to be closed."""
        gone = self.port
        self._use(AbsentPort(gone.kind, self.why_absent), now_ns)
        self.state = PortState.ABSENT
        self._shut()
        return gone

    def stop(self, now_ns: int, spared: frozenset[SessionState] = frozenset()) -> survival.Kept:
        """The daemon ends: quiet the device, mark the log, take the port back, make it safe.

        What the `spared` sessions held is returned, for the next daemon to `restore`: nobody is told that it has ended,
        and their allocate requests are not answered.
        """
        kept = survival.holdings(self, spared, now_ns)
        if self.state is not PortState.REMOVING:
            self.state = PortState.REMOVING
            for request in kept.waiters:
                self.arbiter.withdraw(request.session, now_ns)
                self._forget(request.session.pending[request.msgid])
            self._stop(RequestError(Status.STATUS_CANCELLED, "the daemon is stopping"), "daemon stopping", now_ns)
            with contextlib.suppress(RequestError, PortGoneError):
                self.arbiter.make_safe()
        return kept

    def restore(self, kept: survival.Kept, now_ns: int) -> None:
        """Give sessions back what `stop` of a former daemon kept, before anybody else is served."""
        survival.restore(self, kept, now_ns)
        if self.is_ready and self.paused is None:
            administration.open_up(self, now_ns)
        else:
            self.registry.mark_state(now_ns)

    def _stop(self, error: RequestError, why: str, now_ns: int) -> SessionState | None:
        """End every request, registration and the ownership; the session that was the owner."""
        owner = self.ownership.owner
        if owner is not None:
            self.end_requests(owner, error, now_ns)
        for waiter in self.ownership.waiters():
            self._abandon(waiter.request, error, now_ns)
        for session in self.registry.stop(now_ns):
            self.effects.append(fx.LeaveLog(session, self.registry.log.end, None, b""))
        owner = self.ownership.owner  # a routine that lives in the daemon may have freed or taken it just now
        if owner is not None:
            self.arbiter.end_tenure(why, now_ns)
        return owner
