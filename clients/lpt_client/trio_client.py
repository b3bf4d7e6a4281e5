"""The trio client: a port of a daemon as an object.

    async with lpt_client.open_port("lpt://lab-pc/LPT1") as port:
        async with port.allocated(timeout=10):
            await port.pulse(0x55, width_us=1000)

What becomes of it when the connection ends is in `trio_keeper`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from lpt_client import operations, values
from lpt_client.errors import AccessDenied, ConnectionLost, LptError, Revoked
from lpt_client.events import LeaseWarning, SessionInfo
from lpt_client.interrupt_stream import MAX_BUFFERED_EVENTS, Deferred, Isr, OnOther
from lpt_client.operations import Call, Clock, PulseEdges
from lpt_client.processes import StaysHere
from lpt_client.sockets import TlsOptions, default_client_name
from lpt_client.trio_administration import Administration
from lpt_client.trio_connector import Connector
from lpt_client.trio_context import async_block
from lpt_client.trio_groups import open_flat_nursery
from lpt_client.trio_interrupts import Interrupts
from lpt_client.trio_keeper import Keeper
from lpt_client.trio_ownership import Hold
from lpt_client.trio_registering import registered
from lpt_client.trio_transport import OpenStream
from lpt_service.protocol.ioctl import CONTROL, DATA
from lpt_service.protocol.structs import (
    MORE_PARALLEL_PORT_INFORMATION,
    PARALLEL_PNP_INFORMATION,
    PARALLEL_PORT_INFORMATION,
)
from lpt_service.protocol.url import DEFAULT_URL, Url

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


@async_block
async def open_port(
    url: str | Url = DEFAULT_URL,
    *,
    client: str | None = None,
    token: str | None = None,
    tls: ssl.SSLContext | TlsOptions | None = None,
    reconnect: bool = False,
    resume: bool = True,
    connect_timeout_s: float = 10.0,
    open_stream: OpenStream | None = None,
) -> AsyncIterator[Port]:
    """A connection to a port of a daemon, for the length of the block.

    Args:
        url: of the daemon and its port, for example "lpt://lab-pc:5378/LPT1", "lpts://lab-pc/LPT1" (TLS) or
            "lpt+unix:///run/lptd/lptd.sock".
        client: how this program calls itself in the daemon's status, for people to read; by default the script's name.
        token: what proves who this is, where the daemon wants that.
        tls: for lpts://, whom to believe and who this is: files (`TlsOptions`, read at every connection) or a context
            of your own; by default the system's authorities, and no certificate.
        reconnect: when the connection breaks, connect again, for as long as it takes, with growing pauses; registered
            interrupts go on from where they were. Calls under way raise ConnectionLost all the same, ownership is
            lost, and calls made meanwhile raise ConnectionLost at once (see `Port.wait_connected`), unless the
            session goes on.
        resume: with `reconnect`, go on with the same session where the daemon keeps it for a while (the port's
            `grace_s`): ownership, the place in the queue and registrations stay, and calls made meanwhile wait. Of the
            calls under way only those raise ConnectionLost whose answer is lost (`goes_on` is True then). False: every
            loss of the connection is one of the session.
        connect_timeout_s: bounds the connection and hello together, in seconds.
        open_stream: gives the stream to the daemon in place of a socket: for tunnels and tests.

    Error handling: raises UrlError, ConnectFailed (not reached in time) or HelloRefused (protocol, token, name of the
    port). An exception that a callback of yours raises (isr, on_other, deferred, on_waiters) ends the block and is
    raised from it.

    Raises RuntimeError, with the ways out, where trio does not run: under asyncio (Jupyter's too), or under no loop.

    Resource handling: leaving the block closes the connection, and with it ends everything that the session holds. Like
    a nursery, the block is left by the task that has entered it: one that is entered by hand and dropped breaks its
    trio.run. In a forked child the port is over, and the parent's connection is not touched.
    """
    url = values.opening(
        url,
        client=client,
        token=token,
        tls=tls,
        reconnect=reconnect,
        resume=resume,
        open_by=open_stream,
        open_by_name="open_stream",
    )
    connect_timeout_s = values.seconds(connect_timeout_s, "connect_timeout_s")
    connector = Connector(
        url,
        client=default_client_name() if client is None else client,
        token=token,
        tls=tls,
        connect_timeout_s=connect_timeout_s,
        open_stream=open_stream,
        leaves_with_connection=not (reconnect and resume),
    )
    keeper = Keeper(connector, reconnect=reconnect, resume=resume)
    link = await keeper.open()
    try:
        async with open_flat_nursery() as nursery:
            nursery.start_soon(keeper.run, link, nursery.cancel_scope)
            try:
                yield Port(url, keeper)
            finally:
                keeper.close()
                nursery.cancel_scope.cancel()
    except BaseException as exc:
        if keeper.failure is not None and isinstance(exc, LptError):
            raise keeper.failure from exc  # the block only met the consequences
        raise
    if keeper.failure is not None:
        raise keeper.failure


class Port(StaysHere, Administration):
    """One port of a daemon, as one session of it. `open_port` makes it.

    Every method may raise ConnectionLost (the connection ended; `may_have_run` says what that means for the request),
    PortClosed, or the RequestError that the daemon answered. A value that a method does not take is a TypeError or a
    ValueError that names it, before anything is sent. A call that is cancelled is withdrawn; if it had been
    carried out by then, what it acquired is given back before the cancellation goes on.

    Synchronization: any number of tasks of one trio.run. Requests begin in the order of the calls. Another thread gets
    RuntimeError; it calls by `trio.from_thread.run(port.ping)`.
    """

    def __init__(self, url: Url, keeper: Keeper) -> None:
        self.url = url
        self._keeper = keeper

    # The session

    @property
    def session(self) -> SessionInfo:
        """What the daemon answered to hello. Raises NotConnected while there is no connection."""
        return self._keeper.connected_link("session").session

    @property
    def is_connected(self) -> bool:
        """True while calls can be made."""
        return self._keeper.link is not None

    async def wait_connected(self) -> None:
        """Wait until calls can be made, and registrations are connected again.

        Raises ConnectionLost when there will be no connection: `reconnect` was not asked for; or the error for which
        connecting again was given up (a refused hello).
        """
        self._keeper.check()
        await trio.lowlevel.checkpoint()
        await self._keeper.wait_connected()

    async def wait_lost(self) -> LptError:
        """Wait until calls cannot be made any more: why. `goes_on` tells whether the session may outlast that."""
        if not self._keeper.is_over:
            self._keeper.check()
            await trio.lowlevel.checkpoint()
        return await self._keeper.wait_lost()

    @property
    def goes_on(self) -> bool:
        """True while there is no connection and the daemon may have kept the session: calls wait, nothing is lost."""
        return self._keeper.is_suspended

    async def ping(self) -> Clock:
        """The daemon's clocks, now; proves that it answers."""
        return await self._call(operations.PING)

    async def status(self) -> dict[str, Any]:
        """Owner, queue, registrations and counters of the port, as the daemon tells them."""
        return await self._call(operations.PORT_STATUS)

    async def port_info(self) -> PARALLEL_PORT_INFORMATION:
        """PARALLEL_PORT_INFORMATION: the control codes of the callbacks, and the handle that they take."""
        return await self._call(operations.PORT_INFO)

    async def more_port_info(self) -> MORE_PARALLEL_PORT_INFORMATION:
        """MORE_PARALLEL_PORT_INFORMATION: bus and interrupt resources."""
        return await self._call(operations.MORE_PORT_INFO)

    async def pnp_info(self) -> PARALLEL_PNP_INFORMATION:
        """PARALLEL_PNP_INFORMATION: capabilities of the port."""
        return await self._call(operations.PNP_INFO)

    async def ioctl(
        self, code: int, input: bytes = b"", output_length: int = 0, *, internal: bool = True, **options: Any
    ) -> tuple[int, bytes]:
        """Any control request: (information, output).

        `internal` chooses the class (IRP_MJ_INTERNAL_DEVICE_CONTROL or IRP_MJ_DEVICE_CONTROL); `options` are those of
        the protocol: `timeout_ms`, `grant`, and `**{"from": (stream, next_seq)}`. What is acquired this way is yours to
        give back, also when the call is cancelled.
        """
        return await self._call(operations.ioctl(code, input, output_length, internal=internal, options=options))

    # Ownership

    @property
    def grant(self) -> int | None:
        """The number of the grant by which this session owns the port; None while it does not."""
        hold = self._keeper.ownership.hold
        return None if hold is None else hold.grant

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

    @async_block
    async def allocated(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - see allocate
        *,
        on_queued: Callable[[int], object] | None = None,
        on_waiters: Callable[[int], object] | None = None,
        on_lease: Callable[[LeaseWarning], object] | None = None,
    ) -> AsyncIterator[int]:
        """Own the port for the length of the block; gives the number of the grant. See `allocate`.

        The block holds the port or ends: if the port is lost meanwhile, the block is cancelled and ConnectionLost or
        Revoked is raised from it.

        Resource handling: the port is freed on leaving, however the block is left, also when it is cancelled (which may
        then take up to CLEANUP_TIMEOUT_S, if the daemon does not answer).
        """
        hold = await self._acquire(timeout, on_queued, on_waiters, on_lease)
        try:
            with hold.scope:
                yield hold.grant
        except BaseException:
            await self._keeper.ownership.release(hold, is_quiet=True)  # the block's own exception says more
            raise
        if hold.make_error is not None:
            raise hold.make_error()
        await self._keeper.ownership.release(hold, is_quiet=False)

    async def allocate(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the daemon keeps it: it answers, and the queue is left at once
        *,
        on_queued: Callable[[int], object] | None = None,
        on_waiters: Callable[[int], object] | None = None,
        on_lease: Callable[[LeaseWarning], object] | None = None,
    ) -> int:
        """Wait in the queue until this session owns the port: the number of the grant. `allocated` is safer.

        Args:
            timeout: seconds; None waits without end, 0 means now or never. The daemon keeps it in 32 bits: one of
                more than 4,294,967 s (49 days) ends then.
            on_queued: called in this task with the place in the queue (1 is next), at first and when it changes.
            on_waiters: called with the number of those who wait, when it changes, while the port is owned.
            on_lease: called some time before a lease takes the port away, with a LeaseWarning.

        Raises TimedOut, and InvalidDeviceState if this session owns the port or waits for it already.
        """
        return (await self._acquire(timeout, on_queued, on_waiters, on_lease)).grant

    async def try_allocate(self) -> int | None:
        """Own the port if nobody owns it or waits for it: the number of the grant, or None. Never waits."""
        return await self._keeper.ownership.try_acquire()

    async def free(self) -> None:
        """Free the port. Raises InvalidDeviceState if this session does not own it."""
        hold = self._keeper.ownership.hold
        await self._call(operations.FREE)
        if self._keeper.ownership.hold is hold:
            self._keeper.ownership.hold = None

    async def waiters(self) -> int:
        """How many requests wait in the queue."""
        return await self._call(operations.waiters(await self._keeper.callbacks()))

    async def _acquire(
        self,
        timeout: float | None,  # noqa: ASYNC109 - see allocate
        on_queued: Callable[[int], object] | None,
        on_waiters: Callable[[int], object] | None,
        on_lease: Callable[[LeaseWarning], object] | None,
    ) -> Hold:
        call = operations.allocate(timeout)
        for name, function in {"on_queued": on_queued, "on_waiters": on_waiters, "on_lease": on_lease}.items():
            values.function(function, name)
        return await self._keeper.ownership.acquire(
            call,
            answer_within_s=operations.answer_within_s(timeout),
            on_queued=on_queued,
            on_waiters=on_waiters,
            on_lease=on_lease,
        )

    # Registers. `grant`: refuse with AccessDenied unless this grant is in force (fencing).

    async def read(self, offset: int) -> int:
        """A register's value: offset 0 is data, 1 status, 2 control. Needs no ownership."""
        return await self._call(operations.read(offset))

    async def read_data(self) -> int:
        """The data register."""
        return await self._call(operations.READ_DATA)

    async def read_status(self) -> int:
        """The status register (STATUS_… bits of lpt_service.protocol.ioctl)."""
        return await self._call(operations.READ_STATUS)

    async def read_control(self) -> int:
        """The control register (CONTROL_… bits)."""
        return await self._call(operations.READ_CONTROL)

    async def write(self, offset: int, value: int, *, grant: int | None = None) -> int:
        """Write a register (offset 0 or 2): the daemon's CLOCK_MONOTONIC right after the write, in ns. Owner only."""
        return await self._call(operations.write(offset, value, grant))

    async def write_data(self, value: int, *, grant: int | None = None) -> int:
        """Write the data register; see `write`."""
        return await self._call(operations.write(DATA, value, grant))

    async def write_control(self, value: int, *, grant: int | None = None) -> int:
        """Write the control register; see `write`. Bit 4 is the daemon's and stays as it is."""
        return await self._call(operations.write(CONTROL, value, grant))

    async def frob_control(self, mask: int, value: int, *, grant: int | None = None) -> int:
        """Set the bits of `mask` in the control register to those of `value`: the new value. One step; owner only."""
        return await self._call(operations.frob_control(mask, value, grant))

    async def pulse(self, value: int, after: int = 0, *, width_us: int, grant: int | None = None) -> PulseEdges:
        """Set the data lines to `value`, and `width_us` microseconds later to `after`; timed by the daemon.

        Returns after the second edge, with the times of both. Width 1 µs to 10 s. Owner only. A call that is cancelled
        ends the pulse early, with its second edge.
        """
        return await self._call(operations.pulse(value, after, width_us, grant))

    # Interrupts

    @async_block
    async def connect_interrupt(
        self,
        isr: Isr | None = None,
        context: Any = None,
        *,
        deferred: Deferred | None = None,
        on_other: OnOther | None = None,
        max_buffered_events: int = MAX_BUFFERED_EVENTS,
    ) -> AsyncIterator[Interrupts]:
        """Hear the port's interrupts for the length of the block, from the moment it is entered.

        Args:
            isr: called as isr(interrupt, context) with each Interrupt. Without one, iterate over what this gives.
            context: handed to every routine.
            deferred: called as deferred(context) when the port has become idle (the deferred port check).
            on_other: with an isr, called as on_other(event, context) with each Mark, Sync and Reconnected.
            max_buffered_events: for iteration; beyond it the oldest events are dropped, and counted as lost.

        The routines are plain functions, called in the task that reads from the daemon: they delay everything else, and
        what they raise ends the block of `open_port`.

        On leaving, every interrupt up to then has been passed on, and none comes after. With an isr the block ends with
        ConnectionLost or PortStopped when nothing more can come; without one, iteration does.

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
        async with registered(self._keeper, interrupts):
            yield interrupts

    @async_block
    async def connect_port_check(self, deferred: Deferred, context: Any = None) -> AsyncIterator[None]:
        """Have deferred(context) called when the port has become idle, for the length of the block.

        Hears no interrupts and enables nothing. See `connect_interrupt` for how routines are called.
        """
        values.function(deferred, "deferred", is_needed=True)
        token = self._keeper.registrations.new_token()
        async with registered(self._keeper, Interrupts(token, None, context, hears=False, deferred=deferred)):
            yield

    # The way of a call

    async def _call(self, call: Call[T]) -> T:
        keeper = self._keeper
        try:
            return await (keeper.link or await keeper.ready_link(call.what)).call(call)
        except ConnectionLost as lost:
            if not keeper.can_be_asked_again(lost):
                raise
            return await keeper.call(call)
        except AccessDenied:
            if self._keeper.ownership.revoked is not None:
                raise Revoked(self._keeper.ownership.revoked) from None
            raise
