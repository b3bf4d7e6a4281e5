"""Holding the port while a process runs: the process, the port and the signals, under trio.

When the connection is lost:

    the daemon keeps the session for a while (the port's `grace_s`) ─▶ the command goes on, and so does the waiting
        ─▶ back in time, with the same grant: nothing has happened
        ─▶ else the port is lost
    it does not ─▶ the port is lost
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

import lpt_client
from lpt_client.errors import ConnectionLost, LptError, Revoked, TimedOut
from lpt_client.events import LeaseWarning, SessionInfo
from lpt_client.resume import resume_within_s
from lptctl import outcome
from lptctl.command import Command
from lptctl.common import (
    GRANT_VARIABLE,
    URL_VARIABLE,
    PlaceLine,
    grant_around,
    not_got,
    refuse_deadlock,
    session_options,
)

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
        self._name = f"run {os.path.basename(command[0])}"
        self._command = Command(command, dies_with_us=is_ended_with_port)
        self._timeout_s = timeout_s
        self._conflict_exit_code = conflict_exit_code
        self._is_ended_with_port = is_ended_with_port
        self._kill_after_s = _TERMINATE_WITHIN_S if kill_after_s is None else kill_after_s
        self._place = PlaceLine()

    async def run(self) -> int:
        """Wait for the port, run the command, free the port; lptctl's exit code, or -n if signal n ended it.

        Raises Failure, and what opening a port and allocating it raise.
        """
        return await self._command.attend(self._hold)

    async def _hold(self, nursery: trio.Nursery) -> int:
        try:
            return await self._run_holding(nursery)
        except (ConnectionLost, Revoked) as lost:
            if not self._command.has_started:
                raise
            return await self._go_on_without_port(lost)
        finally:
            self._place.clear()

    async def _run_holding(self, nursery: trio.Nursery) -> int:
        """Own the port and run the command. The block of `allocated` is cancelled if the port is lost."""
        async with lpt_client.open_port(self._url, reconnect=True, **session_options(self._name)) as port:
            session = port.session
            nursery.start_soon(self._tell_of_breaks, port, session)
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
                    return await self._command.run({URL_VARIABLE: url, GRANT_VARIABLE: str(grant)})
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
            if not is_same or (self._command.has_started and port.grant is None):
                return  # back, and too late
            outcome.say(f"the connection is back, nothing of {session.port} was lost")

    async def _go_on_without_port(self, lost: ConnectionLost | Revoked) -> int:
        """The port is gone and the command may still run: see to that, and give the exit code."""
        why = lost.reason if isinstance(lost, Revoked) else lost
        code = self._command.returncode
        if code is not None:
            outcome.say(f"the port was lost as the command ended: {why}")
            return code
        if not self._is_ended_with_port:
            outcome.say(f"the port was lost, the command goes on without it: {why}")
            return await self._command.wait()
        outcome.say(f"the port was lost, the command is ended: {why}")
        await self._command.end(self._kill_after_s)
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
