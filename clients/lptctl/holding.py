"""Holding the port while a process runs: the process, the port and the signals, under trio.

When the connection is lost:

    the daemon keeps the session for a while (the port's `grace_s`) ─▶ the command goes on, and so does the waiting
        ─▶ back in time, with the same grant: nothing has happened
        ─▶ else the port is lost
    it does not ─▶ the port is lost
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

import trio

import lpt_client
from lpt_client.errors import ConnectionLost, LptError, Revoked, TimedOut
from lpt_client.events import LeaseWarning, SessionInfo
from lpt_client.resume import resume_within_s
from lptctl import outcome
from lptctl.common import (
    GRANT_VARIABLE,
    URL_VARIABLE,
    PlaceLine,
    grant_around,
    not_got,
    refuse_deadlock,
    session_options,
)

# Passed on to the command, where the system has them.
_SIGNAL_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_KEYBOARD_SIGNAL_NAMES: Final = ("SIGINT", "SIGQUIT")
# Why a lease takes the port away, by the daemon's word for it.
_LEASE_REASONS: Final = {
    "held": "it has been held for long, and others wait",
    "idle": "it has been held for long without being used",
}
# A command that does not heed SIGTERM has so long to end when the port is lost.
_TERMINATE_WITHIN_S: Final = 5.0
# The command runs on for so long at most, without the port, while the reason of its loss is on its way.
_REASON_WITHIN_S: Final = 0.5


class Holder:
    """Runs one command while it holds the port.

    A signal that comes before the command starts ends the waiting; from then on it is passed on. A port that is lost
    ends the command, or not (`is_ended_with_port`). A lost connection alone does not, while the daemon keeps the port.
    """

    def __init__(
        self,
        url: str,
        command: Sequence[str],
        *,
        timeout_s: float | None = None,
        conflict_exit_code: int = outcome.TIMED_OUT,
        is_ended_with_port: bool = True,
        kill_after_s: float | None = None,
    ) -> None:
        self._url = url
        self._command = command
        self._timeout_s = timeout_s
        self._conflict_exit_code = conflict_exit_code
        self._is_ended_with_port = is_ended_with_port
        self._kill_after_s = _TERMINATE_WITHIN_S if kill_after_s is None else kill_after_s
        self._place = PlaceLine()
        self._is_starting = False
        self._started = trio.Event()
        self._process: trio.Process | None = None
        self._nursery: trio.Nursery

    async def run(self) -> int:
        """Wait for the port, run the command, free the port; lptctl's exit code.

        Raises Failure, and what opening a port and allocating it raise.
        """
        code = outcome.OK
        error: Exception | None = None

        async def hold() -> None:
            nonlocal code, error
            try:
                code = await self._hold()
            except (LptError, outcome.Failure) as exc:
                error = exc  # raised below: a nursery would wrap it
            scope.cancel()

        with trio.open_signal_receiver(*signals_heeded(_SIGNAL_NAMES)) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery, scope = nursery, nursery.cancel_scope
                nursery.start_soon(hold)
                ended_by = await self._pass_signals(signals)
                code = outcome.SIGNAL_BASE + ended_by
                scope.cancel()
        if error is not None:
            raise error
        return code

    async def _pass_signals(self, signals: AsyncIterator[int]) -> int:
        """Pass signals on, until this is cancelled; return the one that comes before the command starts."""
        async for number in signals:
            if not self._is_starting:
                return number
            await self._started.wait()  # a matter of milliseconds
            assert self._process is not None
            if not _came_from_keyboard(number):
                self._process.send_signal(number)
        raise AssertionError("signals end when the receiver is closed, and that is after this")

    async def _hold(self) -> int:
        try:
            return await self._run_holding()
        except (ConnectionLost, Revoked) as lost:
            if self._process is None:
                raise
            return await self._go_on_without_port(self._process, lost)
        finally:
            self._place.clear()

    async def _run_holding(self) -> int:
        """Own the port and run the command. The block of `allocated` is cancelled if the port is lost."""
        name = f"run {os.path.basename(self._command[0])}"
        async with lpt_client.open_port(self._url, reconnect=True, **session_options(name)) as port:
            session = port.session
            self._nursery.start_soon(self._tell_of_breaks, port, session)
            if grant_around(self._url) is not None:
                refuse_deadlock(grant_around(self._url), await port.status())
            try:
                async with port.allocated(
                    self._timeout_s,
                    on_queued=lambda position: self._place.show(session.port, position),
                    on_lease=lambda warning: outcome.say(_text_of(warning, session.port)),
                ) as grant:
                    self._place.clear()
                    url = str(port.url.with_port_name(session.port))
                    return await self._run_command({URL_VARIABLE: url, GRANT_VARIABLE: str(grant)})
            except TimedOut as error:
                status = await port.status()
                raise not_got(status, error.detail, self._timeout_s, self._conflict_exit_code) from None
            except Revoked as lost:
                raise await _told_why(port, lost) from None

    async def _tell_of_breaks(self, port: lpt_client.Port, session: SessionInfo) -> None:
        """Say when the connection is lost while the daemon keeps the session, and when it is back. Raises nothing."""
        within_s = resume_within_s(session)
        while True:
            why = await port.wait_lost()
            if not port.goes_on:
                return  # it is over; that is told by those who waited
            self._place.clear()
            outcome.say(f"the connection is lost, {within_s:g} s to get it back before {session.port} is lost: {why}")
            try:
                await port.wait_connected()
                is_same = port.session.session == session.session
            except LptError:
                return
            if not is_same or (self._is_starting and port.grant is None):
                return  # back, and too late
            outcome.say(f"the connection is back, nothing of {session.port} was lost")

    async def _run_command(self, variables: dict[str, str]) -> int:
        self._is_starting = True
        try:
            process = await trio.lowlevel.open_process(list(self._command), env={**os.environ, **variables})
        except OSError as exc:
            is_missing = isinstance(exc, FileNotFoundError)
            advice = "no such command; check its name and PATH" if is_missing else f"cannot be executed: {exc.strerror}"
            outcome.say(f"{self._command[0]}: {advice}")
            return outcome.NO_SUCH_COMMAND if is_missing else outcome.CANNOT_EXECUTE
        self._process = process
        self._started.set()
        return exit_code_of(await process.wait())

    async def _go_on_without_port(self, process: trio.Process, lost: ConnectionLost | Revoked) -> int:
        """The port is gone and the command may still run: see to that, and give the exit code."""
        why = lost.reason if isinstance(lost, Revoked) else lost
        if process.returncode is not None:
            outcome.say(f"the port was lost as the command ended: {why}")
            return exit_code_of(process.returncode)
        if not self._is_ended_with_port:
            outcome.say(f"the port was lost, the command goes on without it: {why}")
            return exit_code_of(await process.wait())
        outcome.say(f"the port was lost, the command is ended: {why}")
        process.terminate()
        with trio.move_on_after(self._kill_after_s):
            await process.wait()
        if process.returncode is None:
            outcome.say(f"the command did not heed SIGTERM for {self._kill_after_s:g} s, it is killed")
            process.kill()
            await process.wait()
        return outcome.LOST


async def _told_why(port: lpt_client.Port, lost: Revoked) -> Revoked:
    """The same, with the daemon's reason. If the connection was broken that comes next, before any answer."""
    if port.revoked is None:
        with trio.move_on_after(_REASON_WITHIN_S), suppress(LptError):
            await port.ping()
    return lost if port.revoked is None else Revoked(port.revoked)


def _text_of(warning: LeaseWarning, port_name: str) -> str:
    why = _LEASE_REASONS.get(warning.reason, warning.reason)
    return f"{port_name} will be taken away in {warning.remaining_ms / 1000:g} s: {why}"


def exit_code_of(returncode: int) -> int:
    """A shell's number for how a process ended: its own code, or 128+n for signal n."""
    return returncode if returncode >= 0 else outcome.SIGNAL_BASE - returncode


def signals_heeded(names: Sequence[str]) -> list[int]:
    """Those signals that this system has and that this process was not started to ignore, as under nohup(1)."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _came_from_keyboard(number: int) -> bool:
    """Whether a signal is one that the terminal has sent to the command as well: twice would be once too often.

    It is taken to be when this process is in the foreground of its terminal, with the command in its process group.
    """
    if signal.Signals(number).name not in _KEYBOARD_SIGNAL_NAMES or not hasattr(os, "tcgetpgrp"):
        return False
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
