"""PULSE: how far the width of a pulse is from what was asked, by the times of its edges that the daemon tells."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Final

import trio

from lpt_client import blocking
from tests.bench.bench import Bench
from tests.bench.daemons import lptd
from tests.bench.report import Result, Table, at_most, number
from tests.bench.stats import Times, over_rounds, times_of

WIDTHS_US: Final = (100, 1_000, 5_000, 100_000)
_SECONDS: Final = (1.0, 0.1)  # of pulses, a round and width; in a quick run


def measure(bench: Bench) -> Result:
    """The daemon and trio.sleep in turn, at four widths."""
    result = Result(
        "The width of a pulse",
        "The daemon is idle. Error: the distance of the two edges, as the daemon tells it, less the width that was "
        "asked "
        "for; beside it the same of `trio.sleep` alone. Times in µs.",
    )
    rows = []
    with ExitStack() as stack:
        daemon = stack.enter_context(lptd(bench.core))
        port = stack.enter_context(blocking.open_port(daemon.url))
        stack.enter_context(port.allocated())
        for width_us in WIDTHS_US:
            count = min(500, max(3, int(bench.pick(*_SECONDS) * 1e6 / width_us)))
            rounds: dict[str, list[Times]] = {"PULSE": [], "trio.sleep": []}
            for _ in range(bench.pick(5, 2)):
                rounds["PULSE"].append(times_of(_pulse(port, width_us) for _ in range(count)))
                rounds["trio.sleep"].append(times_of(trio.run(_sleep, width_us, count)))
            for name, samples in rounds.items():
                times = over_rounds(samples)
                rows.append((f"{name}, {width_us / 1000:g} ms", *map(number, (times.p50, times.p99, times.max))))
            p99 = over_rounds(rounds["PULSE"]).p99
            result.goals.append(at_most(f"{width_us / 1000:g} ms: p99 of the error ≤ 0.2 ms", p99, 200, "µs"))
            raw: dict[str, Any] = {name: [vars(each) for each in samples] for name, samples in rounds.items()}
            result.raw[f"{width_us} µs"] = raw
    result.tables.append(Table(("error of the width", "p50", "p99", "max"), rows))
    return result


def _pulse(port: blocking.Port, width_us: int) -> int:
    edges = port.pulse(0x55, width_us=width_us)
    return abs(edges.second_ns - edges.first_ns - width_us * 1000)


async def _sleep(width_us: int, count: int) -> list[int]:
    errors = []
    for _ in range(count):
        began = time.monotonic_ns()
        await trio.sleep(width_us / 1e6)
        errors.append(abs(time.monotonic_ns() - began - width_us * 1000))
    return errors
