"""Jobs: requests that keep the port busy for a time. The server advances them when they are due, to the microsecond."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lpt_service.core.requests import ControlRequest
from lpt_service.port.base import ParallelPort
from lpt_service.protocol.structs import PULSE_EDGES


class Job(ABC):
    """One request that takes time, as a row of short steps.

    Error handling: every method may raise PortError; the job is over then.

    Attributes:
        request: the request that it answers.
        due_ns: when `advance` is to be called next.
        written: how many bytes it has put on the data lines.
    """

    def __init__(self, request: ControlRequest) -> None:
        self.request = request
        self.due_ns = 0
        self.written = 0

    @abstractmethod
    def begin(self) -> None:
        """Take the first step, and set `due_ns`."""

    @abstractmethod
    def advance(self) -> bytes | None:
        """Take the next step: the output when that was the last, else None with a new `due_ns`."""

    @abstractmethod
    def cut(self) -> None:
        """End early, leaving the lines as the job would have."""


class Pulse(Job):
    """PULSE: the data lines go to `value`, and `width_us` later to `after`."""

    def __init__(self, request: ControlRequest, port: ParallelPort, value: int, after: int, width_us: int) -> None:
        super().__init__(request)
        self._port = port
        self._value = value
        self._after = after
        self._width_ns = width_us * 1000
        self._first_edge_ns = 0

    def begin(self) -> None:
        """The first edge."""
        self._first_edge_ns = self._port.write_data(self._value)
        self.written = 1
        self.due_ns = self._first_edge_ns + self._width_ns

    def advance(self) -> bytes | None:
        """The second edge; the output is the monotonic ns of both."""
        second_edge_ns = self._port.write_data(self._after)
        self.written = 2
        return PULSE_EDGES.pack(self._first_edge_ns, second_edge_ns)

    def cut(self) -> None:
        """The second edge at once."""
        self._port.write_data(self._after)
        self.written = 2
