"""A function driver, a fake port, and clients that see what the server would let them see.

`Harness` stands where the server stands: it hands requests to the driver, carries its effects out in order, keeps its
deadlines and runs its jobs, in a time of its own.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import replace
from typing import Any

from lpt_service.core import effects as fx
from lpt_service.core.event_log import EventLog
from lpt_service.core.function_driver import FunctionDriver
from lpt_service.core.jobs import Job
from lpt_service.core.requests import SessionState
from lpt_service.core.settings import PortSettings
from lpt_service.port.base import ParallelPort
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Ioctl, IoctlClass
from lpt_service.protocol.messages import SYNC_OVERRUN, Notification, Request
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_SERVICE_ROUTINE, PULSE, U64
from tests.core.fakes import START_NS, FakePort

MS = 1_000_000
SECOND = 1_000_000_000
STREAM = 77
LAST_GRANT = 1000
_FRAME = struct.Struct(">14xQxQxIxBxBxB")

Frame = tuple[int, int, int, int, int, int]  # seq, timestamp_ns, count, status, control, kind
Sync = tuple[str, int, int | None]  # reason, next_seq, lost


def routine(isr: int = 0, deferred: int = 0, *, context: int = 0, deferred_context: int = 0) -> bytes:
    """A PARALLEL_INTERRUPT_SERVICE_ROUTINE."""
    return PARALLEL_INTERRUPT_SERVICE_ROUTINE(isr, context, deferred, deferred_context).pack()


class Call:
    """A request that was sent, and its one answer."""

    def __init__(self, msgid: int) -> None:
        self.msgid = msgid
        self.output: bytes | None = None
        self.error: RequestError | None = None

    @property
    def is_pending(self) -> bool:
        """True until it is answered."""
        return self.output is None and self.error is None

    @property
    def status(self) -> int:
        """The status of the answer."""
        return Status.STATUS_PENDING if self.is_pending else self.error.status if self.error else 0

    @property
    def value(self) -> int:
        """The output as one little-endian number."""
        assert self.output is not None, self.error
        return int.from_bytes(self.output, "little")

    def answer(self, output: bytes, error: RequestError | None) -> None:
        """The answer has come; a second one is a bug."""
        assert self.is_pending, f"request {self.msgid} answered twice"
        self.output, self.error = (None, error) if error else (output, None)


class Passage:
    """One way through the log, from EnterLog to LeaveLog, driven as the outbox of a session would."""

    def __init__(self, effect: fx.EnterLog) -> None:
        self.entry = effect.entry
        self.next_seq = effect.next_seq
        self.received = 0
        self.lost = effect.lost or 0  # as far as it is known
        self.frames: list[Frame] = []
        self.syncs: list[Sync] = [(effect.reason, effect.next_seq, effect.lost)]
        self.end: int | None = None
        self.end_seq = 0
        self.fence: Call | None = None
        self.fence_output = b""
        self.is_over = False

    def leave(self, end: int, end_seq: int, fence: Call | None, output: bytes) -> None:
        """It ends before the entry `end`; then the fence is answered."""
        assert self.end is None
        self.end, self.end_seq, self.fence, self.fence_output = end, end_seq, fence, output

    def pump(self, log: EventLog, max_frames: int) -> int:
        """Send at most so many frames; how many were sent."""
        sent = 0
        while not self.is_over and sent < max_frames:
            end = log.end if self.end is None else self.end
            if self.entry == end:
                if self.end is None:
                    break
                self._finish()
            elif self.entry < log.oldest:
                self._leap(log, end)
            else:
                data = bytes(log.slice(self.entry, end, (max_frames - sent) * INTERRUPT_FRAME_BYTES))
                for frame in _FRAME.iter_unpack(data):
                    self._take(frame)
                    sent += 1
        return sent

    def _take(self, frame: Frame) -> None:
        seq, count = frame[0], frame[2]
        assert seq == self.next_seq, "a gap that was not told of"
        if self.end is not None:
            assert seq + count <= self.end_seq, "an event after the fence"
        self.frames.append(frame)
        self.received += count
        self.next_seq += count
        self.entry += 1

    def _leap(self, log: EventLog, end: int) -> None:
        if end <= log.oldest:
            self.entry, next_seq = end, self.end_seq
        else:
            self.entry, next_seq = log.oldest, log.seq_at(log.oldest)
        lost = next_seq - self.next_seq
        assert lost >= 0
        self.next_seq = next_seq
        self.lost += lost
        self.syncs.append((SYNC_OVERRUN, next_seq, lost))

    def _finish(self) -> None:
        assert self.next_seq == self.end_seq
        self.is_over = True
        if self.fence is not None:
            self.fence.answer(self.fence_output, None)


class Client:
    """One session, as its client sees it."""

    def __init__(self, harness: Harness, number: int) -> None:
        self.harness = harness
        self.state = SessionState(number, context=0xC0DE0000 + number, client=f"client {number}", peer="test")
        self.calls: dict[int, Call] = {}
        self.passages: deque[Passage] = deque()
        self.notices: dict[tuple[object, ...], fx.Notice] = {}
        self.is_alive = True
        self._msgids = iter(range(1, 1 << 32))

    @property
    def handle(self) -> bytes:
        """What a callback is given."""
        return U64.pack(self.state.context)

    def send(
        self,
        code: Ioctl | int,
        input_: Any = b"",
        output_length: int = 0,
        *,
        io_class: IoctlClass = IoctlClass.INTERNAL,
        **options: Any,
    ) -> Call:
        """One control request; the option `from` is spelt `from_`."""
        params: tuple[Any, ...] = (int(code), input_, output_length)
        if options:
            params = (*params, {name.rstrip("_"): value for name, value in options.items()})
        return self.send_raw(params, io_class)

    def send_raw(self, params: Any, io_class: IoctlClass = IoctlClass.INTERNAL) -> Call:
        """A control request with any params at all."""
        harness = self.harness
        call = Call(next(self._msgids))
        self.calls[call.msgid] = call
        message = Request(call.msgid, io_class.value, params)
        try:
            output = harness.driver.control(self.state, message, harness.now_ns)
        except RequestError as error:
            call.answer(b"", error)
        else:
            if output is not None:
                call.answer(output, None)
        harness.carry_out()
        return call

    def allocate(self, **options: Any) -> Call:
        """PARALLEL_PORT_ALLOCATE, asking for the grant."""
        return self.send(Ioctl.PARALLEL_PORT_ALLOCATE, b"", 8, **options)

    def try_allocate(self) -> Call:
        """TRY_ALLOCATE_PORT, asking for the grant."""
        return self.send(Ioctl.TRY_ALLOCATE_PORT, self.handle, 16)

    def free(self, **options: Any) -> Call:
        """PARALLEL_PORT_FREE."""
        return self.send(Ioctl.PARALLEL_PORT_FREE, **options)

    def write(self, offset: int, value: int, **options: Any) -> Call:
        """WRITE_PORT_UCHAR."""
        return self.send(Ioctl.WRITE_PORT_UCHAR, bytes((offset, value)), **options)

    def read(self, offset: int, **options: Any) -> Call:
        """READ_PORT_UCHAR."""
        return self.send(Ioctl.READ_PORT_UCHAR, bytes((offset,)), 1, **options)

    def pulse(self, value: int, after: int, width_us: int, **options: Any) -> Call:
        """PULSE."""
        return self.send(Ioctl.PULSE, PULSE.pack(value, after, width_us), 16, **options)

    def connect(self, structure: bytes, output_length: int = 40, **options: Any) -> Call:
        """PARALLEL_CONNECT_INTERRUPT."""
        return self.send(Ioctl.PARALLEL_CONNECT_INTERRUPT, structure, output_length, **options)

    def disconnect(self, structure: bytes, output_length: int = 8) -> Call:
        """PARALLEL_DISCONNECT_INTERRUPT."""
        return self.send(Ioctl.PARALLEL_DISCONNECT_INTERRUPT, structure, output_length)

    def cancel(self, call: Call | int) -> None:
        """The notification `cancel`."""
        msgid = call.msgid if isinstance(call, Call) else call
        self.harness.driver.cancel(self.state, msgid, self.harness.now_ns)
        self.harness.carry_out()

    def die(self) -> None:
        """The connection ends."""
        self.is_alive = False
        self.passages.clear()
        self.harness.driver.release_all(self.state, self.harness.now_ns)
        self.harness.carry_out()

    def hear(self, max_frames: int = 1 << 30) -> None:
        """Read what the log has for this session."""
        for passage in self.passages:
            max_frames -= passage.pump(self.harness.log, max_frames)
            if not passage.is_over:
                break

    def heard(self) -> list[Frame]:
        """Read all that the log has; every frame of the latest passage."""
        self.hear()
        return self.passages[-1].frames if self.passages else []

    def told(self, *methods: str) -> list[Notification]:
        """Read the notices that wait; those of `methods`, or all."""
        rendered = [notice.render() for notice in self.notices.values()]
        self.notices.clear()
        return [each for each in rendered if each is not None and (not methods or each.method in methods)]


class Harness:
    """What the server is to one driver.

    Attributes:
        is_watched: the descriptor is being watched: interrupts are collected as they come.
        gone: the reason of PortGone, once there was one.
        job: the job that runs.
        notified: when which session was to be told of what: (now_ns, client, key), in order.
        tenure: the ownership in force, as the effects tell it.
        released: those that have ended.
    """

    def __init__(self, port: FakePort | None = None, *, served: ParallelPort | None = None, **settings: Any) -> None:
        """Serve a fake port, or another kind of port: `served`, which has its own clock then."""
        settings.setdefault("enable_connect_interrupt", True)
        self.now_ns = START_NS
        self.port = port or FakePort()
        self.driver = FunctionDriver(
            served or self.port, PortSettings("LPT1", **settings), stream=STREAM, last_grant=LAST_GRANT
        )
        self.is_watched = False
        self.wakes = 0
        self.gone: str | None = None
        self.job: Job | None = None
        self.notified: list[tuple[int, Client, tuple[object, ...]]] = []
        self.tenure: fx.Granted | None = None
        self.released: list[fx.Released] = []
        self._clients: dict[SessionState, Client] = {}

    @property
    def log(self) -> EventLog:
        """The event log."""
        return self.driver.registry.log

    @property
    def owner(self) -> Client | None:
        """Who owns the port."""
        owner = self.driver.ownership.owner
        return None if owner is None else self._clients[owner]

    def client(self) -> Client:
        """A new session."""
        client = Client(self, len(self._clients) + 1)
        self._clients[client.state] = client
        return client

    def clients(self, number: int) -> list[Client]:
        """So many new sessions."""
        return [self.client() for _ in range(number)]

    def carry_out(self) -> list[fx.Effect]:
        """Do what the last step asks for, as the server would."""
        effects = self.driver.take_effects()
        for effect in effects:
            self._carry_out_one(effect)
        owner = self.driver.ownership.owner
        assert (None if self.tenure is None else self.tenure.session) is owner, "an ownership that nobody was told of"
        return effects

    def _carry_out_one(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Complete(session, msgid, output, error):
                self._clients[session].calls[msgid].answer(output, error)
            case fx.Notify(session, notice):
                self._clients[session].notices[notice.key] = notice
                self.notified.append((self.now_ns, self._clients[session], notice.key))
            case fx.EnterLog(session):
                self._clients[session].passages.append(Passage(effect))
            case fx.LeaveLog(session, end, msgid, output):
                client = self._clients[session]
                if not client.passages:
                    return  # a routine that lives in the daemon: it has no connection
                fence = None if msgid is None else client.calls[msgid]
                client.passages[-1].leave(end, self.log.seq_at(end), fence, output)
            case fx.StartJob(job):
                assert self.job is None, "two jobs at once"
                self.job = job
            case fx.StopJob(job):
                assert self.job in (job, None)
                self.job = None
            case fx.Listen(is_on):
                self.is_watched = is_on
            case fx.WakeTimer():
                self.wakes += 1
            case fx.Granted() | fx.Released():
                self._note_tenure(effect)
            case fx.PortGone(reason):
                assert self.gone is None
                self.gone = reason

    def _note_tenure(self, effect: fx.Granted | fx.Released) -> None:
        if isinstance(effect, fx.Granted):
            assert self.tenure is None, "granted twice"
            self.tenure = effect
            return
        assert self.tenure == (effect.session, effect.grant, effect.since_ns), "another one has begun"
        assert effect.until_ns == self.now_ns
        self.tenure = None
        self.released.append(effect)

    def revoke(self, reason: str = "administrator: because") -> Client | None:
        """An administrator takes the port from its owner; who that was."""
        lost = self.driver.revoke(reason, self.now_ns)
        self.carry_out()
        return None if lost is None else self._clients[lost[0]]

    def drain(self, client: Client, *, is_on: bool = True) -> None:
        """An administrator has nobody new granted, or ends that."""
        self.driver.drain(client.state, self.now_ns, is_on=is_on)
        self.carry_out()

    def pause(self, reason: str = "a new cable") -> bool:
        """An administrator pauses the port."""
        was_paused = self.driver.pause(reason, self.now_ns)
        self.carry_out()
        return was_paused

    def resume(self) -> bool:
        """An administrator resumes the port."""
        was_paused = self.driver.resume(self.now_ns)
        self.carry_out()
        return was_paused

    def reconfigure(self, **settings: Any) -> None:
        """The configuration has been read anew."""
        self.driver.reconfigure(replace(self.driver.settings, **settings))
        self.carry_out()
        self.settle()

    def is_listening(self) -> bool:
        """The device's interrupt is enabled and its descriptor watched; one without the other is a bug."""
        if self.port.can_disable_interrupt:
            assert self.port.interrupt_enable is self.is_watched
        return self.is_watched

    def interrupt(self, count: int = 1) -> None:
        """The port raises interrupts, which are collected if anybody watches."""
        self.port.raise_interrupts(count)
        self.collect()

    def collect(self) -> None:
        """The event loop looks at the descriptor."""
        if self.is_watched:
            self.driver.collect_interrupts(self.now_ns)
            self.carry_out()

    def advance(self, by_ns: int) -> None:
        """Let time pass; what is due on the way happens in its order and at its time."""
        until_ns = self.now_ns + by_ns
        while (due_ns := self._next_due_ns()) is not None and due_ns <= until_ns:
            self._set_time(max(due_ns, self.now_ns))
            self.run_due()
        self._set_time(until_ns)

    def settle(self) -> None:
        """Do what is due at once: the timer has been woken."""
        self.advance(0)

    def run_due(self) -> None:
        """Do what is due now: deadlines first, then the running job."""
        self.driver.run_due(self.now_ns)
        self.carry_out()
        job = self.job
        if job is not None and job.due_ns <= self.now_ns and self.driver.advance_job(job, self.now_ns):
            if self.job is job:
                self.job = None
            self.carry_out()

    def _next_due_ns(self) -> int | None:
        due = [self.driver.deadlines.next_ns(), None if self.job is None else self.job.due_ns]
        return min((each for each in due if each is not None), default=None)

    def _set_time(self, now_ns: int) -> None:
        self.now_ns = self.port.now_ns = now_ns
