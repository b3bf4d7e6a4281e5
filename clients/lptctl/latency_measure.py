"""Measuring the way client → line → interrupt → client, sample by sample. What is printed of it is `latency_report`.

A sample: the line goes low, whatever interrupts are there are taken out of the way, then

    sent_ns         our clock, just before the request leaves that drives the line high
    line_ns         the daemon's clock, right after it drove the line
    interrupt_ns    the daemon's clock, when it learnt of the interrupt
    received_ns     our clock, when the interrupt is in the hands of this program

The daemon's times tell which interrupt belongs to the edge: one that it learnt of before it drove the line is a stray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from lpt_client.errors import LptError
from lpt_client.events import Event, Interrupt, Mark
from lpt_service.protocol.ioctl import STATUS_NACK
from lptctl.outcome import TIMED_OUT, Failure, say

if TYPE_CHECKING:
    from lpt_client import blocking

# How long the interrupt of an edge is waited for; then it counts as missing.
INTERRUPT_TIMEOUT_S: Final = 1.0
# After so many missing in a row the wire is taken to be gone, and the run ends.
MISSING_IN_A_ROW_MAX: Final = 5
# The longest sleep between two samples: an end that is asked for is noticed so soon.
_NAP_S: Final = 0.1
# So many readings of the daemon's clock must lie between two of ours before it counts as the same clock.
_CLOCK_TRIALS: Final = 20
_MONOTONIC: Final = "clock_gettime(CLOCK_MONOTONIC)"

clock_ns: Final = time.perf_counter_ns


class Plan(NamedTuple):
    """What is to be measured: `count` samples after `warm_up` that do not count, on data line D`bit`.

    `interval_s` is the time from the beginning of one sample to that of the next; 0: as fast as they return.
    """

    bit: int
    count: int  # type: ignore[assignment]  # hides tuple.count()
    warm_up: int
    interval_s: float


@dataclass
class Samples:
    """The samples, one list for each of their times, in ns; `indexes` numbers the edge that each belongs to.

    Lists of integers, not a list of objects: the garbage collector would look through those while it is measured.
    """

    indexes: list[int] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    line_ns: list[int] = field(default_factory=list)
    interrupt_ns: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indexes)

    def add(self, index: int, sent_ns: int, line_ns: int, interrupt_ns: int, received_ns: int) -> None:
        """One more."""
        self.indexes.append(index)
        self.sent_ns.append(sent_ns)
        self.line_ns.append(line_ns)
        self.interrupt_ns.append(interrupt_ns)
        self.received_ns.append(received_ns)

    @property
    def round_trip_ns(self) -> list[int]:
        """Client → line → interrupt → client."""
        return _differences(self.received_ns, self.sent_ns)

    @property
    def client_to_line_ns(self) -> list[int]:
        """Of use only where the daemon's clock is ours."""
        return _differences(self.line_ns, self.sent_ns)

    @property
    def line_to_interrupt_ns(self) -> list[int]:
        """By the daemon's clock alone."""
        return _differences(self.interrupt_ns, self.line_ns)

    @property
    def interrupt_to_client_ns(self) -> list[int]:
        """Of use only where the daemon's clock is ours."""
        return _differences(self.received_ns, self.interrupt_ns)


def _differences(later: list[int], earlier: list[int]) -> list[int]:
    return [end - begin for end, begin in zip(later, earlier, strict=True)]


@dataclass
class Run:
    """What has been measured so far, and all that is to be told about it.

    Attributes:
        missing: edges whose interrupt did not come in time.
        merged: edges whose interrupt came in one entry with others, so that its time is not known.
        strays: interrupts that no edge of ours had raised.
        told_lost: interrupts that the daemon or this client's buffer reported lost.
        marks: kind → how often, for times in which the port was not heard.
        has_one_clock: the daemon's times are of our clock.
        cut_short: why the run ended early; None if it did not.
        status: the port's, as the daemon told before the run.
    """

    samples: Samples = field(default_factory=Samples)
    missing: int = 0
    merged: int = 0
    strays: int = 0
    told_lost: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    has_one_clock: bool = False
    cut_short: str | None = None
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def edges(self) -> int:
        """How many times the line was driven high, and what became of it is known."""
        return len(self.samples) + self.missing + self.merged

    def note(self, event: Event) -> None:
        """Count what belongs to no edge. (What a Sync tells of is in the registration's own count.)"""
        if isinstance(event, Interrupt):
            self.strays += event.count
        elif isinstance(event, Mark):
            self.marks[event.kind] = self.marks.get(event.kind, 0) + 1


class Line(Protocol):
    """What a sample needs of a port."""

    def write_data(self, value: int) -> int:
        """Write the data register: the daemon's clock right after it, in ns."""


class Interrupts(Protocol):
    """What a sample needs of a registration."""

    lost: int

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None if none came within `timeout` seconds."""


class Meter:
    """Takes samples. `data` is what the data lines show besides; `has_ended` is asked between samples."""

    def __init__(
        self,
        line: Line,
        interrupts: Interrupts,
        plan: Plan,
        *,
        data: int = 0,
        has_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._line = line
        self._interrupts = interrupts
        self._plan = plan
        self._low = data & ~(1 << plan.bit)
        self._high = data | 1 << plan.bit
        self._has_ended = has_ended

    def take_all(self, run: Run) -> None:
        """Warm up, then measure into `run`. Errors of the port are raised; `run` has what came before."""
        warm_up = Run()
        self._take_many(warm_up, self._plan.warm_up)
        run.cut_short = warm_up.cut_short
        if run.cut_short is not None or self._has_ended():
            return
        lost_before = self._interrupts.lost
        try:
            self._take_many(run, self._plan.count)
        finally:
            run.told_lost = self._interrupts.lost - lost_before

    def try_one(self) -> bool:
        """Whether an interrupt comes of an edge."""
        trial = Run()
        self._take(trial)
        return trial.missing == 0

    def _take_many(self, run: Run, count: int) -> None:
        missing_in_a_row = 0
        due_s = time.monotonic()
        for _ in range(count):
            self._sleep_until(due_s)
            if self._has_ended():
                return
            missing_before = run.missing
            self._take(run)
            missing_in_a_row = missing_in_a_row + 1 if run.missing > missing_before else 0
            if missing_in_a_row == MISSING_IN_A_ROW_MAX:
                run.cut_short = f"{MISSING_IN_A_ROW_MAX} interrupts in a row did not come"
                return
            due_s = max(due_s + self._plan.interval_s, time.monotonic())

    def _take(self, run: Run) -> None:
        """One edge and its interrupt: a sample, or counted as missing or merged."""
        line, next_event = self._line, self._interrupts.next
        line.write_data(self._low)
        while (event := next_event(0.0)) is not None:
            run.note(event)
        sent_ns = clock_ns()
        line_ns = line.write_data(self._high)
        deadline_s = time.monotonic() + INTERRUPT_TIMEOUT_S
        while (event := next_event(max(0.0, deadline_s - time.monotonic()))) is not None:
            received_ns = clock_ns()
            if not isinstance(event, Interrupt) or event.timestamp_ns < line_ns:
                run.note(event)
            elif event.count == 1:
                run.samples.add(run.edges + 1, sent_ns, line_ns, event.timestamp_ns, received_ns)
                return
            else:
                run.merged += 1
                run.strays += event.count - 1
                return
        run.missing += 1

    def _sleep_until(self, due_s: float) -> None:
        while (remaining_s := due_s - time.monotonic()) > 0 and not self._has_ended():
            time.sleep(min(remaining_s, _NAP_S))


# Around a run


@contextmanager
def line_kept(port: blocking.Port) -> Iterator[int]:
    """The data lines are afterwards what they were before; gives that value. The port is owned."""
    before = port.read_data()
    try:
        yield before
    finally:
        if port.is_connected and port.grant is not None:  # otherwise they are the daemon's, which makes them safe
            try:
                port.write_data(before)
            except LptError as exc:
                say(f"the data lines could not be set back to 0x{before:02x}: {exc}")


def check_wire(port: blocking.Port, meter: Meter, bit: int, data: int) -> None:
    """Raise Failure unless nAck follows the line, and an edge raises an interrupt."""
    followed = []
    for is_high in (False, True):
        port.write_data(data | 1 << bit if is_high else data & ~(1 << bit))
        followed.append(bool(port.read_status() & STATUS_NACK) is is_high)
    if not all(followed):
        raise Failure(f"nAck does not follow D{bit}: {_wiring_advice(port.status(), bit)}", TIMED_OUT)
    if meter.try_one():
        return
    status = port.status()
    interrupts = status.get("interrupts")
    is_masked = isinstance(interrupts, dict) and interrupts.get("masked")
    advice = (
        "the daemon silences the port, which raised too many; try again later"
        if is_masked
        else f"nAck follows D{bit}, so the wire is there; see to it that the port's interrupt (IRQ) is set up"
    )
    raise Failure(f"no interrupt came within {INTERRUPT_TIMEOUT_S:g} s of D{bit} going high: {advice}", TIMED_OUT)


def _wiring_advice(status: dict[str, Any], bit: int) -> str:
    if status.get("kind") != "simulated":
        return f"join D{bit} (pin {bit + 2}) to nAck (pin 10) with a wire, and take away what else is plugged in"
    if bit != 3:
        return "the loop-back plug of a simulated port joins D3 to nAck; use --line D3"
    return (
        "this simulated port has no loop-back plug; set `loopback = true` for it in lptd's configuration, or start "
        "`lptd serve --simulate`"
    )


def has_our_clock(port: blocking.Port) -> bool:
    """Whether the daemon's CLOCK_MONOTONIC is the clock that is read here.

    The address does not tell: a Unix socket or a loopback address may be the end of a tunnel. But the clock of another
    machine counts from another start, and would not lie between two readings of ours, microseconds apart, every time.
    """
    if time.get_clock_info("perf_counter").implementation != _MONOTONIC:
        return False
    for _ in range(_CLOCK_TRIALS):
        before_ns = clock_ns()
        theirs_ns = port.ping().monotonic_ns
        if not before_ns <= theirs_ns <= clock_ns():
            return False
    return True
