"""Listening to a port until one of its ends has come, under trio: connecting ─▶ listening ─▶ finishing.

A signal ends the first two in order; what is not written by then has LAST_LINES_S. Another one ends that, too.
"""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator
from typing import Final

import trio

import lpt_client
from lpt_client.errors import LptError
from lptctl import outcome, signals, streams
from lptctl.common import session_options
from lptctl.listen_output import Lines, Printer

_ENDING_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")
LAST_LINES_S: Final = 2.0


class Listener:
    """Hears a port and prints what comes, until `count` interrupts have come or `seconds` have passed."""

    def __init__(self, url: str, *, as_json: bool, count: float, seconds: float, reconnects: bool) -> None:
        self._url = url
        self._count = count
        self._seconds = seconds
        self._reconnects = reconnects
        self._printer = Printer(as_json)
        self._lines = Lines(on_failure=self._end)
        self._interrupts: lpt_client.Interrupts | None = None  # once it is connected
        self._ended_by: int | None = None  # the signal
        self._scope = trio.CancelScope()  # of what is done now
        self._finishing = trio.CancelScope()

    async def run(self) -> int:
        """Listen; the exit code, or -n for signal n. Raises what opening a port and connecting an interrupt raise."""
        error: Exception | None = None
        with signals.received(signals.heeded(_ENDING_SIGNALS)) as receiver:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, receiver)
                nursery.start_soon(self._lines.write)
                nursery.start_soon(self._lines.watch_reader)
                try:
                    with self._scope:
                        await self._connect_and_listen()
                except Exception as exc:
                    error = exc  # raised below: a nursery would wrap it
                with self._finishing:
                    await self._finish()
                nursery.cancel_scope.cancel()
        return self._tell_end(error)

    async def _connect_and_listen(self) -> None:
        options = session_options("listen")
        async with lpt_client.open_port(self._url, reconnect=self._reconnects, **options) as port:
            async with port.connect_interrupt() as interrupts:
                self._interrupts = interrupts
                line = self._printer.connected(port.session, interrupts.first_seq or 0)
                if line is not None:
                    self._lines.add(line)
                error: LptError | None = None
                with trio.CancelScope(deadline=trio.current_time() + self._seconds) as self._scope:
                    error = await self._listen(port, interrupts)
                self._scope = self._finishing
            if error is not None:
                raise error

    async def _listen(self, port: lpt_client.Port, interrupts: lpt_client.Interrupts) -> LptError | None:
        """Print what comes until it is to end, or nothing more comes: the reason."""
        async with trio.open_nursery() as nursery:
            if self._reconnects:
                nursery.start_soon(_tell_of_breaks, port)
            try:
                await self._lines.hand_over()
                async for event in interrupts:
                    if not self._printer.as_json:
                        await self._printer.clock.keep_right(port)
                    self._add(event)
                    if interrupts.received >= self._count:
                        break
                    if self._lines.is_full or not interrupts.event_count:
                        await self._lines.hand_over()
            except LptError as exc:
                return exc  # raised by the caller: the nursery would wrap it
            finally:
                nursery.cancel_scope.cancel()
        return None

    def _add(self, event: lpt_client.Event) -> None:
        count = event.count if isinstance(event, lpt_client.Interrupt) else 0
        self._lines.add(self._printer.line(event), count)

    async def _finish(self) -> None:
        """Write what came before the end and was not taken yet, and the counts if they are a line of the output."""
        interrupts = self._interrupts
        if interrupts is None:
            return
        while interrupts.received < self._count and (event := interrupts.take()) is not None:
            self._add(event)
        if self._printer.as_json:
            self._lines.add(self._printer.end(interrupts))
        await self._lines.finish()

    def _tell_end(self, error: Exception | None) -> int:
        """Say on standard error what is not in the output; the exit code."""
        failure, interrupts = self._lines.failure, self._interrupts
        if isinstance(failure, streams.ReaderGone):
            return -signal.SIGPIPE
        if interrupts is not None:
            unwritten = interrupts.received - self._lines.written
            is_whole = failure is None and not self._finishing.cancelled_caught
            if not (is_whole and self._printer.as_json):
                outcome.say(_counts(interrupts, self._lines.written) + _shortfall(unwritten, failure, is_whole))
        if failure is not None:
            return failure.exit_code
        if error is not None:
            raise error
        if self._ended_by is not None:
            return -self._ended_by
        is_reached = interrupts is not None and interrupts.received >= self._count
        return outcome.OK if is_reached or math.isinf(self._count) else outcome.TIMED_OUT

    def _end(self) -> None:
        self._scope.cancel()

    async def _heed(self, receiver: AsyncIterator[int]) -> None:
        async for number in receiver:
            self._ended_by = number
            self._finishing.deadline = trio.current_time() + LAST_LINES_S
            self._end()


async def _tell_of_breaks(port: lpt_client.Port) -> None:
    """Say that nothing comes for now; the stream says what was missed. Raises nothing."""
    while True:
        outcome.say(str(await port.wait_lost()))
        try:
            await port.wait_connected()
        except LptError:
            return  # for good: told by the interrupts


def _counts(interrupts: lpt_client.Interrupts, received: int) -> str:
    unknown = interrupts.unknown_periods
    unheard = f"; not heard for {unknown} time{'s' * (unknown != 1)}" if unknown else ""
    return f"received {received}, lost {interrupts.lost}{unheard}"


def _shortfall(unwritten: int, failure: Exception | None, is_whole: bool) -> str:
    """What standard output did not take, if anything."""
    if is_whole:
        return ""
    more = f"; {unwritten} more came and are not written" if unwritten else ""
    return f"{more}: {failure}" if failure is not None else f"{more}: nobody reads the output"
