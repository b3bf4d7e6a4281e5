"""A rig for the tests of `lptctl latency`: a line and its interrupts, as a test wants them, at made-up times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from lpt_client.events import Event, Interrupt
from lptctl.latency_measure import Run
from lptctl.latency_report import Report

HIGH = 0x08
# How long after its edge an interrupt is learnt of, by the rig's own clock.
RESPONSE_NS = 30


def interrupt(timestamp_ns: int, count: int = 1) -> Interrupt:
    """An interrupt that the daemon learnt of at that time."""
    return Interrupt(0, count, timestamp_ns, 0x40, 0x1C)


class Rig:
    """The line and the interrupts at once. Each edge raises what `respond(edge, line_ns)` gives; edges begin at 1."""

    def __init__(self, respond: Callable[[int, int], list[Event]] | None = None) -> None:
        self.lost = 0
        self.edges = 0
        self.written: list[int] = []
        self.events: deque[Event] = deque()
        self._respond = respond or (lambda _edge, line_ns: [interrupt(line_ns + RESPONSE_NS)])
        self._now_ns = 1000

    def write_data(self, value: int) -> int:
        """Drive the lines; an edge is D3 going high."""
        is_edge = bool(value & HIGH) and not (self.written and self.written[-1] & HIGH)
        self.written.append(value)
        self._now_ns += 1000
        if is_edge:
            self.edges += 1
            self.events.extend(self._respond(self.edges, self._now_ns))
        return self._now_ns

    def next(self, timeout: float | None = None) -> Event | None:
        """What has come; nothing is waited for."""
        return self.events.popleft() if self.events else None


FACTS = {
    "System": "Linux x86_64",
    "Kernel": "6.1.0 #1 SMP PREEMPT_RT",
    "Kernel preemption": "PREEMPT_RT",
    "CPU": "Abacus 3000",
    "Client's scheduling policy": "SCHED_FIFO, priority 50, nice 0",
}


def run_of(latencies_us: list[float], **members: Any) -> Run:
    """A run with these round trips; each has 10 µs to the line, 5 µs from there to the interrupt."""
    run = Run(**members)
    for index, latency_us in enumerate(latencies_us, 1):
        sent_ns = index * 1_000_000
        run.samples.add(index, sent_ns, sent_ns + 10_000, sent_ns + 15_000, sent_ns + round(latency_us * 1000))
    return run


def report_of(run: Run, **members: Any) -> Report:
    """A report of a run on a made-up rig."""
    from lptctl.latency_measure import Plan

    plan = Plan(bit=3, count=run.edges, warm_up=7, interval_s=0.0)
    names = {
        "url": "lpt://lab-pc/LPT1",
        "server": "lpt-service 9.8.7",
        "port": "LPT1",
        "date": "2026-01-02 03:04:05 UTC",
    }
    return Report(run=run, plan=plan, facts=FACTS, **{**names, **members})
