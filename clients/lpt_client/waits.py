"""Waiting without trio: until a deadline, whatever comes between.

A deadline is a time of `time.monotonic()`; inf stands for none. One holds for a whole step (a call, an attempt to
connect), so nothing begins its time anew: no signal whose handler returns, no bytes that come one by one, no message
for somebody else, no wake-up for nothing.
"""

from __future__ import annotations

import math
import select
import socket
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeVar

from lpt_client.values import patience

T = TypeVar("T")

# Waits once, until the deadline that it is given: then it raises TimeoutError, and may be called again.
Step = Callable[[float], Any]

# How long one wait of the kernel is at most: no system takes any number, and Windows lets Ctrl-C through only between
# two of them.
LONGEST_WAIT_S: Final = 0.5 if sys.platform == "win32" else 3600.0

HAS_POLL: Final = hasattr(select, "poll")  # Windows has not


def deadline_after(timeout: float | None) -> float:
    """The time of `time.monotonic()` that is `timeout` seconds from now; inf for None. Raises as `patience` does."""
    return time.monotonic() + patience(timeout, "timeout")


class Readiness:
    """Waits until a socket is readable, or writable."""

    def __init__(self, sock: socket.socket, *, to_write: bool = False) -> None:
        # Given milliseconds: something that is true once it can be, or false when they are over.
        self.poll: Any = (_poll if HAS_POLL else _select)(sock, to_write)

    def wait(self, deadline_s: float) -> None:
        """Return once it is; raises TimeoutError at the deadline. Looks at least once."""
        while True:
            remaining_s = deadline_s - time.monotonic()
            wait_s = LONGEST_WAIT_S if remaining_s > LONGEST_WAIT_S else remaining_s if remaining_s > 0 else 0.0
            if self.poll(wait_s * 1000):
                return
            if remaining_s <= LONGEST_WAIT_S:
                raise TimeoutError


def _poll(sock: socket.socket, to_write: bool) -> Any:
    poll: Any = select  # mypy looks at this for Windows, too, which has none
    poller = poll.poll()
    poller.register(sock, poll.POLLOUT if to_write else poll.POLLIN)
    return poller.poll


def _select(sock: socket.socket, to_write: bool) -> Any:
    reads, writes = ([], [sock]) if to_write else ([sock], [])

    def wait(timeout_ms: float) -> bool:
        # Windows tells of a connection that was refused as of an exception.
        return any(select.select(reads, writes, writes, timeout_ms / 1000))

    return wait


class Attempt(Generic[T]):
    """Something that takes several steps, by `deadline_s` at the latest. A caller with less time goes on with it later.

    `steps` yields what waits, and is sent what that gives, or thrown what it raises.
    """

    def __init__(self, steps: Generator[Step, Any, T], deadline_s: float) -> None:
        self._steps = steps
        self._deadline_s = deadline_s
        self._step: Step | None = None

    def go_on(self, until_s: float = math.inf) -> T | None:
        """What the steps return; None if `until_s` came first, and there is more to do.

        Raises what the steps raise. If it raises, whatever that is, the attempt is over, and cleaned up.
        """
        try:
            step = next(self._steps) if self._step is None else self._step
            while True:
                self._step = step
                try:
                    given = step(min(until_s, self._deadline_s))
                    if time.monotonic() >= self._deadline_s:  # bytes that come one by one, always in time
                        raise TimeoutError
                except Exception as exc:
                    if type(exc) is TimeoutError and until_s <= time.monotonic() < self._deadline_s:
                        return None
                    step = self._steps.throw(exc)
                else:
                    step = self._steps.send(given)
                    if time.monotonic() >= until_s:
                        self._step = step
                        return None
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Give it up, and clean up what it has opened."""
        self._steps.close()
