"""What `lptctl listen` writes: events as lines, the daemon's time of day, and a thread that writes."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

import trio

import lpt_client
from lpt_client.errors import LptError
from lpt_client.events import Event, Interrupt, Mark, SessionInfo, Sync
from lptctl import outcome, streams
from lptctl.common import to_json

# So many lines are handed to the thread at once, and as many wait; behind them the SDK's buffer bounds and counts.
BATCH_LINES_MAX: Final = 1024
# A line is shown by what the daemon's clocks said so long ago at most: its time of day may be set meanwhile.
_CLOCK_AGE_S: Final = 1.0
_CLOCK_TIMEOUT_S: Final = 1.0  # for an answer about the clocks; without one the former stands
_TIME_WIDTH: Final = len("2026-11-30T18:12:02.123456+00:00")

_MEANINGS: Final = {
    "unheard": "nobody listened until now, what came before is not known",
    "masked": "too many interrupts, the daemon silences them for a while",
    "unmasked": "interrupts are let through again",
    "stopped": "the port was paused or removed, or its daemon stops",
}


class DaemonClock:
    """The daemon's time of day at a moment of its CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._ahead_ns = 0
        self._due_s = 0.0

    def set(self, monotonic_ns: int, realtime_ns: int) -> None:
        """What both clocks say at one moment: now."""
        self._ahead_ns = realtime_ns - monotonic_ns
        self._due_s = trio.current_time() + _CLOCK_AGE_S

    async def keep_right(self, port: lpt_client.Port) -> None:
        """Ask the daemon again if that was long ago. Raises nothing; is not cancelled."""
        now_s = trio.current_time()
        if now_s < self._due_s:
            return
        self._due_s = now_s + _CLOCK_AGE_S
        with trio.CancelScope(shield=True, deadline=now_s + _CLOCK_TIMEOUT_S), suppress(LptError):
            clock = await port.ping()
            self.set(clock.monotonic_ns, clock.realtime_ns)

    def text(self, monotonic_ns: int) -> str:
        """That time in ISO 8601, in the time zone of this process."""
        seconds, rest_ns = divmod(monotonic_ns + self._ahead_ns, 10**9)
        try:
            moment = datetime.fromtimestamp(seconds).astimezone()
        except (OSError, OverflowError, ValueError):  # a time that no calendar has
            return f"{monotonic_ns:{_TIME_WIDTH}}"
        return moment.replace(microsecond=rest_ns // 1000).isoformat(timespec="microseconds")


class Printer:
    """Events as lines, of text or JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.clock = DaemonClock()

    def connected(self, session: SessionInfo, first_seq: int) -> str | None:
        """Listening has begun: a line; None if it has been told on standard error."""
        self.clock.set(session.monotonic_ns, session.realtime_ns)
        if not self.as_json:
            outcome.say(f"listening to {session.port}; the next interrupt is {first_seq}")
            return None
        clocks = {"monotonic_ns": session.monotonic_ns, "realtime_ns": session.realtime_ns}
        map_ = {"event": "connected", "port": session.port, "stream": session.stream, "first_seq": first_seq}
        return to_json({**map_, **clocks})

    def line(self, event: Event) -> str:
        """One event."""
        if self.as_json:
            return to_json({"event": type(event).__name__.lower(), **event._asdict()})
        return outcome.escape(self._text(event))

    def end(self, interrupts: lpt_client.Interrupts) -> str:
        """The counts, in JSON."""
        received, lost, unknown = interrupts.received, interrupts.lost, interrupts.unknown_periods
        return to_json({"event": "end", "received": received, "lost": lost, "unknown_periods": unknown})

    def _text(self, event: Event) -> str:
        if isinstance(event, Interrupt):
            count = f"  count {event.count}" if event.count != 1 else ""
            registers = f"  status 0x{event.status:02x}  control 0x{event.control:02x}"
            return f"{self.clock.text(event.timestamp_ns)}  interrupt {event.seq}{count}{registers}"
        if isinstance(event, Mark):
            meaning = _MEANINGS.get(event.kind, "the port was not heard for a time")
            return f"{self.clock.text(event.timestamp_ns)}  {event.kind}: {meaning}; the next interrupt is {event.seq}"
        if isinstance(event, Sync):
            lost = "nobody knows how many were lost" if event.lost is None else f"{event.lost} lost"
            return f"{'':{_TIME_WIDTH}}  {event.reason}: {lost}; the next interrupt is {event.next_seq}"
        return f"{'':{_TIME_WIDTH}}  reconnected"


class Lines:
    """Lines on their way to standard output, which a thread writes: a reader that stops reading holds up nothing else.

    `add` lines, `hand_over` now and then, `finish` at the end; meanwhile a task runs `write`.

    Attributes:
        written: interrupts in lines that have been written whole.
        failure: why nothing is written any more: Failure or ReaderGone.
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        self.written = 0
        self.failure: outcome.Failure | streams.ReaderGone | None = None
        self._on_failure = on_failure
        self._batch: list[tuple[str, int]] = []
        self._sender, self._receiver = trio.open_memory_channel[list[tuple[str, int]]](0)
        self._is_over = trio.Event()

    def add(self, line: str, interrupts: int = 0) -> None:
        """A line that tells of so many interrupts, to be written with the next batch."""
        self._batch.append((f"{line}\n", interrupts))

    @property
    def is_full(self) -> bool:
        """Whether it is time to hand over."""
        return len(self._batch) >= BATCH_LINES_MAX

    async def hand_over(self) -> None:
        """Give what was added to the thread once it has written what it was given before. Cancelled, it is kept."""
        with suppress(trio.BrokenResourceError):  # for a failure, which has been told
            if self._batch:
                await self._sender.send(self._batch)
                self._batch = []

    async def finish(self) -> None:
        """Hand over the rest, and wait until it is written or nothing can be."""
        await self.hand_over()
        self._sender.close()
        await self._is_over.wait()

    async def write(self) -> None:
        """Write what is handed over, to the end. Cancelled, it leaves the thread to itself."""
        try:
            with self._receiver:
                async for batch in self._receiver:
                    await self._write(batch)
        except (outcome.Failure, streams.ReaderGone) as exc:
            self._fail(exc)
        finally:
            self._is_over.set()

    async def watch_reader(self) -> None:
        """Fail as soon as the reader of a pipe has gone, where that can be seen: with nothing to write, too."""
        if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(1).st_mode):
            await trio.lowlevel.wait_readable(1)
            self._fail(streams.ReaderGone())

    async def _write(self, batch: list[tuple[str, int]]) -> None:
        before, text = streams.bytes_written(), "".join(line for line, _ in batch)
        try:
            await trio.to_thread.run_sync(streams.write_now, text, abandon_on_cancel=True)
        except BaseException:
            self._count(batch, streams.bytes_written() - before)
            raise
        self.written += sum(interrupts for _, interrupts in batch)

    def _count(self, batch: list[tuple[str, int]], size: int) -> None:
        """So many bytes of a batch have been written."""
        for line, interrupts in batch:
            size -= len(streams.encoded(line))
            if size < 0:
                return
            self.written += interrupts

    def _fail(self, failure: outcome.Failure | streams.ReaderGone) -> None:
        self.failure = self.failure or failure
        self._on_failure()
