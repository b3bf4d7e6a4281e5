"""The blocking client: the vocabulary of the trio client, for programs without an event loop.

    with lpt_client.blocking.open_port("lpt://lab-pc/LPT1") as port:
        with port.allocated(timeout=10):
            port.pulse(0x55, width_us=1000)

It needs no package but msgpack and runs on any system. No thread is started: a call receives what it waits for itself,
and interrupts come off the socket while a call, an iteration over them or `Port.poll` runs.

In a task of an event loop (asyncio, trio) a call works, and holds up the loop for as long as it takes: leave it to a
thread there, as in `await asyncio.to_thread(port.ping)`; any thread will do, one at a time. A notebook's cell may well
call it directly. With gevent, patch before anything is imported (`gevent.monkey.patch_all()`): then a wait holds up its
own greenlet alone, and greenlets count as threads do.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lpt_client import operations, values
from lpt_client.blocking_administration import Administration
from lpt_client.blocking_connector import Connector, OpenSocket
from lpt_client.blocking_interrupts import Interrupts
from lpt_client.blocking_keeper import Keeper
from lpt_client.blocking_ownership import Hold
from lpt_client.blocking_registering import connect, disconnect
from lpt_client.blocks import block
from lpt_client.errors import AccessDenied, LptError, Revoked
from lpt_client.events import LeaseWarning, SessionInfo
from lpt_client.interrupt_stream import MAX_BUFFERED_EVENTS, Deferred, Isr, OnOther
from lpt_client.operations import Call, Clock, PulseEdges
from lpt_client.processes import StaysHere
from lpt_client.sockets import TlsOptions, default_client_name
from lpt_client.waits import deadline_after
from lpt_service.protocol.ioctl import CONTROL, DATA
from lpt_service.protocol.structs import (
    MORE_PARALLEL_PORT_INFORMATION,
    PARALLEL_PNP_INFORMATION,
    PARALLEL_PORT_INFORMATION,
)
from lpt_service.protocol.url import DEFAULT_URL, Url

if TYPE_CHECKING:
    import ssl

__all__ = ["Interrupts", "Port", "open_port"]

T = TypeVar("T")

# A daemon that says nothing for so long is taken for lost. Longer than the longest pulse.
REPLY_TIMEOUT_S: Final = 30.0
_LONG_PULSE_US: Final = 1_000_000


def open_port(
    url: str | Url = DEFAULT_URL,
    *,
    client: str | None = None,
    token: str | None = None,
    tls: ssl.SSLContext | TlsOptions | None = None,
    reconnect: bool = False,
    resume: bool = True,
    connect_timeout_s: float = 10.0,
    reply_timeout_s: float = REPLY_TIMEOUT_S,
    open_socket: OpenSocket | None = None,
) -> Port:
    """Connect to a port of a daemon; use it in a `with` block, or `close` it.

    Args:
        url: of the daemon and its port, for example "lpt://lab-pc:5378/LPT1", "lpts://lab-pc/LPT1" (TLS) or
            "lpt+unix:///run/lptd/lptd.sock".
        client: how this program calls itself in the daemon's status, for people to read; by default the script's name.
        token: what proves who this is, where the daemon wants that.
        tls: for lpts://, whom to believe and who this is: files (`TlsOptions`, read at every connection) or a context
            of your own; by default the system's authorities, and no certificate.
        reconnect: when the connection breaks, connect again while the program waits for interrupts, in `Port.poll` or
            in `Port.wait_connected`, with growing pauses; registered interrupts go on from where they were. The call
            that met the loss raises ConnectionLost all the same, and ownership is lost, unless the session goes on.
        resume: with `reconnect`, go on with the same session where the daemon keeps it for a while (the port's
            `grace_s`): ownership and registrations stay, and the call that met the loss connects again itself, in the
            time that it has. It raises ConnectionLost if its answer is lost (`goes_on` is True then). False: every
            loss of the connection is one of the session.
        connect_timeout_s: bounds the look-up of the name, the connection and hello together, in seconds.
        reply_timeout_s: bounds the wait for the answer to a request that waits for nobody; then ConnectionLost.
        open_socket: gives the connected socket, given the URL and a deadline in `time.monotonic()`, in place of the
            ordinary way: for tunnels and tests.

    Raises UrlError, ConnectFailed (not reached in time) or HelloRefused (protocol, token, name of the port).
    """
    parsed = values.opening(
        url,
        client=client,
        token=token,
        tls=tls,
        reconnect=reconnect,
        resume=resume,
        open_by=open_socket,
        open_by_name="open_socket",
    )
    connect_timeout_s = values.seconds(connect_timeout_s, "connect_timeout_s")
    reply_timeout_s = values.seconds(reply_timeout_s, "reply_timeout_s")
    connector = Connector(
        parsed,
        client=default_client_name() if client is None else client,
        token=token,
        tls=tls,
        connect_timeout_s=connect_timeout_s,
        reply_timeout_s=reply_timeout_s,
        open_socket=open_socket,
        leaves_with_connection=not (reconnect and resume),
    )
    caller = sys._getframe(1)
    opened_at = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    keeper = Keeper(connector, opened_at, reconnect=reconnect, resume=resume, reply_timeout_s=reply_timeout_s)
    return Port(parsed, keeper, reply_timeout_s)


class Port(StaysHere, Administration):
    """One port of a daemon, as one session of it. `open_port` makes it.

    Every method may raise ConnectionLost (the connection ended; `may_have_run` says what that means for the request),
    PortClosed, or the RequestError that the daemon answered. A value that a method does not take is a TypeError or a
    ValueError that names it, before anything is sent. If a call is interrupted (Ctrl-C), its request is withdrawn; if
    it had been carried out by then, what it acquired is given back.

    Resource handling: closing the connection ends everything that the session holds. A port that is dropped without
    being closed is closed with its last reference, with a ResourceWarning that says where it was opened. It belongs to
    the process that opened it: in a forked child every call raises OtherProcess, and the parent notices nothing.

    Synchronization: one thread at a time; a second one gets RuntimeError. Open a port for each thread. `close` may be
    called from any thread: a call under way raises PortClosed.
    """

    def __init__(self, url: Url, keeper: Keeper, reply_timeout_s: float) -> None:
        self.url = url
        self._keeper = keeper
        self._reply_timeout_s = reply_timeout_s

    # Nothing below a port refers to it, so that this runs as soon as the program has dropped it.
    def __del__(self) -> None:
        self._keeper.leave_behind(self)

    def __enter__(self) -> Port:
        return self

    if not TYPE_CHECKING:  # a type checker is not to believe that these are there

        async def __aenter__(self):
            raise TypeError("a port of the blocking client is for `with`; `async with` is for lpt_client.open_port")

        async def __aexit__(self, *_):
            """Not reached."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. May be called again."""
        self._keeper.close()

    # The session

    @property
    def session(self) -> SessionInfo:
        """What the daemon answered to hello, last. Raises PortClosed once the port is closed."""
        return self._keeper.session

    @property
    def is_connected(self) -> bool:
        """True while calls can be made, as far as is known."""
        return not self._keeper.link.is_over

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Connect again if the connection has ended (with `reconnect`); False if that took longer than `timeout` s.

        Raises ConnectionLost without `reconnect`, or the error for which it was given up (a refused hello).
        """
        keeper = self._keeper
        deadline_s = deadline_after(timeout)
        while keeper.link.is_over:
            keeper.pump(deadline_s)
            if time.monotonic() >= deadline_s:
                return not keeper.link.is_over
        return True

    @property
    def goes_on(self) -> bool:
        """True while there is no connection and the daemon may have kept the session: the next call connects again."""
        return self._keeper.is_suspended

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Receive what has come, or wait for it up to `timeout` seconds (None: without end), and run the routines.

        Returns False if nothing came. The routines (isr, on_other, deferred) run in this call, in this thread, and may
        use the port; what one raises is raised here.

        Raises ConnectionLost, and PortStopped where an isr would wait in vain.
        """
        return self._keeper.poll(deadline_after(timeout))

    def ping(self) -> Clock:
        """The daemon's clocks, now; proves that it answers."""
        return self._call(operations.PING)

    def status(self) -> dict[str, Any]:
        """Owner, queue, registrations and counters of the port, as the daemon tells them."""
        return self._call(operations.PORT_STATUS)

    def port_info(self) -> PARALLEL_PORT_INFORMATION:
        """PARALLEL_PORT_INFORMATION: the control codes of the callbacks, and the handle that they take."""
        return self._call(operations.PORT_INFO)

    def more_port_info(self) -> MORE_PARALLEL_PORT_INFORMATION:
        """MORE_PARALLEL_PORT_INFORMATION: bus and interrupt resources."""
        return self._call(operations.MORE_PORT_INFO)

    def pnp_info(self) -> PARALLEL_PNP_INFORMATION:
        """PARALLEL_PNP_INFORMATION: capabilities of the port."""
        return self._call(operations.PNP_INFO)

    def ioctl(
        self, code: int, input: bytes = b"", output_length: int = 0, *, internal: bool = True, **options: Any
    ) -> tuple[int, bytes]:
        """Any control request: (information, output).

        `internal` chooses the class (IRP_MJ_INTERNAL_DEVICE_CONTROL or IRP_MJ_DEVICE_CONTROL); `options` are those of
        the protocol: `timeout_ms`, `grant`, and `**{"from": (stream, next_seq)}`. What is acquired this way is yours to
        give back. One that waits in the queue is bounded by `reply_timeout_s`.
        """
        return self._call(operations.ioctl(code, input, output_length, internal=internal, options=options))

    # Ownership

    @property
    def grant(self) -> int | None:
        """The number of the grant by which this session owns the port, as far as is known; None while it does not."""
        return self._keeper.ownership.grant

    @property
    def waiting(self) -> int:
        """How many wait for the port that this session owns, as the daemon told last."""
        return self._keeper.ownership.waiting

    @property
    def revoked(self) -> str | None:
        """Why the port was taken away from this session; None since the last grant."""
        return self._keeper.ownership.revoked

    @property
    def lease_warning(self) -> LeaseWarning | None:
        """What the daemon said last of a lease by which it will take the port away; None since the last grant."""
        return self._keeper.ownership.lease_warning

    @block
    def allocated(
        self, timeout: float | None = None, *, on_queued: Callable[[int], object] | None = None
    ) -> Iterator[int]:
        """Own the port for the length of the block; gives the number of the grant. See `allocate`.

        On leaving, the port is freed; if it was lost meanwhile and no call has told so, ConnectionLost or Revoked is
        raised.
        """
        hold = self._acquire(timeout, on_queued)
        try:
            yield hold.grant
        except BaseException:
            with suppress(LptError):  # the block's own exception says more
                self._keeper.ownership.release(hold)
            raise
        self._keeper.ownership.release(hold)

    def allocate(self, timeout: float | None = None, *, on_queued: Callable[[int], object] | None = None) -> int:
        """Wait in the queue until this session owns the port: the number of the grant. `allocated` is safer.

        Args:
            timeout: seconds; None waits without end, 0 means now or never. The daemon keeps it in 32 bits: one of
                more than 4,294,967 s (49 days) ends then.
            on_queued: called with the place in the queue (1 is next), at first and when it changes. It must not use
                the port; what it raises ends the waiting.

        Raises TimedOut, and InvalidDeviceState if this session owns the port already.
        """
        return self._acquire(timeout, on_queued).grant

    def try_allocate(self) -> int | None:
        """Own the port if nobody owns it or waits for it: the number of the grant, or None. Never waits."""
        hold = self._keeper.ownership.acquire(operations.try_allocate(self._callbacks()))
        return None if hold is None else hold.grant

    def free(self) -> None:
        """Free the port. Raises InvalidDeviceState if this session does not own it."""
        self._call(operations.FREE)
        self._keeper.ownership.hold = None

    def waiters(self) -> int:
        """How many requests wait in the queue."""
        return self._call(operations.waiters(self._callbacks()))

    def _acquire(self, timeout: float | None, on_queued: Callable[[int], object] | None) -> Hold:
        call = operations.allocate(timeout)
        values.function(on_queued, "on_queued")
        deadline_s = time.monotonic() + operations.answer_within_s(timeout)
        hold = self._keeper.ownership.acquire(call, deadline_s, on_queued=on_queued)
        assert hold is not None, "an allocate is granted or raises"
        return hold

    # Registers. `grant`: refuse with AccessDenied unless this grant is in force (fencing).

    def read(self, offset: int) -> int:
        """A register's value: offset 0 is data, 1 status, 2 control. Needs no ownership."""
        return self._call(operations.read(offset))

    def read_data(self) -> int:
        """The data register."""
        return self._call(operations.READ_DATA)

    def read_status(self) -> int:
        """The status register (STATUS_… bits of lpt_service.protocol.ioctl)."""
        return self._call(operations.READ_STATUS)

    def read_control(self) -> int:
        """The control register (CONTROL_… bits)."""
        return self._call(operations.READ_CONTROL)

    def write(self, offset: int, value: int, *, grant: int | None = None) -> int:
        """Write a register (offset 0 or 2): the daemon's CLOCK_MONOTONIC right after the write, in ns. Owner only."""
        return self._call(operations.write(offset, value, grant))

    def write_data(self, value: int, *, grant: int | None = None) -> int:
        """Write the data register; see `write`."""
        return self._call(operations.write(DATA, value, grant))

    def write_control(self, value: int, *, grant: int | None = None) -> int:
        """Write the control register; see `write`. Bit 4 is the daemon's and stays as it is."""
        return self._call(operations.write(CONTROL, value, grant))

    def frob_control(self, mask: int, value: int, *, grant: int | None = None) -> int:
        """Set the bits of `mask` in the control register to those of `value`: the new value. One step; owner only."""
        return self._call(operations.frob_control(mask, value, grant))

    def pulse(self, value: int, after: int = 0, *, width_us: int, grant: int | None = None) -> PulseEdges:
        """Set the data lines to `value`, and `width_us` microseconds later to `after`; timed by the daemon.

        Returns after the second edge, with the times of both. Width 1 µs to 10 s. Owner only.
        """
        call = operations.pulse(value, after, width_us, grant)
        width_us = operator.index(width_us)
        if width_us < _LONG_PULSE_US:
            return self._call(call)
        return self._call(call, time.monotonic() + self._reply_timeout_s + width_us / 1e6)

    # Interrupts

    @block
    def connect_interrupt(
        self,
        isr: Isr | None = None,
        context: Any = None,
        *,
        deferred: Deferred | None = None,
        on_other: OnOther | None = None,
        max_buffered_events: int = MAX_BUFFERED_EVENTS,
    ) -> Iterator[Interrupts]:
        """Hear the port's interrupts for the length of the block, from the moment it is entered.

        Args:
            isr: called as isr(interrupt, context) with each Interrupt, while `poll` runs. Without one, iterate over
                what this gives.
            context: handed to every routine.
            deferred: called as deferred(context), in `poll` or an iteration, after the port has become idle.
            on_other: with an isr, called as on_other(event, context) with each Mark, Sync and Reconnected.
            max_buffered_events: kept until they are taken; beyond it the oldest are dropped, and counted as lost.

        A program that makes no call for long is not lost: the daemon keeps its log, and says what it lost.

        On leaving, every interrupt up to then has been passed on or is in the buffer, and none comes after.

        Raises Unsuccessful while connecting interrupts is disabled by the daemon's configuration.
        """
        interrupts = Interrupts(
            self._keeper.registrations.new_token(),
            isr,
            context,
            deferred=deferred,
            on_other=on_other,
            max_buffered_events=max_buffered_events,
        )
        connect(self._keeper, interrupts)
        try:
            yield interrupts
        finally:
            disconnect(self._keeper, interrupts)

    @block
    def connect_port_check(self, deferred: Deferred, context: Any = None) -> Iterator[None]:
        """Have deferred(context) called, in `poll`, after the port has become idle, for the length of the block.

        Hears no interrupts and enables nothing.
        """
        values.function(deferred, "deferred", is_needed=True)
        token = self._keeper.registrations.new_token()
        registration = Interrupts(token, None, context, hears=False, deferred=deferred)
        connect(self._keeper, registration)
        try:
            yield
        finally:
            disconnect(self._keeper, registration)

    # The way of a call

    def _callbacks(self) -> PARALLEL_PORT_INFORMATION:
        """The structure that callbacks are called through: one for each session."""
        link = self._keeper.link
        if link.port_info is None:
            link.port_info = self._call(operations.PORT_INFO)
        return link.port_info

    def _call(self, call: Call[T], deadline_s: float | None = None) -> T:
        try:
            return self._keeper.call(call, deadline_s)
        except AccessDenied:
            if self._keeper.ownership.revoked is not None:
                raise Revoked(self._keeper.ownership.revoked) from None
            raise
