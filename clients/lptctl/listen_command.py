"""lptctl listen: the port's interrupts as lines."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from lptctl import outcome
from lptctl.common import Seconds, session_options, to_json, url_option

if TYPE_CHECKING:
    import trio

    import lpt_client
    from lpt_client.events import Event, SessionInfo

_ENDING_SIGNALS: Final = ("SIGINT", "SIGTERM")

_EPILOG = """\b
Exit codes:
  0      ended by --count, --seconds, Ctrl-C or SIGTERM
  1      the daemon refused; its status is shown
  2      wrong usage: an option, a value, a URL
  3      the daemon cannot be reached, the connection was lost, or the port was removed
  4      --seconds have passed, and fewer interrupts came than --count
  128+n  signal n came (130: Ctrl-C) before --count was reached
"""


@click.command(epilog=_EPILOG)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N interrupts.")
@click.option("--seconds", type=Seconds(), metavar="S", help="End after S seconds.")
@click.option("--reconnect", is_flag=True, help="When the connection breaks, connect again and go on from there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one map a line, told apart by its member event.")
@url_option
def listen(count: int | None, seconds: float | None, reconnect: bool, as_json: bool, url: str) -> int:
    """Print the port's interrupts as they come, until Ctrl-C.

    Also what is not known: how many were lost, and marks for times in which the port was not heard. At the end come
    the counts, on standard error, with --json as the last line. An entry that stands for several interrupts at once
    counts as so many. A port that is paused has the mark "stopped", and is heard again when it is resumed.

    In text the time is the daemon's time of day. JSON has timestamp_ns, the daemon's CLOCK_MONOTONIC; the first line
    ("connected") gives both clocks. Events: connected, interrupt, mark, sync, reconnected, end.

    \b
    Examples:
      lptctl listen
      lptctl listen --count 100 --seconds 60
      lptctl listen --json --reconnect >> session.jsonl
    """
    import trio

    listener = Listener(Printer(as_json), count=math.inf if count is None else count)
    return trio.run(listener.run, url, reconnect, math.inf if seconds is None else seconds)


class Printer:
    """Writes events as lines."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._ahead_ns = 0  # the daemon's time of day minus its CLOCK_MONOTONIC

    def connected(self, session: SessionInfo, first_seq: int) -> None:
        """Listening has begun."""
        self._ahead_ns = session.realtime_ns - session.monotonic_ns
        if self._as_json:
            clocks = {"monotonic_ns": session.monotonic_ns, "realtime_ns": session.realtime_ns}
            map_ = {"event": "connected", "port": session.port, "stream": session.stream, "first_seq": first_seq}
            self._write(to_json({**map_, **clocks}))
            sys.stdout.flush()
        else:
            outcome.say(f"listening to {session.port}; the next interrupt is {first_seq}")

    def show(self, event: Event) -> None:
        """One event."""
        if self._as_json:
            self._write(to_json({"event": type(event).__name__.lower(), **event._asdict()}))
        else:
            self._write(outcome.escape(self._line(event)))

    def summarize(self, interrupts: lpt_client.Interrupts) -> None:
        """The counts."""
        received, lost, unknown = interrupts.received, interrupts.lost, interrupts.unknown_periods
        if self._as_json:
            self._write(to_json({"event": "end", "received": received, "lost": lost, "unknown_periods": unknown}))
            sys.stdout.flush()
            return
        sys.stdout.flush()
        unheard = f"; not heard for {unknown} time{'s' * (unknown != 1)}" if unknown else ""
        outcome.say(f"received {received}, lost {lost}{unheard}")

    def _write(self, line: str) -> None:
        sys.stdout.write(line + "\n")

    def _line(self, event: Event) -> str:
        from lpt_client.events import Interrupt, Mark, Sync

        if isinstance(event, Interrupt):
            count = f"  count {event.count}" if event.count != 1 else ""
            registers = f"  status 0x{event.status:02x}  control 0x{event.control:02x}"
            return f"{self._time(event.timestamp_ns)}  interrupt {event.seq}{count}{registers}"
        if isinstance(event, Mark):
            meaning = _MEANINGS.get(event.kind, "the port was not heard for a time")
            return f"{self._time(event.timestamp_ns)}  {event.kind}: {meaning}; the next interrupt is {event.seq}"
        if isinstance(event, Sync):
            lost = "nobody knows how many were lost" if event.lost is None else f"{event.lost} lost"
            return f"{'':15}  {event.reason}: {lost}; the next interrupt is {event.next_seq}"
        return f"{'':15}  reconnected"

    def _time(self, timestamp_ns: int) -> str:
        try:
            moment = datetime.fromtimestamp((timestamp_ns + self._ahead_ns) / 1e9)
        except (OSError, OverflowError, ValueError):  # a time that no clock of ours shows
            return f"{timestamp_ns:15}"
        return f"{moment:%H:%M:%S.%f}"


_MEANINGS: Final = {
    "unheard": "nobody listened until now, what came before is not known",
    "masked": "too many interrupts, the daemon silences them for a while",
    "unmasked": "interrupts are let through again",
    "stopped": "the port was paused or removed, or its daemon stops",
}


class Listener:
    """Hears the port until one of its ends has come."""

    def __init__(self, printer: Printer, *, count: float) -> None:
        self._printer = printer
        self._count = count
        self._ended_by: int | None = None  # the signal

    async def run(self, url: str, reconnect: bool, seconds: float) -> int:
        """Listen; the exit code. Raises what opening a port and connecting an interrupt raise."""
        import trio

        import lpt_client
        from lptctl.holding import signals_heeded

        async with lpt_client.open_port(url, reconnect=reconnect, **session_options("listen")) as port:
            async with port.connect_interrupt() as interrupts:
                with trio.open_signal_receiver(*signals_heeded(_ENDING_SIGNALS)) as signals:
                    self._printer.connected(port.session, interrupts.first_seq or 0)
                    error = await self._listen(port, interrupts, signals, seconds, reconnects=reconnect)
            if isinstance(error, BrokenPipeError):
                raise error
            is_whole = interrupts.received >= self._count
            # What came before the end, and was not taken yet.
            while not is_whole and error is None and (event := interrupts.take()) is not None:
                self._printer.show(event)
            self._printer.summarize(interrupts)
        if error is not None:
            raise error
        if interrupts.received >= self._count or math.isinf(self._count):
            return outcome.OK
        return outcome.TIMED_OUT if self._ended_by is None else outcome.SIGNAL_BASE + self._ended_by

    async def _listen(
        self,
        port: lpt_client.Port,
        interrupts: lpt_client.Interrupts,
        signals: AsyncIterator[int],
        seconds: float,
        *,
        reconnects: bool,
    ) -> Exception | None:
        """Print what comes until it is to end, or nothing more comes: the reason."""
        import trio

        from lpt_client import LptError

        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + seconds
            nursery.start_soon(self._end_by_signal, signals, nursery.cancel_scope)
            if reconnects:
                nursery.start_soon(self._tell_of_breaks, port)
            try:
                async for event in interrupts:
                    self._printer.show(event)
                    if interrupts.received >= self._count:
                        break
                    if not interrupts.event_count:
                        sys.stdout.flush()
            except (LptError, BrokenPipeError) as exc:
                error = exc  # raised by the caller: the nursery would wrap it
            nursery.cancel_scope.cancel()
        return error

    async def _tell_of_breaks(self, port: lpt_client.Port) -> None:
        """Say that nothing comes for now; what was missed is told in the stream. Raises nothing."""
        from lpt_client import LptError

        while True:
            outcome.say(str(await port.wait_lost()))
            try:
                await port.wait_connected()
            except LptError:
                return  # for good: told by the interrupts

    async def _end_by_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            self._ended_by = number
            scope.cancel()
