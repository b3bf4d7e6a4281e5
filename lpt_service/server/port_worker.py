"""One port at work: it carries out the effects of the function driver, keeps its deadlines, runs its jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import trio

from lpt_service.core import effects as fx
from lpt_service.core.function_driver import FunctionDriver, PortState
from lpt_service.core.jobs import Job
from lpt_service.core.requests import SessionState
from lpt_service.protocol.codec import encode_error, encode_result
from lpt_service.protocol.errors import PortError
from lpt_service.server.audit import Audit
from lpt_service.server.clock import Clock
from lpt_service.server.identity import Identity
from lpt_service.server.interrupt_pump import SLICES_A_TURN, InterruptPump
from lpt_service.server.outbox import Outbox
from lpt_service.server.parking import Parking
from lpt_service.server.port_opener import PortOpener
from lpt_service.server.session import Session
from lpt_service.server.tickets import Tickets

# How often a device is looked for while it is absent, and looked after while it is there.
_LOOK_INTERVAL_S: Final = 1.0
# How long the sessions of a port that goes away have to take what was still to be sent to them.
_REMOVAL_S: Final = 1.0
_log = logging.getLogger(__name__)


class PortWorker:
    """The server's side of one port.

    Every step of the driver is followed by `carry_out`, in the same turn of the same task.

    Attributes:
        on_released: called when what a session holds of the port has been released, for what it holds of others.
    """

    def __init__(
        self, driver: FunctionDriver, opener: PortOpener, clock: Clock, tickets: Tickets, audit: Audit
    ) -> None:
        self.driver = driver
        self.clock = clock
        self._audit = audit
        self._opener = opener
        self._gone = trio.Event()
        self._is_stopping = False
        self._was_absent = False
        self.name = driver.settings.name
        self.sessions: dict[SessionState, Session] = {}
        self.parking = Parking(self, tickets)
        self.on_released: Callable[[SessionState], None] = lambda state: None
        self._pump = InterruptPump(self._collect_interrupts)
        self._lost_by_former = 0
        self._timer_wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._job_scope = trio.CancelScope()
        self._touched: dict[Session, None] = {}  # to be flushed when all effects of a step are carried out
        self._tenures: list[fx.Granted | fx.Released] = []  # for the audit, after that: the next owner does not wait

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the port until cancelled; started when its device has been looked for once."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._pump.watch)
            self._nursery.start_soon(self._pump.fan_out)
            self._nursery.start_soon(self._keep_deadlines)
            await self._open()
            task_status.started()
            await self._keep_device()

    async def _keep_device(self) -> None:
        """Watch the device while it is there, and look for it while it is not, for ever."""
        while True:
            if self.driver.state is PortState.ABSENT:
                await trio.sleep(_LOOK_INTERVAL_S)
                await self._open()
                continue
            with trio.move_on_after(_LOOK_INTERVAL_S):
                await self._gone.wait()
            if self._gone.is_set():
                await self._remove()
            else:
                self.driver.check_present(self.clock.monotonic_ns())
                self.carry_out()

    async def _open(self) -> None:
        """Serve the device if it is there; say why not, once for each reason."""
        try:
            port = await self._opener.open()
        except PortError as exc:
            self._was_absent = True
            if str(exc) != self.driver.why_absent:
                self.driver.why_absent = str(exc)
                _log.error("port %s is absent: %s", self.name, exc)
            return
        if self._is_stopping:
            await self._opener.close(port)
            return
        if self._was_absent:
            _log.info("port %s is there", self.name)
        self._gone = trio.Event()
        self._pump.attach(port.fileno())
        self.driver.attach(port, self.clock.monotonic_ns())
        self.carry_out()

    # Sessions

    def part(self, session: Session) -> Outbox:
        """A session has no connection any more: the rest of its outbox, its state is the caller's to look after."""
        assert session.state is not None
        self._pump.discard(session)
        del self.sessions[session.state]
        return session.outbox.part()

    def join(self, session: Session, state: SessionState) -> None:
        """A session has a connection again."""
        self.sessions[state] = session
        if session.outbox.is_hearing:
            self._pump.add(session)

    def remove_session(self, session: Session) -> None:
        """A session has ended: what it holds is released, and whoever waited for it is served, at once."""
        assert session.state is not None
        self._pump.discard(session)
        self.release(session.state, session.outbox, session.why_released)
        del self.sessions[session.state]

    def forget(self, session: Session) -> None:
        """A connection ends whose session outlives the daemon."""
        assert session.state is not None
        self._pump.discard(session)
        del self.sessions[session.state]

    def release(self, state: SessionState, outbox: Outbox, why: str) -> None:
        """What a session holds ends."""
        self.driver.release_all(state, self.clock.monotonic_ns(), why)
        self.parking.tickets.cancel(state)
        self.carry_out()
        self.on_released(state)
        self._lost_by_former += outbox.lost

    def states(self) -> Iterator[SessionState]:
        """Every session of the port, with a connection or without."""
        yield from self.sessions
        yield from self.parking

    def identities(self) -> Iterator[Identity]:
        """Whose those are."""
        for session in self.sessions.values():
            yield session.identity
        yield from self.parking.identities()

    @property
    def lost(self) -> int:
        """Interrupts that sessions were told they have lost because they read too slowly."""
        outboxes = [session.outbox for session in self.sessions.values()] + self.parking.outboxes()
        return self._lost_by_former + sum(outbox.lost for outbox in outboxes)

    def stop(self) -> None:
        """The daemon ends: quiet the device, end every request, mark the log."""
        self._is_stopping = True
        self.driver.stop(self.clock.monotonic_ns(), frozenset(self.parking.spared))
        self.carry_out()

    # Effects

    def carry_out(self) -> None:
        """Do what the last step asked for."""
        self._carry_out_effects()
        self._flush_touched()

    def _carry_out_effects(self) -> None:
        driver = self.driver
        while driver.effects:
            for effect in driver.take_effects():
                _CARRY_OUT[type(effect)](self, effect)

    def _flush_touched(self) -> None:
        while self._touched:
            session, _ = self._touched.popitem()
            session.flush()
        if self._tenures:
            for effect in self._tenures:
                self._audit.record_ownership(self.name, effect)
            self._tenures.clear()

    def _session_of(self, state: SessionState) -> Session | None:
        """The session to send to; it will be flushed."""
        session = self.sessions.get(state)
        if session is not None:
            self._touched[session] = None
        return session

    def _complete(self, effect: fx.Complete) -> None:
        session = self._session_of(effect.session)
        if session is None:
            return
        if effect.error is None:
            frame = encode_result(effect.msgid, (len(effect.output), effect.output))
            if effect.end_seq is not None:
                session.outbox.answer_disconnect(effect.msgid, frame, effect.end_seq)
                return
        else:
            error = effect.error
            frame = encode_error(effect.msgid, error.status, error.status_name, error.detail)
        session.outbox.add_reply(frame)

    def _notify(self, effect: fx.Notify) -> None:
        session = self._session_of(effect.session)
        outbox = self.parking.outbox_of(effect.session) if session is None else session.outbox
        if outbox is not None:
            outbox.add_notice(effect.notice)

    def _enter_log(self, effect: fx.EnterLog) -> None:
        session = self._session_of(effect.session)
        outbox = self.parking.outbox_of(effect.session) if session is None else session.outbox
        if outbox is not None:
            log = self.driver.registry.log
            outbox.enter_log(log, effect.entry, effect.reason, effect.next_seq, effect.lost)
        if session is not None:
            self._pump.add(session)

    def _leave_log(self, effect: fx.LeaveLog) -> None:
        session = self._session_of(effect.session)
        if session is not None:
            answer = b""
            if effect.msgid is not None:
                answer = encode_result(effect.msgid, (len(effect.output), effect.output))
            session.outbox.leave_log(effect.end, answer, effect.msgid)
            self._pump.discard(session)
            return
        outbox = self.parking.outbox_of(effect.session)
        if outbox is not None:
            outbox.leave_log(effect.end, b"")

    def _start_job(self, effect: fx.StartJob) -> None:
        assert self._nursery is not None
        self._job_scope = trio.CancelScope()
        self._nursery.start_soon(self._run_job, effect.job, self._job_scope)

    def _stop_job(self, effect: fx.StopJob) -> None:
        self._job_scope.cancel()

    def _listen(self, effect: fx.Listen) -> None:
        self._pump.listen(effect.is_on)

    def _publish(self, effect: fx.Published) -> None:
        self._pump.publish()

    def _wake_timer(self, effect: fx.WakeTimer) -> None:
        self._timer_wake.set()

    def _note_tenure(self, effect: fx.Granted | fx.Released) -> None:
        self._tenures.append(effect)

    def _port_gone(self, effect: fx.PortGone) -> None:
        _log.error("port %s: %s; it is being removed", self.name, effect.reason)
        self._pump.listen(False)
        self._gone.set()

    # Tasks

    def _collect_interrupts(self) -> None:
        self.driver.collect_interrupts(self.clock.monotonic_ns())
        self.carry_out()

    async def _keep_deadlines(self) -> None:
        while True:
            self._timer_wake = trio.Event()
            due_ns = self.driver.deadlines.next_ns()
            if due_ns is None:
                await self._timer_wake.wait()
                continue
            wait_ns = due_ns - self.clock.monotonic_ns()
            if wait_ns > 0:
                with trio.move_on_after(wait_ns / 1e9):
                    await self._timer_wake.wait()
                continue
            await trio.lowlevel.checkpoint()
            self.driver.run_due(self.clock.monotonic_ns())
            await self._carry_out_gently()

    async def _carry_out_gently(self) -> None:
        """As `carry_out`, but a queue's worth of notices is sent in slices, so that requests are not held up."""
        self._carry_out_effects()
        while len(self._touched) > SLICES_A_TURN:
            for _ in range(SLICES_A_TURN):
                session, _ = self._touched.popitem()
                session.flush()
            await trio.lowlevel.checkpoint()
        self._flush_touched()

    async def _run_job(self, job: Job, scope: trio.CancelScope) -> None:
        with scope:
            is_over = False
            while not is_over:
                await self.clock.sleep_until(job.due_ns)
                is_over = self.driver.advance_job(job, self.clock.monotonic_ns())
                self.carry_out()

    async def _remove(self) -> None:
        with trio.move_on_after(_REMOVAL_S):
            while any(session.outbox.is_in_log for session in self.sessions.values()):  # noqa: ASYNC110 - rare, brief
                await trio.sleep(_REMOVAL_S / 20)
        await self._opener.close(self.driver.finish_removal(self.clock.monotonic_ns()))
        self._was_absent = True
        _log.error("port %s is gone", self.name)


_CARRY_OUT: Final[Mapping[type, Callable[[PortWorker, Any], None]]] = {
    fx.Complete: PortWorker._complete,
    fx.Notify: PortWorker._notify,
    fx.EnterLog: PortWorker._enter_log,
    fx.LeaveLog: PortWorker._leave_log,
    fx.StartJob: PortWorker._start_job,
    fx.StopJob: PortWorker._stop_job,
    fx.Listen: PortWorker._listen,
    fx.Published: PortWorker._publish,
    fx.WakeTimer: PortWorker._wake_timer,
    fx.Granted: PortWorker._note_tenure,
    fx.Released: PortWorker._note_tenure,
    fx.PortGone: PortWorker._port_gone,
}
