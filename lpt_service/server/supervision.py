"""What the service manager is told while the daemon runs: its state, a line for people, and signs of life.

A sign of life says more than that the event loop turns: it is withheld when something that was due at the last one is
still undone, a deadline, a step of a job or an interrupt that nobody has fetched. Then the service manager kills the
daemon and starts it again. (A task that fails needs no such care: it ends the daemon.)
"""

from __future__ import annotations

import logging
import select
from collections.abc import Mapping
from typing import Final, NamedTuple

import trio

from lpt_service.core.function_driver import PortState
from lpt_service.server.clock import Clock
from lpt_service.server.port_worker import PortWorker
from lpt_service.server.systemd import Notifier

STATUS_INTERVAL_S: Final = 1.0
# A message to systemd may have 4096 bytes, a character has up to four.
STATUS_MAX_CHARACTERS: Final = 900
# How long systemd is asked to wait for the stop, beyond what clients are given.
_STOP_MARGIN_S: Final = 10.0
_STOPPING: Final = "STOPPING=1"
_log = logging.getLogger(__name__)


class Due(NamedTuple):
    """Something that was to be done by now. Two are the same when it was not done in between."""

    port: str
    what: str
    mark: int


class Supervision:
    """Speaks for the daemon to its service manager; silent where there is none.

    `workers` may grow. `watchdog_s` is how long the service manager waits for a sign of life; None: for ever.
    """

    def __init__(
        self, workers: Mapping[str, PortWorker], clock: Clock, notifier: Notifier, watchdog_s: float | None
    ) -> None:
        self._workers = workers
        self._clock = clock
        self._notifier = notifier
        self._watchdog_s = watchdog_s
        self._state = ""
        self._remark = ""
        self._told: tuple[str, ...] = ()
        self._was_due: frozenset[Due] = frozenset()
        self._is_stuck = False

    async def run(self) -> None:
        """Tell what changes, until cancelled."""
        if not self._notifier.is_heard:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_status)
            if self._watchdog_s is not None:
                nursery.start_soon(self._keep_watchdog, self._watchdog_s / 2)

    # The daemon's state

    def ready(self, remark: str = "") -> None:
        """Clients can connect; after `reloading`: that is over. `remark` is for people, and stays in the status.

        No effect once the daemon stops.
        """
        if self._state != _STOPPING:
            self._state, self._remark = "READY=1", remark
            self.tell()

    def reloading(self) -> None:
        """The configuration is being read; `ready` follows, and until then nothing is told but the end."""
        if self._state != _STOPPING:
            self._notifier.notify("RELOADING=1", f"MONOTONIC_USEC={self._clock.monotonic_ns() // 1000}")
            self._state, self._told = "", ()

    def stopping(self, timeout_s: float) -> None:
        """The daemon leaves, within `timeout_s` and a little."""
        self._state, self._remark = _STOPPING, "stopping"
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={int((timeout_s + _STOP_MARGIN_S) * 1e6)}")
        self.tell()

    def tell(self) -> None:
        """Send state and status if they have changed; what was not taken is sent the next time."""
        if not self._state:
            return
        message = (self._state, f"STATUS={self.status_line()}")
        if message != self._told and self._notifier.notify(*message):
            self._told = message

    def status_line(self) -> str:
        """Each port in a few words; beyond STATUS_MAX_CHARACTERS it is cut."""
        parts = [self._remark] if self._remark else []
        line = "; ".join([*parts, *map(_describe, self._workers.values())])
        return line if len(line) <= STATUS_MAX_CHARACTERS else line[: STATUS_MAX_CHARACTERS - 1] + "…"

    async def _keep_status(self) -> None:
        while True:
            await trio.sleep(STATUS_INTERVAL_S)
            self.tell()

    # Signs of life

    async def _keep_watchdog(self, interval_s: float) -> None:
        while True:
            self.give_sign_of_life()
            await trio.sleep(interval_s)

    def give_sign_of_life(self) -> None:
        """Tell that the daemon works, unless something that was due the last time still is."""
        now_ns = self._clock.monotonic_ns()
        due = frozenset(each for worker in self._workers.values() for each in _what_is_due(worker, now_ns))
        stuck, self._was_due = due & self._was_due, due
        if not stuck:
            self._is_stuck = False
            self._notifier.notify("WATCHDOG=1")
        elif not self._is_stuck:
            self._is_stuck = True
            for each in sorted(stuck):
                _log.error("port %s: %s overdue: this daemon is stuck, and has itself restarted", each.port, each.what)


def _describe(worker: PortWorker) -> str:
    driver = worker.driver
    if driver.state is PortState.ABSENT:
        return f"{worker.name}: absent ({driver.why_absent}), {len(worker.sessions)} sessions"
    owner = driver.ownership.owner
    who = "free" if owner is None else f"owned by {owner.client!r} (session {owner.session})"
    return f"{worker.name}: {who}, {driver.ownership.waiting} waiting, {len(worker.sessions)} sessions"


def _what_is_due(worker: PortWorker, now_ns: int) -> list[Due]:
    driver = worker.driver
    due: list[Due] = []
    deadline_ns = driver.deadlines.next_ns()
    if deadline_ns is not None and deadline_ns <= now_ns:
        due.append(Due(worker.name, "a deadline is", deadline_ns))
    if driver.job is not None and driver.job.due_ns <= now_ns:
        due.append(Due(worker.name, "a step of a job is", driver.job.due_ns))
    if driver.state is PortState.READY and driver.registry.is_heard and _is_readable(driver.port.fileno()):
        due.append(Due(worker.name, "interrupts are", driver.registry.log.next_seq))
    return due


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    if descriptor >= 0:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
